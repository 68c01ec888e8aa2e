"""The whole stack under load: runs in PostgreSQL, through observer and collector, in Jaeger and in MLflow.

First runs are executed one after the other, and watched: how long after the end of a step can its span be
read in Jaeger? Then a thousand more appear at once, copies of one of them (stack_copies.py), as after a long
outage: how long does it take until all are there, and is any span missing? The programs are those of
`make test-stack`, with the configurations of docker/; PostgreSQL writes to the disk as it does in the stack.

    .venv/bin/python -m benchmarks.stack [--live 50] [--runs 1000] [--ops 20] [--json FILE]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import dagster as dg
import requests
from rich.console import Console
from rich.progress import Progress

from benchmarks import observed_jobs, processes, stack_copies
from benchmarks.observer import machine
from benchmarks.processes import BenchmarkError
from benchmarks.results import Result
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history

if TYPE_CHECKING:
    from benchmarks.docker_stack.stack import Stack
    from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace

WIDTH = 132
POLL_SECONDS = 0.05
COMPLETE_SECONDS = 1800.0
GOALS = "Goals: 1,000 runs of 20 ops, 100,000 spans, none lost; a step's span in Jaeger within 5 s at p99."
SERVICES = ("observer", "otel-collector", "jaeger", "mlflow")
SENT = re.compile(r'^otelcol_exporter_sent_spans\{.*exporter="otlp_http/(\w+)".*\} (\S+)$', re.MULTILINE)

Trace = Callable[[str], "ReceivedTrace"]


@dataclass
class Watch:
    """When the spans of some runs could first be read in Jaeger.

    Attributes:
        seen: Seconds since the epoch, by trace and span id.
    """

    stack: "Stack"
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    _under_way: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def begin(self, run_id: str, spans: int) -> None:
        """Watch a run until so many spans of it are there."""
        self._under_way[run_id] = spans

    def run(self) -> None:
        """Look at the runs under way, until `end`."""
        while not self._over.wait(POLL_SECONDS):
            for run_id, spans in list(self._under_way.items()):
                trace, now = self.stack.jaeger.trace(run_id), time.time()
                for span in trace.spans:
                    self.seen.setdefault((trace.trace_id, span.span_id), now)
                if len(trace.spans) >= spans:
                    del self._under_way[run_id]

    def end(self) -> None:
        """Stop looking, once all runs that were begun are there."""
        processes.wait_until(lambda: not self._under_way, "the watched runs", seconds=COMPLETE_SECONDS)
        self._over.set()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--live", type=int, default=50, help="runs that are executed")
    parser.add_argument("--runs", type=int, default=1000, help="copies that appear at once")
    parser.add_argument("--ops", type=int, default=20, help="of each run")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()
    for name in filter(processes.is_setting, list(os.environ)):
        if name != "LEDGERLINE_SERVERS":
            del os.environ[name]  # those of a person would be measured

    from benchmarks.docker_stack import programs
    from benchmarks.docker_stack.stack import running

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(about := machine())
    found = programs.found()
    if {"jaeger", "otel-collector"} - found.keys():
        sys.exit("Jaeger or the collector is not there: docker/servers/build makes them.")
    with tempfile.TemporaryDirectory(prefix="ledgerline-stack-") as folder:
        console.print("Starting the stack …")
        try:
            with running(Path(folder), found, database={"fsync": "on"}) as stack:
                results = measure(console, stack, arguments.live, arguments.runs, arguments.ops)
        except BenchmarkError as error:
            sys.exit(str(error))
    for result in results:
        result.show(console)
    if arguments.json is not None:
        shown = [result.as_json() for result in results]
        arguments.json.write_text(json.dumps({"machine": about, "results": shown}, indent=2))


def measure(console: Console, stack: "Stack", live: int, runs: int, ops: int) -> list[Result]:
    """Three tables: how late steps are, how long many runs take, and what each program took for it."""
    (first,) = execute(stack, [str(uuid4())], ops, lambda run_id: None)
    with stack.instance() as instance:
        history = read_history(instance, first)
        spans = len(_expected(stack, instance, first))
    if history is None:
        raise BenchmarkError("The first run is gone.")
    late = sorted(_latencies(console, stack, live, ops, spans))

    console.print(f"Copying a run of {spans} spans {runs:,} times …")
    sent, cpu = _sent(stack), _cpu(stack)
    run_ids = stack_copies.copy_run(_database(stack), history, runs)
    started = time.monotonic()
    seconds = {}
    for backend in ("jaeger", "mlflow"):
        wanted = sent[backend] + runs * spans
        processes.wait_until(
            lambda backend=backend, wanted=wanted: _sent(stack)[backend] >= wanted,
            f"all spans to be in {backend}",
            seconds=COMPLETE_SECONDS,
        )
        seconds[backend] = time.monotonic() - started
    spent = {name: after - cpu[name] for name, after in _cpu(stack).items()}
    rows = [
        (backend, runs * spans, seconds[backend], runs * spans / seconds[backend], *counted)
        for backend, counted in _counts(console, stack, run_ids).items()
    ]
    return [
        Result(
            "latency",
            f"{live} runs of {ops} ops, one after the other: from STEP_SUCCESS until Jaeger has the span",
            ("observed by", "steps", "median s", "p99 s", "longest s"),
            [("observe --follow", len(late), statistics.median(late), late[int(0.99 * len(late))], late[-1])],
            (f"Asked every {POLL_SECONDS * 1000:.0f} ms; the observer looks twice a second.",),
        ),
        Result(
            "volume",
            f"{runs:,} runs of {ops} ops that are there at once",
            ("where", "spans", "seconds until all are there", "spans/s", "missing", "other", "twice"),
            rows,
            (GOALS,),
        ),
        Result(
            "processor",
            "Processor time of these, until all spans were there",
            ("program", "seconds", "ms a run"),
            [(name, each, each / runs * 1000) for name, each in spent.items()],
        ),
    ]


def _latencies(console: Console, stack: "Stack", runs: int, ops: int, spans: int) -> list[float]:
    """Seconds from the end of each step until its span was read from Jaeger."""
    watch = Watch(stack)
    watching = threading.Thread(target=watch.run, daemon=True)
    watching.start()
    run_ids = [str(uuid4()) for _ in range(runs)]
    with Progress(console=console) as progress:
        task = progress.add_task("runs", total=runs)

        def on_begin(run_id: str) -> None:
            progress.advance(task)
            watch.begin(run_id, spans)

        execute(stack, run_ids, ops, on_begin)
        watch.end()
    watching.join()
    with stack.instance() as instance:
        histories = [read_history(instance, run_id) for run_id in run_ids]
    return [
        watch.seen[UUID(history.run.run_id).hex, f"{span_id:016x}"] - attempt.ended
        for history in histories
        if history is not None
        for attempt in history.attempts
        if attempt.ended is not None
        for span_id in [ids.attempt_span_id(history.run.run_id, attempt.step, attempt.number)]
    ]


def _counts(console: Console, stack: "Stack", run_ids: Sequence[str]) -> Mapping[str, tuple[int, int, int]]:
    """Of each backend: spans that are missing, that no log tells of, and that it has twice."""
    from mlflow import MlflowClient

    from benchmarks.docker_stack.mlflow_traces import MLflowTraces

    traces: Mapping[str, Trace] = {
        "jaeger": stack.jaeger.trace,
        "mlflow": MLflowTraces(MlflowClient(stack.mlflow_url)).trace,
    }
    found = {backend: [0, 0, 0] for backend in traces}
    with stack.instance() as instance, Progress(console=console) as progress:
        for run_id in progress.track(run_ids, description="counting"):
            expected = {span.span_id for span in _expected(stack, instance, run_id)}
            for backend, trace in traces.items():
                there = trace(run_id)
                counts = len(expected - there.by_id.keys()), len(there.by_id.keys() - expected)
                for place, number in enumerate((*counts, len(there.repeated))):
                    found[backend][place] += number
    return {backend: (missing, other, twice) for backend, (missing, other, twice) in found.items()}


def _sent(stack: "Stack") -> Mapping[str, float]:
    """Spans that the collector has handed on so far, by backend."""
    page = requests.get(f"{stack.machine.url('otel-collector', 8888)}/metrics", timeout=10).text
    return {backend: float(spans) for backend, spans in SENT.findall(page)}


def _cpu(stack: "Stack") -> Mapping[str, float]:
    return {name: stack.cpu_seconds(name) for name in SERVICES}


def _database(stack: "Stack") -> str:
    """Dagster's, opened as Dagster does."""
    password = stack.machine.variables["DAGSTER_POSTGRES_PASSWORD"]
    return f"postgresql://dagster:{password}@{processes.HOST}:{stack.database.port}/dagster"


def execute(stack: "Stack", run_ids: list[str], ops: int, on_begin: Callable[[str], None]) -> list[str]:
    """Execute runs in a process beside the code server, with all that it has; returns their ids."""
    described = stack.machine.described("code")
    command = [sys.executable, "-m", "benchmarks.execute_planned", observed_jobs.SPAN, str(ops)]
    with subprocess.Popen(
        [*command, json.dumps(run_ids)],
        env=described.environment,
        cwd=processes.PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            on_begin(line.strip())
    if process.returncode != 0:
        raise BenchmarkError(f"The runs ended with {process.returncode}.")
    return run_ids


def _expected(stack: "Stack", instance: dg.DagsterInstance, run_id: str) -> "Sequence[ReceivedSpan]":
    from benchmarks.docker_stack.expected_traces import expected_spans

    return expected_spans(instance, run_id, stack.machine.described("observer").environment)


if __name__ == "__main__":
    main()
