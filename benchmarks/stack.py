"""The whole stack under load: runs through PostgreSQL, observer, collector, and so to Jaeger and MLflow.

Prints what it takes until all spans are there, how many are missing, and how long after the end of a step its
span can be read in Jaeger. The programs are those of `make test-stack`, with the configurations of docker/;
PostgreSQL writes to the disk as it does in the stack.

    .venv/bin/python -m benchmarks.stack [--runs 1000] [--ops 20] [--json FILE]
"""

import argparse
import json
import os
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
from rich.console import Console
from rich.progress import Progress

from benchmarks import observed_jobs, processes
from benchmarks.observer import machine
from benchmarks.processes import BenchmarkError
from benchmarks.results import Result, Value
from observability import ids
from observability.event_log import read_history
from observability.history import RunHistory

if TYPE_CHECKING:
    from tests.integration.received_traces import ReceivedTrace
    from tests.integration.stack.stack import Stack

WIDTH = 132
WATCHED = 25  # of so many runs one is watched, step by step
POLL_SECONDS = 0.05
COMPLETE_SECONDS = 900.0
GOAL = "Goals: 1,000 runs of 20 ops, 100,000 spans, none lost; a step's span in Jaeger within 5 s at p99."


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
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--ops", type=int, default=20, help="of each run")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()
    for name in filter(processes.is_setting, list(os.environ)):
        if name != "LEDGERLINE_SERVERS":
            del os.environ[name]  # those of a person would be measured

    from tests.integration.stack import programs
    from tests.integration.stack.stack import running

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(about := machine())
    found = programs.found()
    if {"jaeger", "otel-collector"} - found.keys():
        sys.exit("Jaeger or the collector is not there: docker/servers/build makes them.")
    with tempfile.TemporaryDirectory(prefix="ledgerline-stack-") as folder:
        console.print("Starting the stack …")
        try:
            with running(Path(folder), found, database={"fsync": "on"}) as stack:
                results = measure(console, stack, arguments.runs, arguments.ops)
        except BenchmarkError as error:
            sys.exit(str(error))
    for result in results:
        result.show(console)
    if arguments.json is not None:
        shown = [result.as_json() for result in results]
        arguments.json.write_text(json.dumps({"machine": about, "results": shown}, indent=2))


def measure(console: Console, stack: "Stack", runs: int, ops: int) -> list[Result]:
    """Two tables: spans and seconds; and what each program took."""
    from mlflow import MlflowClient

    from tests.integration.stack.mlflow_traces import MLflowTraces

    services = ("observer", "otel-collector", "jaeger", "mlflow", "code", "dagster-daemon")
    (warm_up,) = execute(stack, [str(uuid4())], ops, lambda run_id: None)
    with stack.instance() as instance:
        spans = len(_expected(stack, instance, warm_up))
    before = {name: stack.cpu_seconds(name) for name in services}

    watch = Watch(stack)
    watching = threading.Thread(target=watch.run, daemon=True)
    watching.start()
    run_ids = [str(uuid4()) for _ in range(runs)]
    watched = set(run_ids[::WATCHED])
    started = time.monotonic()
    with Progress(console=console) as progress:
        task = progress.add_task("runs", total=runs)

        def on_begin(run_id: str) -> None:
            progress.advance(task)
            if run_id in watched:
                watch.begin(run_id, spans)

        execute(stack, run_ids, ops, on_begin)
    executed = time.monotonic() - started
    watch.end()
    watching.join()

    mlflow = MLflowTraces(MlflowClient(stack.mlflow_url))
    rows: list[Sequence[Value]] = []
    with stack.instance() as instance:
        expected = {
            run_id: {span.span_id for span in _expected(stack, instance, run_id)} for run_id in run_ids
        }
        total = sum(len(each) for each in expected.values())
        for name, trace in (("Jaeger", stack.jaeger.trace), ("MLflow", mlflow.trace)):
            console.print(f"Counting in {name} …")
            last = run_ids[-1]
            _wait_for(trace, last, expected[last])
            complete = time.monotonic() - started - executed
            missing, repeated = _count(trace, expected)
            rows.append((name, total, missing, repeated, executed, total / executed, complete))
        histories = [read_history(instance, run_id) for run_id in watched]
    late = sorted(_latencies([history for history in histories if history is not None], watch.seen))
    cpu = [(name, stack.cpu_seconds(name) - before[name]) for name in services]
    return [
        Result(
            "spans",
            f"{runs:,} runs of {ops} ops, one after the other, while all programs share the machine",
            (
                "where",
                "spans",
                "missing",
                "stored twice",
                "seconds of all runs",
                "spans/s",
                "last run complete after s (counted one after the other)",
            ),
            rows,
            (GOAL,),
        ),
        Result(
            "latency",
            "From STEP_SUCCESS until the step's span is read from Jaeger",
            ("runs watched", "steps", "median s", "p99 s", "longest s"),
            [(str(len(watched)), len(late), statistics.median(late), late[int(0.99 * len(late))], late[-1])],
            (f"Asked every {POLL_SECONDS * 1000:.0f} ms; the observer looks twice a second.",),
        ),
        Result(
            "processor",
            "Processor time meanwhile, until all was counted",
            ("program", "seconds", "ms a run"),
            [(name, seconds, seconds / runs * 1000) for name, seconds in cpu],
        ),
    ]


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


def _expected(stack: "Stack", instance: dg.DagsterInstance, run_id: str) -> list:  # type: ignore[type-arg]
    from tests.integration.stack.expected_traces import expected_spans

    return expected_spans(instance, run_id, stack.machine.described("observer").environment)


def _wait_for(trace: "Callable[[str], ReceivedTrace]", run_id: str, spans: set[str]) -> None:
    processes.wait_until(
        lambda: trace(run_id).by_id.keys() >= spans, f"run {run_id}", seconds=COMPLETE_SECONDS
    )


def _count(trace: "Callable[[str], ReceivedTrace]", expected: Mapping[str, set[str]]) -> tuple[int, int]:
    missing = repeated = 0
    for run_id, spans in expected.items():
        found = trace(run_id)
        missing += len(spans - found.by_id.keys())
        repeated += len(found.repeated)
    return missing, repeated


def _latencies(histories: Sequence[RunHistory], seen: Mapping[tuple[str, str], float]) -> list[float]:
    return [
        seen[UUID(history.run.run_id).hex, f"{span_id:016x}"] - attempt.ended
        for history in histories
        for attempt in history.attempts
        if attempt.ended is not None
        for span_id in [ids.attempt_span_id(history.run.run_id, attempt.step, attempt.number)]
    ]


if __name__ == "__main__":
    main()
