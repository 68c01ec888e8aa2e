"""What every command begins and ends with."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Never

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from ledgerline.cli.loaded_project import LoadedProject
    from ledgerline.dagster.settings import Settings

WIDTH = 132


def prepared_settings() -> "Settings":
    """Return the settings of this project, with its state folder made ready.

    Ends the command when something is wrong with them, and where there is no project.
    """
    # Here, and not above: serving does without Dagster, which these import.
    from ledgerline.cli import state
    from ledgerline.dagster.settings import Settings

    try:
        settings = Settings.from_environment()
        _ = settings.project.module
        state.prepare(settings)
    except (ValueError, state.StateError) as error:
        stop(error)
    return settings


def loaded_project(settings: "Settings") -> "LoadedProject":
    """Return the project with its definitions; ends the command when they cannot be loaded."""
    from ledgerline.cli.loaded_project import DefinitionsError, load

    try:
        return load(settings.project)
    except (ValueError, DefinitionsError) as error:
        stop(error)


def instance_beside(dagster_home: Path | None) -> Path | None:
    """Return the Dagster instance that a command is about, beside the project's own.

    Args:
        dagster_home: Its folder, if one is named.

    Returns:
        The folder; without a project, the one that DAGSTER_HOME names; None: the project's own instance.
    """
    if dagster_home is not None:
        return dagster_home
    from ledgerline.dagster.settings import Settings

    try:
        settings = Settings.from_environment()
    except ValueError as error:
        stop(error)
    is_named = settings.dagster_home != settings.home / "dagster"
    return settings.dagster_home if is_named and settings.project.definitions is None else None


def settings_beside(dagster_home: Path | None) -> "Settings":
    """Return the settings of a command for another instance, which they leave as it is.

    Args:
        dagster_home: That instance's folder; DAGSTER_HOME may name it, too.
    """
    if dagster_home is None:
        return prepared_settings()
    from ledgerline.cli import state
    from ledgerline.dagster.settings import Settings

    try:
        settings = Settings.from_environment()
        settings = replace(settings, dagster_home=settings.home / "dagster")
        state.prepare(settings)
    except (ValueError, state.StateError) as error:
        stop(error)
    return settings


def wide_console() -> Console:
    """For tables: as wide as the terminal, and wide enough to be read where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def stop(error: Exception) -> Never:
    """End the command with a message and nothing else."""
    say(error)
    raise typer.Exit(2)


def say(error: Exception) -> None:
    """Print a message beside the output of the command."""
    Console(stderr=True).print(Text(str(error)), soft_wrap=True)


def end_at_once() -> Never:
    """End the process with success while threads of it are still in calls that cannot be interrupted.

    The interpreter's own end makes such a thread exit where it comes back to Python: C++ code that it is in
    aborts the process then, and so does Python itself for a thread that is printing. See "Cautions regarding
    runtime finalization" in https://docs.python.org/3/c-api/init.html.

    Nothing is flushed: each line is when it is printed or logged, and a thread may hold the lock of a stream
    while it waits for whatever reads it.
    """
    os._exit(0)
