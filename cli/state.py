"""The folder that holds all local state, made ready for Dagster and MLflow."""

from pathlib import Path

from resources.environments import PROJECT_ROOT, Settings, export


class StateError(Exception):
    """The state folder cannot be used; the message says which and what to do."""


def prepare(settings: Settings) -> None:
    """Create the folders, give Dagster its configuration, and export the settings to processes.

    Raises:
        StateError: A folder cannot be created or written.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        _link_instance_configuration(settings.dagster_home)
    except OSError as error:
        raise StateError(
            f"{error.filename or settings.home} cannot be written: {error.strerror}. Everything "
            "Ledgerline keeps goes there; set LEDGERLINE_HOME to a folder that you can write."
        ) from error
    export(settings)


def _link_instance_configuration(dagster_home: Path) -> None:
    configuration = dagster_home / "dagster.yaml"
    if not configuration.exists():
        configuration.unlink(missing_ok=True)  # a link to a checkout that has moved
        configuration.symlink_to(PROJECT_ROOT / "dagster.yaml")
