"""The commands of `ledgerline memory`, which list and delete what the agents of a project remember."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ledgerline.cli.commands import OptionsError, prepared_settings, wide_console

if TYPE_CHECKING:
    from ledgerline.agent.memory import Memory

app = typer.Typer(name="memory", no_args_is_help=True, help="List and delete what agents remember.")

MAX_CHARACTERS = 80


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option(help="Number of entries.", min=1)] = 50,
) -> None:
    """List the latest answers and reports in memory, with their keys."""
    from rich.table import Table

    with _opened() as memory:
        table = Table(title=f"{memory.count:,} entries")
        table.add_column("key", overflow="fold")
        for column in ("kind", "when (UTC)", "what"):
            table.add_column(column, no_wrap=True)
        for entry in memory.entries(limit):
            what = " ".join(entry.text.split())
            table.add_row(entry.key, entry.kind, f"{entry.created:%Y-%m-%d %H:%M}", what[:MAX_CHARACTERS])
        wide_console().print(table)


@app.command()
def forget(
    keys: Annotated[
        list[str], typer.Argument(help="Keys of entries, as printed by `ledgerline memory list`.")
    ],
) -> None:
    """Delete entries from memory and from the disk.

    The exit status is 1 if one of them does not exist.
    """
    with _opened() as memory:
        forgotten = memory.forget(keys)
    typer.echo(f"{forgotten} of {len(set(keys))} entries deleted.")
    raise typer.Exit(0 if forgotten == len(set(keys)) else 1)


@contextmanager
def _opened() -> "Iterator[Memory]":
    settings = prepared_settings()
    from ledgerline.dagster.resources import agent_of

    with agent_of(settings) as agent:
        memory = agent.open_memory()
        if memory is None:
            raise OptionsError("The agent has no memory: LEDGERLINE_MEMORY is off.", "Set it to a folder.")
        yield memory
