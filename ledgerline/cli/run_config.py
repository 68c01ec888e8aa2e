"""Reads a run configuration from JSON or YAML, in a text or a file, and checks it against a job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from ledgerline.errors import LedgerlineError

# The console logger would print every event between the lines of the progress display.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunConfigError(LedgerlineError):
    """A run configuration cannot be read, or does not fit the job."""


def read(given: str | None) -> Mapping[str, Any]:
    """Return the run configuration in a text or a file.

    Args:
        given: JSON that begins with a brace, or the name of a JSON or YAML file; None for an empty one.

    Raises:
        RunConfigError: The file cannot be read, or is not a configuration.

    Example:
        >>> read('{"ops": {"bake": {"config": {"loaves": 12}}}}')
        {'ops': {'bake': {'config': {'loaves': 12}}}}
    """
    if given is None:
        return {}
    is_text = given.lstrip().startswith("{")
    name = "--config" if is_text else given
    try:
        text = given if is_text else Path(given).read_text(encoding="utf-8")
        config = yaml.safe_load(text)  # JSON is YAML, too
    except OSError as error:
        raise RunConfigError(f"{name} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunConfigError(f"{name} is neither JSON nor YAML: {error}.") from error
    if not isinstance(config, dict):
        raise RunConfigError(
            f"{name} is not a run configuration.",
            'Write a mapping, for example {"ops": {"step": {"config": …}}}.',
        )
    return config


def require_valid(job: dg.JobDefinition, config: Mapping[str, Any]) -> None:
    """Check that a job can be run with a configuration.

    Raises:
        RunConfigError: The job takes another configuration.
    """
    try:
        dg.validate_run_config(job, config)
    except dg.DagsterInvalidConfigError as error:
        problems = " ".join(each.message.split(" Expected: ")[0] for each in error.errors)
        raise RunConfigError(f"{job.name} cannot be run with this configuration.", problems) from error


def quietly(job: dg.JobDefinition, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration with a quiet console logger, if the job has Dagster's logger."""
    quiet = {**QUIET, **config}
    try:
        dg.validate_run_config(job, quiet)
    except dg.DagsterInvalidConfigError:
        return config  # the job has other loggers, or a config mapping
    return quiet
