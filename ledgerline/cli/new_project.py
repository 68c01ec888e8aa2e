"""The command `ledgerline new`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ledgerline.new_project.kind import Kind


def new(
    project: Annotated[
        Path,
        typer.Argument(help="Folder for the project, which must not exist yet. The project has its name."),
    ],
    kind: Annotated[Kind, typer.Option(help="Kind of prediction of its model.")] = Kind.REGRESSION,
) -> None:
    """Write a small project to start from: data, a model with its gates, predictions and tests.

    `make run` works in it at once, with generated data: half a year of eight shops. Its README.md explains
    what to replace with your own. The binary model predicts whether a shop sells out, the multiclass model
    whether demand is low, normal or high, the regression how much is sold, and the quantile model a range.
    """
    from ledgerline.new_project.writing import write_project
    from ledgerline.settings.version import VERSION

    folder = write_project(project, kind, VERSION)
    console = Console()
    console.print(Text(f"{folder} contains a project whose model predicts: {kind.question}?"), soft_wrap=True)
    console.print(Text(f"\nNext:  cd {shlex.quote(str(project))}"), soft_wrap=True)
    console.print("       make run    train a model, compare it and put it into production")
    console.print("       make dev    start Dagster, MLflow and the prediction service")
    console.print("\nIts README.md describes the files, and what to replace for your own data.")
