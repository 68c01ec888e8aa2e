"""Adds the commands `ask` and `memory` of this project to `ledgerline`."""

from typing import Annotated

import typer

from ledgerline.cli import memory
from ledgerline.cli.commands import prepared_settings

app = typer.Typer()
app.add_typer(memory.app)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="Question about the flights.")],
    model: Annotated[str | None, typer.Option(help="Language model. Default: LEDGERLINE_LLM_MODEL.")] = None,
    without_memory: Annotated[
        bool, typer.Option("--no-memory", help="Do not use memories, and do not remember the answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the execution, as JSON.")] = False,
) -> None:
    """Let an agent answer a question from the tables, with a language model on Ollama or another server.

    The command prints the calls of tools, and MLflow has the execution as a trace with tools and tokens. The
    exit status is 1 if there is no answer, or if the answer does not state a finding.
    """
    settings = prepared_settings()
    from rich.console import Console

    from ledgerline.agent.execution import Outcome
    from ledgerline.cli.execution_view import ExecutionView, print_execution
    from pipelines import ask_analyst

    chosen = ask_analyst.with_options(settings, model, without_memory=without_memory)
    with ExecutionView(Console(quiet=as_json)) as view:
        execution = ask_analyst.ask(chosen, question, view, notes=Console(stderr=True))
    if as_json:
        typer.echo(ask_analyst.as_json(execution))
    else:
        print_execution(Console(), execution, ask_analyst.trace_page(chosen, execution))
    raise typer.Exit(0 if execution.outcome is Outcome.ANSWERED else 1)
