"""Runs in processes of their own, which tests wait for and kill. Of a whole deployment: deployments.py."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import dagster as dg
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef

from tests.integration import observed_jobs
from tests.integration.observed_jobs import FAULT, GATE

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 90

Job = Callable[[], dg.JobDefinition]
Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], what: str) -> Found:
    """Poll until something is the case; returns what the condition came to."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s until {what}"
        time.sleep(POLL_SECONDS)
    return found


@dataclass(frozen=True)
class Gate:
    """Where a step waits until it is let through; made by `waiting`."""

    folder: Path

    def wait_for_the_step(self) -> int:
        """Wait until the step is there; returns the id of its process."""
        return int(wait_until(lambda: _text(self.folder / "reached"), "the step waits at the gate"))

    def open(self) -> None:
        """Let it go on."""
        (self.folder / "open").touch()


@dataclass(frozen=True)
class RunWorkers:
    """Executes jobs on an instance, each run in a process of its own.

    Attributes:
        instance: The Dagster instance.
        environment: What their processes have in addition to the environment of the tests.
    """

    instance: dg.DagsterInstance
    environment: Mapping[str, str]

    def execute(self, *jobs: Job, tags: Mapping[str, str] | None = None, **faults: str) -> str:
        """Execute a job to its end, whatever that is; returns the run id.

        Args:
            jobs: One, as functions of observed_jobs.py.
            tags: Of the run.
            faults: What happens in which step.
        """
        (job,) = jobs
        run_id = self.create(job, tags, faults)
        with self.executing([run_id], [job]):
            pass
        return run_id

    def create(self, job: Job, tags: Mapping[str, str] | None, faults: Mapping[str, str]) -> str:
        """A run that nobody executes yet."""
        of_steps = {FAULT + step: fault for step, fault in faults.items()}
        return self.instance.create_run_for_job(job(), tags={**(tags or {}), **of_steps}).run_id

    @contextmanager
    def executing(
        self, run_ids: Sequence[str], jobs: Sequence[Job], together: Callable[..., None] | None = None
    ) -> Iterator[BaseProcess]:
        """Execute runs in one process; waits for it afterwards."""
        names = [job.__name__ for job in jobs]
        process = multiprocessing.get_context("forkserver").Process(
            target=together or one_after_the_other,
            args=(self.instance.get_ref(), run_ids, names, self.environment),
        )
        process.start()
        try:
            yield process
        finally:
            process.join(PATIENCE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
