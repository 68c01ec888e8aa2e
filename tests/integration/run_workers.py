"""Runs in separate processes, which tests wait for and kill. Whole deployments are in deployments.py."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef

from ledgerline.testing.waiting import PATIENCE_SECONDS, wait_until
from tests.integration import observed_jobs

Job = Callable[[], dg.JobDefinition]


@dataclass(frozen=True)
class Gate:
    """The folder of files by which a test stops and continues a step with the fault "waits"."""

    folder: Path

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of a run whose step waits here."""
        return {observed_jobs.GATE: str(self.folder)}

    def wait_for_the_step(self) -> int:
        """Wait until the step has begun; return the id of its process."""
        reached = self.folder / "reached"
        return int(wait_until(lambda: reached.exists() and reached.read_text(), "the step waits"))

    def open(self) -> None:
        """Let it go on."""
        (self.folder / "open").touch()


@dataclass(frozen=True)
class PlannedRun:
    """A run that is in Dagster's storage, and its job in observed_jobs.py."""

    run_id: str
    job: str


@dataclass(frozen=True)
class RunWorkers:
    """Executes runs in processes of their own.

    Attributes:
        instance: Where the runs are.
        environment: What these processes have beside the environment of the tests.
    """

    instance: dg.DagsterInstance
    environment: Mapping[str, str] = field(default_factory=dict)

    def plan(
        self, job: Job, tags: Mapping[str, str] | None = None, run_id: str | None = None, **faults: str
    ) -> PlannedRun:
        """Create a run without executing it; `faults` define what happens in which step."""
        of_steps = {observed_jobs.FAULT + step: fault for step, fault in faults.items()}
        run = self.instance.create_run_for_job(job(), run_id=run_id, tags={**(tags or {}), **of_steps})
        return PlannedRun(run.run_id, job.__name__)

    def execute(self, job: Job, tags: Mapping[str, str] | None = None, **faults: str) -> str:
        """Execute a job to its end, whatever that is; returns the run id."""
        run = self.plan(job, tags, **faults)
        with self.executing(run):
            pass
        return run.run_id

    @contextmanager
    def executing(self, *runs: PlannedRun, at_once: bool = False) -> Iterator[BaseProcess]:
        """Execute runs in one process, one after the other or in threads; in the end it is waited for."""
        # Kept warm: each process would import Dagster for itself.
        forkserver.set_forkserver_preload(observed_jobs.PRELOADED)
        process = multiprocessing.get_context("forkserver").Process(
            target=_execute_at_once if at_once else _execute,
            args=(self.instance.get_ref(), runs, {**os.environ, **self.environment}),
        )
        process.start()
        try:
            yield process
            process.join(PATIENCE_SECONDS)
            assert not process.is_alive()
        finally:
            process.kill()
            process.join()


def _execute(instance: InstanceRef, runs: Sequence[PlannedRun], environment: Mapping[str, str]) -> None:
    _set_environment(environment)
    for run in runs:
        _execute_one(instance, run)


def _execute_at_once(
    instance: InstanceRef, runs: Sequence[PlannedRun], environment: Mapping[str, str]
) -> None:
    _set_environment(environment)
    threads = [threading.Thread(target=_execute_one, args=(instance, run)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Dagster captures the output of the whole process: of two runs at once, one leaves programs behind.
    for left in psutil.Process().children(recursive=True):
        left.kill()


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _execute_one(instance: InstanceRef, planned: PlannedRun) -> None:
    with dg.DagsterInstance.from_ref(instance) as opened:
        run = opened.get_run_by_id(planned.run_id)
        assert run is not None
        execute_run(dg.reconstructable(getattr(observed_jobs, planned.job)), run, opened)
