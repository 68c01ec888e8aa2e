"""Measures the stack under load: from runs in PostgreSQL through observer and collector to Jaeger and MLflow.

First runs are executed one after the other, and Jaeger is polled for their spans. Then copies of one run
appear in the database at once, as after a long outage, until every span of them is in both backends. The
programs are those of `make test-stack`; PostgreSQL writes to the disk.
"""

import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import dagster as dg
import psycopg
import requests
from mlflow import MlflowClient
from psycopg import sql

from benchmarks.context import BenchmarkError, Context, Result
from benchmarks.observer import jobs
from benchmarks.processes import HOST, PROJECT_ROOT
from benchmarks.stack import programs
from benchmarks.stack.expected_traces import expected_spans
from benchmarks.stack.mlflow_traces import MLflowTraces
from benchmarks.stack.stack import Stack, running
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import COMPUTE, RunHistory
from ledgerline.testing.received_traces import ReceivedTrace
from ledgerline.testing.waiting import wait_until

POLL_SECONDS = 0.05
COMPLETE_SECONDS = 1800.0
SERVICES = ("observer", "otel-collector", "jaeger", "mlflow")
SENT = re.compile(r'^otelcol_exporter_sent_spans\{.*exporter="otlp_http/(\w+)".*\} (\S+)$', re.MULTILINE)

APART_SECONDS = 0.01  # between the update times of two copies, because observers page by them
OF_RUN = (
    *("run_body", "snapshot_id", "pipeline_name", "mode", "status"),
    *("start_time", "end_time", "create_timestamp"),
)
OF_EVENT = ("event", "dagster_event_type", "timestamp", "step_key", "asset_key", "partition")


def measure_stack(context: Context) -> list[Result]:
    """Measure the latency of spans, the time for many runs, and the processor time of each program."""
    live, copies, ops = context.pick((50, 1000, 20), (2, 5, 3))
    servers = programs.available()
    if {"jaeger", "otel-collector"} - servers.keys():
        raise BenchmarkError("Jaeger or the collector is not built.", "Run docker/servers/build.")
    with _running(context, servers) as stack:
        (first,) = _execute(stack, [str(uuid4())], ops, lambda run_id: None)
        with stack.instance() as instance:
            history, spans = read_history(instance, first), len(_expected(stack, instance, first))
        assert history is not None
        late = sorted(_latencies(stack, live, ops, spans))
        return [_latency(late, live, ops), *_volume(context, stack, history, copies, spans)]


@contextmanager
def _running(context: Context, servers: Mapping[str, Path]) -> Iterator[Stack]:
    context.report("Starting the stack …")
    with running(context.folder, servers, database={"fsync": "on"}) as stack:
        yield stack


def _latency(late: Sequence[float], live: int, ops: int) -> Result:
    row = ("observe --follow", len(late), statistics.median(late), late[int(0.99 * len(late))], late[-1])
    return Result(
        f"{live} runs of {ops} ops, one after the other: from STEP_SUCCESS until Jaeger has the span",
        ("spans by", "steps", "median s", "p99 s", "longest s"),
        [row],
        (f"Jaeger is polled every {1000 * POLL_SECONDS:.0f} ms. Goal: p99 under 5 s.",),
    )


def _volume(context: Context, stack: Stack, history: RunHistory, copies: int, spans: int) -> Iterator[Result]:
    """Copy a run and wait until all spans are in both backends."""
    context.report(f"Copying a run of {spans} spans {copies:,} times …")
    sent, cpu = _sent(stack), {name: stack.cpu_seconds(name) for name in SERVICES}
    run_ids = _copy_run(stack, history, copies)
    begun = time.monotonic()
    seconds: dict[str, float] = {}
    for backend in ("jaeger", "mlflow"):
        wanted = sent[backend] + copies * spans
        wait_until(
            lambda backend=backend, wanted=wanted: _sent(stack)[backend] >= wanted,
            f"all spans are in {backend}",
            COMPLETE_SECONDS,
        )
        seconds[backend] = time.monotonic() - begun
    spent = {name: stack.cpu_seconds(name) - before for name, before in cpu.items()}
    yield Result(
        f"{copies:,} runs of {spans} spans that appear at once",
        ("backend", "spans", "seconds until all are there", "spans/s", "missing", "unexpected", "twice"),
        [
            (backend, copies * spans, seconds[backend], copies * spans / seconds[backend], *counts)
            for backend, counts in _counts(stack, run_ids).items()
        ],
        ("Goal: none of 100,000 spans is lost.",),
    )
    yield Result(
        "Processor time until all spans are there",
        ("program", "seconds", "ms a run"),
        [(name, each, each / copies * 1000) for name, each in spent.items()],
    )


