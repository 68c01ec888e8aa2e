"""Executes the job in separate processes, and starts the observer and the backends."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.context import BenchmarkError, Context
from benchmarks.observer import jobs
from benchmarks.observer.collector import ARRIVALS
from benchmarks.processes import (
    HOST,
    NICE,
    SCRIPTS,
    mlflow_server,
    responds,
    started,
    tail,
    unused_port,
    wait_for,
)
from ledgerline.ledger import ids

IN_MEMORY = Path("/dev/shm")  # noqa: S108 (for a new folder in it)
RUN_SECONDS = 600.0


@dataclass(frozen=True)
class Backends:
    """The URLs of a collector and of an MLflow server."""

    otlp: str
    mlflow: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that name the backends."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "MLFLOW_TRACKING_URI": self.mlflow,
        }

    def arrivals(self, run_id: str) -> dict[int, float]:
        """Return the time at which each span of a run arrived, in seconds since the epoch, by span id."""
        spans = requests.get(f"{self.otlp}{ARRIVALS}{ids.trace_id(run_id):032x}", timeout=5).json()
        return {int(span_id, 16): at for span_id, at in spans.items()}

    def have(self, run_id: str) -> bool:
        """Return whether a run's root span has arrived and its MLflow run has ended."""
        return ids.run_span_id(run_id) in self.arrivals(run_id) and self._has_ended(run_id)

    def _has_ended(self, run_id: str) -> bool:
        experiments = self._mlflow("experiments", {"max_results": 100})
        of_run = {
            "experiment_ids": [experiment["experiment_id"] for experiment in experiments],
            "filter": f"tags.`dagster.run_id` = '{run_id}'",
        }
        return any(run["info"]["status"] != "RUNNING" for run in self._mlflow("runs", of_run))

    def _mlflow(self, kind: str, search: Mapping[str, Any]) -> list[Any]:
        """Return the experiments or runs of a search."""
        response = requests.post(f"{self.mlflow}/api/2.0/mlflow/{kind}/search", json=search, timeout=10)
        response.raise_for_status()
        return response.json().get(kind, [])


def dead_backends() -> Backends:
    """Return addresses at which no process listens."""
    return Backends(f"http://{HOST}:{unused_port()}", f"http://{HOST}:{unused_port()}")


@contextmanager
def live_backends(context: Context) -> Iterator[Backends]:
    """Start both backends with a low priority, with their files in memory if there is a folder for that."""
    context.report("Starting a collector and an MLflow server …")
    port = unused_port()
    command = [sys.executable, "-m", "benchmarks.observer.collector", str(port)]
    url = f"http://{HOST}:{port}"
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        log = Path(folder, "collector.log")
        with mlflow_server(Path(folder)) as (mlflow, _), started(command, {}, log) as process:
            wait_for(lambda: responds(url), "the collector responds", process, log)
            psutil.Process(process.pid).nice(NICE)
            yield Backends(url, mlflow)


def new_home(folder: Path, storage: str = "") -> Path:
    """Return the folder of a new Dagster instance."""
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text(f"telemetry:\n  enabled: false\n{storage}")
    return folder


@contextmanager
def following(home: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Run `ledgerline observe --follow` on an instance."""
    command = [str(SCRIPTS / "ledgerline"), "observe", "--follow", "--dagster-home", str(home)]
    log, state = home / "observer.log", {"LEDGERLINE_HOME": str(home / "ledgerline")}
    with started(command, {**environment, **state}, log) as process:
        wait_for(lambda: "Following" in log.read_text(), "the observer follows", process, log)
        yield psutil.Process(process.pid)


@dataclass(frozen=True)
class Executed:
    """A run that was executed.

    Attributes:
        run_id: Id of the run; None if its process died.
        seconds: Time from the request for the run to the end of its process.
        cpu_seconds: Processor time of that process, without processes of steps.
        problem: Reason why it did not succeed.
    """

    run_id: str | None
    seconds: float
    cpu_seconds: float | None
    problem: str | None


def execute(
    version: str,
    ops: int,
    executor: str,
    home: Path,
    environment: Mapping[str, str] | None = None,
    *,
    op_seconds: float = 0.0,
) -> Executed:
    """Execute the job in a process, on the instance in `home`."""
    result, log = home / "result.json", home / "run.log"
    result.unlink(missing_ok=True)
    arguments = [version, str(ops), executor, str(op_seconds), str(result)]
    state = {"DAGSTER_HOME": str(home), "LEDGERLINE_HOME": str(home / "ledgerline")}
    begun = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.observer.execute", *arguments]
    with started(command, {**(environment or {}), **state}, log) as process:
        try:
            code = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            return Executed(None, RUN_SECONDS, None, f"did not end within {RUN_SECONDS:.0f} s")
    if not result.exists():
        last = "".join(tail(log).strip().splitlines()[-1:])
        return Executed(None, time.monotonic() - begun, None, f"ended with code {code}: {last}")
    outcome = json.loads(result.read_text())
    problem = None if outcome.get("success") else "the run failed"
    return Executed(outcome.get("run_id"), outcome["seconds"], outcome["cpu_seconds"], problem)


def executed_bare(home: Path, steps: int, executor: str, op_seconds: float) -> str:
    """Execute the bare job; return the id of the run.

    Raises:
        BenchmarkError: The run did not succeed.
    """
    run = execute(jobs.BARE, steps, executor, home, op_seconds=op_seconds)
    if run.problem is not None or run.run_id is None:
        raise BenchmarkError(f"A run of {steps} steps: {run.problem}.")
    return run.run_id
