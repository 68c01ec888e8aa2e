"""What this project adds to the commands of `ledgerline`: asking its analyst."""

from typing import Annotated

import typer

from ledgerline.cli import memory
from ledgerline.cli.commands import prepared_settings, stop

app = typer.Typer()
app.add_typer(memory.app)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="About the flights.")],
    model: Annotated[
        str | None, typer.Option(help="The language model. Default: LEDGERLINE_LLM_MODEL.")
    ] = None,
    without_memory: Annotated[
        bool, typer.Option("--no-memory", help="Recall nothing, and do not remember the answer.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the execution as JSON, and nothing else.")
    ] = False,
) -> None:
    """Let an agent answer a question from the tables, with a language model of Ollama's or another server.

    Shows what it does meanwhile; the execution is a trace in MLflow, with its tools and tokens. Exits with 1
    when it ends without an answer, or with one that does not state what was asked for.
    """
    settings = prepared_settings()
    from rich.console import Console

    from ledgerline.agent.execution import Outcome
    from ledgerline.cli.execution_view import ExecutionView, print_execution
    from pipelines import asking

    chosen = asking.with_options(settings, model, without_memory=without_memory)
    aside = Console(stderr=True)
    try:
        with ExecutionView(Console(quiet=as_json)) as view:
            execution = asking.ask(chosen, question, view, aside)
    except asking.AskingError as error:
        stop(error)
    if as_json:
        typer.echo(asking.as_json(execution))
    else:
        print_execution(Console(), execution, asking.trace_page(chosen, execution))
    raise typer.Exit(0 if execution.outcome is Outcome.ANSWERED else 1)