@dataclass
class Watch:
    """Records when the spans of runs can first be read from Jaeger, by trace and span id."""

    stack: Stack
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    _expected: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def begin(self, run_id: str, spans: int) -> None:
        """Watch a run until Jaeger has this number of its spans."""
        self._expected[run_id] = spans

    def poll(self) -> None:
        """Poll Jaeger until `end` is called."""
        while not self._over.wait(POLL_SECONDS):
            for run_id, spans in list(self._expected.items()):
                trace, now = self.stack.jaeger.trace(run_id), time.time()
                for span in trace.spans:
                    self.seen.setdefault((trace.trace_id, span.span_id), now)
                if len(trace.spans) >= spans:
                    del self._expected[run_id]

    def end(self) -> None:
        """Stop after all runs are complete."""
        wait_until(lambda: not self._expected, "Jaeger has the runs", COMPLETE_SECONDS)
        self._over.set()


def _latencies(stack: Stack, runs: int, ops: int, spans: int) -> list[float]:
    """Return the seconds from the end of each step until its span was read from Jaeger."""
    watch = Watch(stack)
    polling = threading.Thread(target=watch.poll, daemon=True)
    polling.start()
    run_ids = _execute(
        stack, [str(uuid4()) for _ in range(runs)], ops, lambda run_id: watch.begin(run_id, spans)
    )
    watch.end()
    polling.join()
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


def _counts(stack: Stack, run_ids: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """Return how many spans are missing, unexpected or stored twice in each backend."""
    traces: Mapping[str, Callable[[str], ReceivedTrace]] = {
        "jaeger": stack.jaeger.trace,
        "mlflow": MLflowTraces(MlflowClient(stack.mlflow_url)).trace,
    }
    counts = {backend: [0, 0, 0] for backend in traces}
    with stack.instance() as instance:
        for run_id in run_ids:
            expected = {span.span_id for span in _expected(stack, instance, run_id)}
            for backend, trace in traces.items():
                stored = trace(run_id)
                missing, unexpected = expected - stored.by_id.keys(), stored.by_id.keys() - expected
                for place, spans in enumerate((missing, unexpected, stored.repeated)):
                    counts[backend][place] += len(spans)
    return counts


def _sent(stack: Stack) -> Mapping[str, float]:
    """Return the spans that the collector has exported so far, by backend."""
    page = requests.get(f"{stack.machine.url('otel-collector', 8888)}/metrics", timeout=10).text
    return {backend: float(spans) for backend, spans in SENT.findall(page)}


def _execute(stack: Stack, run_ids: list[str], ops: int, on_begin: Callable[[str], None]) -> list[str]:
    """Execute runs in a process with the environment of the code server; return their ids."""
    command = [sys.executable, "-m", "benchmarks.observer.execute", jobs.SPAN, str(ops), json.dumps(run_ids)]
    with subprocess.Popen(
        command,
        env=stack.machine.described("code").environment,
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            on_begin(line.strip())
    if process.returncode != 0:
        raise BenchmarkError(f"The runs ended with code {process.returncode}.")
    return run_ids


def _expected(stack: Stack, instance: dg.DagsterInstance, run_id: str) -> Sequence:
    return expected_spans(instance, run_id, stack.machine.described("observer").environment)


def _copy_run(stack: Stack, history: RunHistory, copies: int) -> list[str]:
    """Copy the rows of a run that has ended in Dagster's database; return the ids of the copies."""
    old = history.run.run_id
    password = stack.machine.variables["DAGSTER_POSTGRES_PASSWORD"]
    database = f"postgresql://dagster:{password}@{HOST}:{stack.database.port}/dagster"
    new_ids = [str(uuid4()) for _ in range(copies)]
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(_select("runs", OF_RUN), [old])
        (run,) = cursor.fetchall()
        cursor.execute(_select("event_logs", OF_EVENT), [old])
        events = cursor.fetchall()
        columns = _names(("run_id", *OF_EVENT))
        with cursor.copy(sql.SQL("COPY event_logs ({}) FROM STDIN").format(columns)) as rows:
            for new in new_ids:
                for text, *rest in events:
                    rows.write_row((new, _replaced(text, history, new), *rest))
        for number, new in enumerate(new_ids):
            insert = sql.SQL(
                "INSERT INTO runs (run_id, {columns}, update_timestamp) "
                "VALUES ({values}, now() at time zone 'utc' - make_interval(secs => {ago}))"
            ).format(
                columns=_names(OF_RUN),
                values=sql.SQL(", ").join([sql.Placeholder()] * (len(OF_RUN) + 1)),
                ago=sql.Literal((copies - number) * APART_SECONDS),
            )
            cursor.execute(insert, [new, run[0].replace(old, new), *run[1:]])
    return new_ids


def _replaced(text: str, history: RunHistory, new: str) -> str:
    """Replace a run's id in an event, and the ids of the parents of spans from inside its steps."""
    old = history.run.run_id
    text = text.replace(old, new)
    for attempt in history.attempts:
        phase = attempt.step, attempt.number, COMPUTE
        text = text.replace(
            f"{ids.phase_span_id(old, *phase):016x}", f"{ids.phase_span_id(new, *phase):016x}"
        )
    return text


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _select(table: str, columns: Sequence[str]) -> sql.Composed:
    select = sql.SQL("SELECT {} FROM {} WHERE run_id = %s ORDER BY id")
    return select.format(_names(columns), sql.Identifier(table))
