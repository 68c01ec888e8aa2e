"""The settings of Dagster processes, and the environment of the processes that they start."""

import os
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import dagster as dg

from ledgerline.ledger.links import Links
from ledgerline.settings import library_defaults
from ledgerline.settings.pipelines import PipelineVariables
from ledgerline.settings.project import VARIABLE
from ledgerline.traces.telemetry import Telemetry


class Settings(PipelineVariables):
    """All settings of a project except those of serving, and values that are derived from them.

    The fields are declared in ledgerline/settings/; the reference is docs/reference/settings.md.

    Example:
        >>> settings = Settings.from_environment({"LEDGERLINE_HOME": "/srv/state"})
        >>> settings.tracking_uri
        'sqlite:////srv/state/mlflow.db'
        >>> settings.links.dagster
        'http://127.0.0.1:3000'
    """

    @cached_property  # cached, so that it warns of unusable values only once
    def telemetry(self) -> Telemetry:
        """Destination and sampling of traces."""
        return Telemetry.of(self)

    @property
    def links(self) -> Links:
        """Addresses of the pages of runs and traces."""
        return Links.of(self)


def set_library_defaults() -> None:
    """Set the defaults of libraries; call this before the modules of a project are imported."""
    # Backfill policies and time window mappings are in beta. The warnings are not needed, because the version
    # of Dagster is pinned.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    library_defaults.set_in(os.environ)


def export(settings: Settings) -> None:
    """Write the settings to the environment of this process, for the processes that it starts."""
    os.environ[VARIABLE] = str(settings.project.root)
    os.environ["LEDGERLINE_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    os.environ["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    os.environ["LEDGERLINE_DATA"] = settings.data
    os.environ["LEDGERLINE_REQUEST_LOG"] = settings.request_log_folder
    if settings.artifacts is not None:
        os.environ["LEDGERLINE_ARTIFACTS"] = settings.artifacts
    set_library_defaults()


def export_of_other_instance(dagster_home: Path, service: str) -> None:
    """Set the variables with which this process reads the instance of another project.

    Args:
        dagster_home: Folder of the instance. Its configuration may refer to the variable DAGSTER_HOME.
        service: Name of the service in its traces, unless OTEL_SERVICE_NAME is set.
    """
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ.setdefault("OTEL_SERVICE_NAME", service)


def environment_with(additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with additions, for a process that it starts."""
    return os.environ | dict(additions)
