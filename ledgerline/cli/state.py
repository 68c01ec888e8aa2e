"""Prepares the folder with all local state for Dagster and MLflow."""

from pathlib import Path

from ledgerline.dagster.settings import Settings, export
from ledgerline.errors import LedgerlineError


class StateError(LedgerlineError):
    """The folder for local state cannot be written."""


def prepare(settings: Settings) -> None:
    """Create the folders, give Dagster its configuration, and export the settings to child processes.

    Raises:
        StateError: A folder cannot be created or written.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        _link_instance_configuration(settings.dagster_home, settings.project.root / "dagster.yaml")
    except OSError as error:
        raise StateError(
            f"{error.filename or settings.home} cannot be written: {error.strerror}.",
            "Ledgerline keeps all local state there: set LEDGERLINE_HOME to a folder that you can write.",
        ) from error
    export(settings)


def _link_instance_configuration(dagster_home: Path, of_project: Path) -> None:
    """Link the project's configuration into the instance; without one, create an empty file for Dagster."""
    configuration = dagster_home / "dagster.yaml"
    if configuration.exists() and configuration.read_bytes().strip():
        return
    configuration.unlink(missing_ok=True)  # empty, or a link to a checkout that has moved
    if of_project.exists():
        configuration.symlink_to(of_project)
    else:
        configuration.touch()
