"""Executes the job in separate processes, and starts the observer and the backends."""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import dagster as dg
import psutil
from mlflow import MlflowClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.context import BenchmarkError, Context
from benchmarks.observer import jobs
from benchmarks.processes import HOST, NICE, SCRIPTS, mlflow_server, spawned, started, tail, unused_port
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import RunHistory
from ledgerline.testing.loopback_servers import LoopbackServer, Request, listening

IN_MEMORY = Path("/dev/shm")  # noqa: S108 (for a new folder in it)
RUN_SECONDS = 600.0


@dataclass(frozen=True)
class Backends:
    """The URLs of a collector and of an MLflow server, and a pipe to a collector that listens."""

    otlp: str
    mlflow: str
    collector: Connection | None = None

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
        assert self.collector is not None
        self.collector.send(ids.trace_id(run_id))
        return self.collector.recv()

    def have(self, run_id: str) -> bool:
        """Return whether a run's root span has arrived and its MLflow run has ended."""
        if ids.run_span_id(run_id) not in self.arrivals(run_id):
            return False
        client = MlflowClient(self.mlflow)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`dagster.run_id` = '{run_id}'")
        return any(run.info.status != "RUNNING" for run in runs)


def dead_backends() -> Backends:
    """Return addresses at which no process listens."""
    return Backends(f"http://{HOST}:{unused_port()}", f"http://{HOST}:{unused_port()}")


@contextmanager
def live_backends(context: Context) -> Iterator[Backends]:
    """Start both backends with a low priority, with their files in memory if there is a folder for that."""
    context.report("Starting a collector and an MLflow server …")
    with (
        tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder,
        mlflow_server(Path(folder)) as (mlflow, _),
        spawned(_collect) as (process, pipe),
    ):
        psutil.Process(process.pid).nice(NICE)
        yield Backends(pipe.recv(), mlflow, pipe)


def _collect(pipe: Connection) -> None:
    """Receive traces over OTLP/HTTP; send the URL and, for each trace id, the times of arrival by span id."""
    arrivals: defaultdict[int, dict[int, float]] = defaultdict(dict)

    class Collector(LoopbackServer):
        def respond(self, request: Request, body: bytes) -> None:
            batch, now = ExportTraceServiceRequest.FromString(body), time.time()
            for by_resource in batch.resource_spans:
                for by_scope in by_resource.scope_spans:
                    for span in by_scope.spans:
                        arrived = arrivals[int.from_bytes(span.trace_id)]
                        arrived.setdefault(int.from_bytes(span.span_id), now)
            request.answer(200, {"Content-Type": "application/x-protobuf"})

    with listening(Collector()) as collector:
        pipe.send(collector.url)
        while True:
            pipe.send(dict(arrivals[pipe.recv()]))


def new_home(folder: Path) -> Path:
    """Return the folder of a new Dagster instance."""
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return folder


def history_of(home: Path, run_id: str) -> RunHistory:
    """Return the history of a run from its event log."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        history = read_history(instance, run_id)
    assert history is not None
    return history


@contextmanager
def following(home: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Run `ledgerline observe --follow` on an instance."""
    command = [SCRIPTS / "ledgerline", "observe", "--follow", "--dagster-home", home]
    variables = {**environment, "LEDGERLINE_HOME": str(home / "ledgerline")}
    with started(command, variables, home / "observer.log", "Following") as process:
        yield psutil.Process(process.pid)


@dataclass(frozen=True)
class Executed:
    """A run that was executed.

    Attributes:
        run_id: None if the process died.
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
