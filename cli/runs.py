"""Executing a job of this project here and now: the same run that the Dagster UI would launch."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from rich.console import Console
from rich.text import Text

from cli import progress
from ledgerline.dagster.executors import start_warm_process
from ledgerline.dagster.settings import Settings
from ledgerline.settings.project import Project
from pipelines import definitions

CODE_LOCATION = "ledgerline"

PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"

# In the state folder: what a run started from the command line prints that is not progress.
LOG_FILE = "run.log"

# The console logger would write every event between the lines of the progress display.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: The Dagster run.
        success: Whether all of it succeeded.
        steps: Its steps, in the order in which they ended.
        problem: Why it failed, where no step says so.
        interrupted: Whether Ctrl-C or a signal ended it.
    """

    run_id: str
    success: bool
    steps: Sequence[progress.Step]
    problem: str
    interrupted: bool


@contextmanager
def local_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance, while the process that steps are forked from warms up."""
    if settings.executor == "multiprocess":
        start_warm_process(preloaded=[settings.project.module])
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        yield instance


def execute(
    console: Console,
    instance: dg.DagsterInstance,
    job_name: str,
    partitions: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Outcome:
    """Execute a job, for one partition, or for a range as a single run, showing its progress.

    Args:
        console: Where to show it.
        instance: The Dagster instance.
        job_name: The job.
        partitions: Its partitions; none for a job that has none.
        config: Of assets, by name.
    """
    project = definitions.settings.project
    repository = ReconstructableRepository.for_module(project.module, "defs", str(project.root))
    job = repository.get_reconstructable_job(job_name)
    run = instance.create_run_for_job(
        definitions.defs.resolve_job_def(job_name),
        run_config={**QUIET, "ops": {name: {"config": values} for name, values in (config or {}).items()}},
        tags=_partition_tags(partitions),
        # With its code location the run can be re-executed from the UI like any other.
        remote_job_origin=_code_location(project).get_job_origin(job_name),
        job_code_origin=job.get_python_origin(),
    )
    with progress.shown(console, instance, run.run_id, f"{job_name}  {_span(partitions)}".rstrip()) as view:
        result = execute_run(job, run, instance)
    steps = sorted(view.steps.values(), key=lambda step: step.ended or float("inf"))
    return Outcome(run.run_id, result.success, steps, view.problem, view.interrupted)


def report_failure(console: Console, outcome: Outcome, settings: Settings) -> None:
    """Say which steps failed, and why, without a stack trace."""
    console.print(Text(f"\nRun {outcome.run_id} failed.", style="bold red"))
    for step in outcome.steps:
        if step.state == "failed" or step.failed_checks:
            console.print(Text(f"  {step.key}", style="bold"))
            for problem in [*step.failed_checks, *([step.error] if step.error else [])]:
                console.print(Text(f"    {problem}"), soft_wrap=True)
    if outcome.problem and not any(step.error or step.failed_checks for step in outcome.steps):
        console.print(Text(f"  {outcome.problem}"), soft_wrap=True)
    console.print(
        f"\nEverything that was logged: {settings.home / LOG_FILE}, or `ledgerline dev` and the run's page."
    )


@contextmanager
def noise_to(path: Path) -> Iterator[Console]:
    """Send what this process and its children print to a file; yields a console for the terminal."""
    terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield Console(file=terminal)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        terminal.close()


def _span(partitions: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys([*partitions[:1], *partitions[-1:]]))


def _partition_tags(partitions: Sequence[str]) -> Mapping[str, str]:
    if not partitions:
        return {}
    if len(partitions) == 1:
        return {PARTITION: partitions[0]}
    return {RANGE_START: partitions[0], RANGE_END: partitions[-1]}


def _code_location(project: Project) -> RemoteRepositoryOrigin:
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=project.module, working_directory=str(project.root)
    )
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, CODE_LOCATION)
    return RemoteRepositoryOrigin(location, repository_name="__repository__")
