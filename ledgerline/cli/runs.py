"""Executes jobs of this project in this process, as the same runs that the Dagster UI would launch."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from rich.console import Console
from rich.text import Text

from ledgerline.cli import observing, progress, run_config
from ledgerline.cli.job_batches import WHOLE, Batch
from ledgerline.cli.loaded_project import ATTRIBUTE, LoadedProject
from ledgerline.dagster.executors import start_warm_process
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.dagster_internals import (
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    ReconstructableRepository,
    RemoteRepositoryOrigin,
    execute_run,
)
from ledgerline.ledger.given_by_users import owners_in
from ledgerline.settings.project import Project

# A file in the state folder for the output of a run that is not progress.
LOG_FILE = "run.log"
WORKSPACE_FILE = "workspace.yaml"


@dataclass(frozen=True)
class Outcome:
    """The result of a run, with its steps in the order in which they ended.

    Attributes:
        problem: Reason of a failure outside of all steps.
        interrupted: True if Ctrl-C or a signal ended it.
    """

    run_id: str
    success: bool
    steps: Sequence[progress.Step]
    problem: str
    interrupted: bool


@dataclass(frozen=True)
class Runner:
    """Executes jobs of a project on its instance, and prints their progress."""

    console: Console
    instance: dg.DagsterInstance
    settings: Settings
    loaded: LoadedProject

    def execute(
        self, job_name: str, batch: Batch = WHOLE, config: Mapping[str, Any] | None = None
    ) -> Outcome:
        """Execute one run of a job for these partitions, and print its progress.

        Without a run configuration, it has that of the job.
        """
        project, job = self.loaded.project, self.loaded.job(job_name)
        if not config and batch.keys:
            config = job.get_run_config_for_partition_key(batch.keys[0])
        repository = ReconstructableRepository.for_module(project.module, ATTRIBUTE, str(project.root))
        origin = repository.get_reconstructable_job(job_name)
        run = self.instance.create_run_for_job(
            job,
            run_config=run_config.quietly(job, config or {}),
            tags={**job.run_tags, **batch.tags},
            # The UI can re-execute a run only if it knows the code location.
            remote_job_origin=_code_location(project).get_job_origin(job_name),
            job_code_origin=origin.get_python_origin(),
        )
        title = f"{job_name}  {batch}".rstrip()
        with progress.displayed(self.console, self.instance, run.run_id, title) as view:
            result = execute_run(origin, run, self.instance)
        steps = sorted(view.steps.values(), key=lambda step: step.ended or float("inf"))
        return Outcome(run.run_id, result.success, steps, view.problem, view.interrupted)

    def export(self, run_ids: Sequence[str]) -> None:
        """Export runs to MLflow and the other targets of this project."""
        with self.console.status("Exporting the runs to MLflow …"):
            owners = owners_in(self.loaded.defs.get_repository_def())
            observers = observing.observers_of(self.settings, None, owners)
            observing.export_runs(self.console, self.instance, observers, run_ids)

    def report_failure(self, outcome: Outcome) -> None:
        """Print the failed steps of a run with the reasons, without stack traces."""
        self.console.print(Text(f"\nRun {outcome.run_id} failed.", style="bold red"))
        for step in outcome.steps:
            if step.state == "failed" or step.failed_checks:
                self.console.print(Text(f"  {step.key}", style="bold"))
                for problem in [*step.failed_checks, *([step.error] if step.error else [])]:
                    self.console.print(Text(f"    {problem}"), soft_wrap=True)
        if outcome.problem and not any(step.error or step.failed_checks for step in outcome.steps):
            self.console.print(Text(f"  {outcome.problem}"), soft_wrap=True)
        self.console.print(
            f"\nThe whole log is in {self.settings.home / LOG_FILE}, and on the run's page of `ledgerline "
            "dev`."
        )


@contextmanager
def local_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance, also as the source of dynamic partitions."""
    with (
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
        dg.partition_loading_context(dynamic_partitions_store=instance),
    ):
        yield instance


@contextmanager
def runner(instance: dg.DagsterInstance, settings: Settings, loaded: LoadedProject) -> Iterator[Runner]:
    """Prepare to execute jobs in this process.

    Their output goes to a file. The process that steps are forked from starts in the background.
    """
    with noise_to(settings.home / LOG_FILE) as console:
        if settings.executor == "multiprocess":
            start_warm_process(preloaded=[settings.project.module])
        yield Runner(console, instance, settings, loaded)


@contextmanager
def noise_to(path: Path) -> Iterator[Console]:
    """Redirect the output of this process and its children to a file; yield a console for the terminal."""
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


def _code_location(project: Project) -> RemoteRepositoryOrigin:
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=project.module, working_directory=str(project.root)
    )
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, _location_name(project))
    return RemoteRepositoryOrigin(location, repository_name="__repository__")


def _location_name(project: Project) -> str:
    """Return the name of the code location in the workspace, or else, as Dagster does, that of the module."""
    try:
        workspace = yaml.safe_load((project.root / WORKSPACE_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        # Runs of the command line need no workspace, and `dagster dev` reports a wrong one.
        return project.module
    entries = workspace.get("load_from") if isinstance(workspace, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        module = entry.get("python_module") if isinstance(entry, dict) else None
        if isinstance(module, dict) and module.get("module_name") == project.module:
            return str(module.get("location_name") or project.module)
    return project.module
