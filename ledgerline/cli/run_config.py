"""Run configuration as a person gives it: JSON or YAML, as a text or in a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

# The console logger would write every event between the lines of the progress display.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunConfigError(Exception):
    """A run configuration that cannot be used; the message says why."""


def read(given: str | None) -> Mapping[str, Any]:
    """Return the run configuration that a text or a file holds.

    Args:
        given: JSON that begins with a brace, or the name of a JSON or YAML file; None: nothing is configured.

    Raises:
        RunConfigError: The file cannot be read, or it is not a configuration.
    """
    if given is None:
        return {}
    is_text = given.lstrip().startswith("{")
    name = "--config" if is_text else given
    try:
        text = given if is_text else Path(given).read_text(encoding="utf-8")
        found = yaml.safe_load(text)  # JSON is YAML
    except OSError as error:
        raise RunConfigError(f"{name} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunConfigError(f"{name} is neither JSON nor YAML: {error}") from error
    if not isinstance(found, dict):
        raise RunConfigError(
            f'{name} is not a run configuration: write a mapping, as {{"ops": {{"step": {{"config": …}}}}}}.'
        )
    return found


def require_valid(job: dg.JobDefinition, config: Mapping[str, Any]) -> None:
    """Make sure that a job can be run with a configuration.

    Raises:
        RunConfigError: The job takes something else.
    """
    try:
        dg.validate_run_config(job, config)
    except dg.DagsterInvalidConfigError as error:
        problems = " ".join(each.message.split(" Expected: ")[0] for each in error.errors)
        raise RunConfigError(f"{job.name} cannot be run with this configuration. {problems}") from error


def quietly(job: dg.JobDefinition, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration that keeps the console logger quiet, where the job has that of Dagster."""
    quiet = {**QUIET, **config}
    try:
        dg.validate_run_config(job, quiet)
    except dg.DagsterInvalidConfigError:
        return config  # it has loggers of its own, or a config mapping
    return quiet
