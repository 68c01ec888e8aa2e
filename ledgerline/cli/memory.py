"""`ledgerline memory ...`: what the agents of a project remember, and how they are made to forget."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ledgerline.cli.commands import prepared_settings, stop, wide_console

if TYPE_CHECKING:
    from ledgerline.agent.memory import Memory

app = typer.Typer(
    name="memory", no_args_is_help=True, help="What agents remember: look it up, make them forget."
)

MAX_CHARACTERS = 80


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option(help="The latest so many.", min=1)] = 50,
) -> None:
    """The latest answers and reports that are remembered, with the keys to forget them by."""
    from rich.table import Table

    with _opened() as memory:
        table = Table(title=f"{memory.count:,} entries")
        for column in ("key", "kind", "when (UTC)", "what"):
            table.add_column(
                column, overflow="fold" if column == "key" else "ellipsis", no_wrap=column != "key"
            )
        for entry in memory.entries(limit):
            what = " ".join(entry.text.split())
            table.add_row(entry.key, entry.kind, f"{entry.created:%Y-%m-%d %H:%M}", what[:MAX_CHARACTERS])
        wide_console().print(table)


@app.command()
def forget(
    keys: Annotated[list[str], typer.Argument(help="As `ledgerline memory list` shows them.")],
) -> None:
    """Delete entries for good, from the disk, too. Exits with 1 when one is not there."""
    with _opened() as memory:
        forgotten = memory.forget(keys)
    typer.echo(f"{forgotten} of {len(set(keys))} forgotten.")
    raise typer.Exit(0 if forgotten == len(set(keys)) else 1)


@contextmanager
def _opened() -> "Iterator[Memory]":
    settings = prepared_settings()
    from ledgerline.agent.memory import MemoryUnusableError
    from ledgerline.dagster.resources import agent_of

    with agent_of(settings) as agent:
        memory = agent.open_memory()
        if memory is None:
            stop(ValueError("The agent has no memory: LEDGERLINE_MEMORY is off. Set it to a folder."))
        try:
            yield memory
        except MemoryUnusableError as error:
            stop(error)
