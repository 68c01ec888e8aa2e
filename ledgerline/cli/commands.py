"""The beginning and the end that commands have in common: settings, the project, consoles, error messages."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Never

from rich.console import Console
from rich.text import Text

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    from ledgerline.cli.loaded_project import LoadedProject
    from ledgerline.dagster.settings import Settings

WIDTH = 132


class OptionsError(LedgerlineError):
    """Arguments and options of a command that cannot be combined."""


def prepared_settings(dagster_home: Path | None = None) -> "Settings":
    """Return the settings of this project, with its state folder prepared.

    Args:
        dagster_home: The folder of another instance, which a command reads and which stays unchanged. It
            needs no project.

    Raises:
        LedgerlineError: A setting is wrong, there is no project, or the folder cannot be written.
    """
    settings = _settings()
    if dagster_home is None:
        _ = settings.project.module
    else:
        settings = settings.model_copy(update={"dagster_home": settings.home / "dagster"})
    from ledgerline.cli import state

    state.prepare(settings)
    return settings


def loaded_project(settings: "Settings") -> "LoadedProject":
    """Return the project with its definitions; raise a LedgerlineError if they cannot be loaded."""
    from ledgerline.cli.loaded_project import load

    return load(settings.project)


def instance_beside(dagster_home: Path | None) -> Path | None:
    """Return the folder of the Dagster instance that a command reads; None for the project's own instance.

    It is the given one, or without a project, the one that DAGSTER_HOME names.
    """
    if dagster_home is not None:
        return dagster_home
    settings = _settings()
    is_named = settings.dagster_home != settings.home / "dagster"
    return settings.dagster_home if is_named and settings.project.definitions is None else None


def wide_console() -> Console:
    """Return a console for tables: as wide as the terminal, or wide enough for tables without one."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def print_error(error: LedgerlineError) -> None:
    """Print an error to stderr as a single message without a stack trace."""
    Console(stderr=True).print(Text(str(error)), soft_wrap=True)


def end_at_once() -> Never:
    """End the process with success while its threads are still in calls that cannot be interrupted.

    At a normal end, such a thread may abort the process. See "Cautions regarding runtime finalization" in
    https://docs.python.org/3/c-api/init.html. Nothing is flushed: each line was flushed when it was
    printed, and a thread may hold the lock of a stream.
    """
    os._exit(0)


def _settings() -> "Settings":
    # Imported here, because `ledgerline serve` does without Dagster, which takes seconds to import.
    from ledgerline.dagster.settings import Settings

    return Settings.from_environment()
