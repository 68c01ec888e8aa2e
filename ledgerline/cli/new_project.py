"""`ledgerline new` as a person types it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ledgerline.cli.commands import stop
from ledgerline.new_project.kind import Kind


def new(
    project: Annotated[
        Path, typer.Argument(help="A folder that does not exist yet. The project has its name.")
    ],
    kind: Annotated[Kind, typer.Option(help="What its model predicts.")] = Kind.REGRESSION,
) -> None:
    """Write a small project to start from: rows, a model with its gates, predictions, tests.

    `make run` works in it at once, on rows that are made up: half a year of eight shops. Its README.md says
    what to change for your own. A binary model says whether a shop sells out; a multiclass one whether demand
    is low, normal or high; a regression how much is sold; quantiles how much at least, probably and at most.
    """
    from ledgerline.new_project.writing import NewProjectError, write_project
    from ledgerline.settings.version import VERSION

    try:
        folder = write_project(project, kind, VERSION)
    except NewProjectError as error:
        stop(error)
    console = Console()
    console.print(Text(f"{folder} has a project that predicts: {kind.question}?"), soft_wrap=True)
    console.print(Text(f"\nNext:  cd {shlex.quote(str(project))}"), soft_wrap=True)
    console.print("       make run    a model, trained, compared and in production")
    console.print("       make dev    the pages of Dagster and MLflow, and the model's answers")
    console.print("\nREADME.md in it says what is there, and what to change for your own data.")
