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
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import dagster as dg
import requests
import sqlalchemy as sa
from mlflow import MlflowClient

from benchmarks.context import BenchmarkError, Context, Result
from benchmarks.observer import jobs
from benchmarks.processes import HOST, PROJECT_ROOT
from benchmarks.stack.files import servers
from benchmarks.stack.stack import Stack, running
from benchmarks.stack.traces import MLflowTraces, expected_spans
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import COMPUTE, RunHistory
from ledgerline.testing.waiting import wait_until

POLL_SECONDS = 0.05
COMPLETE_SECONDS = 1800.0
SERVICES = ("observer", "otel-collector", "jaeger", "mlflow")
SENT = re.compile(r'^otelcol_exporter_sent_spans\{.*exporter="otlp_http/(\w+)".*\} (\S+)$', re.MULTILINE)

APART_SECONDS = 0.01  # between the update times of two copies, because observers page by them


def measure_stack(context: Context) -> list[Result]:
    """Measure the latency of spans, the time for many runs, and the processor time of each program."""
    live, copies, ops = context.pick((50, 1000, 20), (2, 5, 3))
    programs = servers()
    if {"jaeger", "otel-collector"} - programs.keys():
        raise BenchmarkError("Jaeger or the collector is not built.", "Run docker/servers/build.")
    context.report("Starting the stack …")
    with running(context.folder, programs, database={"fsync": "on"}) as stack:
        (first,) = _execute(stack, [str(uuid4())], ops, lambda run_id: None)
        with stack.instance() as instance:
            history, spans = read_history(instance, first), len(_expected(stack, instance, first))
        assert history is not None
        late = sorted(_latencies(stack, live, ops, spans))
        latency = Result(
            f"{live} runs of {ops} ops, one after the other: from STEP_SUCCESS until Jaeger has the span",
            ("spans by", "steps", "median s", "p99 s", "longest s"),
            [("observe --follow", len(late), statistics.median(late), late[int(0.99 * len(late))], late[-1])],
            (f"Jaeger is polled every {1000 * POLL_SECONDS:.0f} ms. Goal: p99 under 5 s.",),
        )
        return [latency, *_volume(context, stack, history, copies, spans)]


def _volume(context: Context, stack: Stack, history: RunHistory, copies: int, spans: int) -> Iterator[Result]:
    """Copy a run and wait until all spans are in both backends."""
    context.report(f"Copying a run of {spans} spans {copies:,} times …")
    sent, cpu = _sent(stack), {name: stack.cpu_seconds(name) for name in SERVICES}
    run_ids = _copy_run(stack, history, copies)
    begun, total = time.monotonic(), copies * spans
    seconds: dict[str, float] = {}
    for backend in ("jaeger", "mlflow"):
        wait_until(
            lambda backend=backend: _sent(stack)[backend] >= sent[backend] + total,
            f"all spans are in {backend}",
            COMPLETE_SECONDS,
        )
        seconds[backend] = time.monotonic() - begun
    spent = {name: stack.cpu_seconds(name) - before for name, before in cpu.items()}
    counts = _counts(stack, run_ids)
    yield Result(
        f"{copies:,} runs of {spans} spans that appear at once",
        ("backend", "spans", "seconds until all are there", "spans/s", "missing", "unexpected", "twice"),
        [(backend, total, each, total / each, *counts[backend]) for backend, each in seconds.items()],
        ("Goal: none of 100,000 spans is lost.",),
    )
    yield Result(
        "Processor time until all spans are there",
        ("program", "seconds", "ms a run"),
        [(name, each, each / copies * 1000) for name, each in spent.items()],
    )


def _latencies(stack: Stack, runs: int, ops: int, spans: int) -> list[float]:
    """Return the seconds from the end of each step until its span was read from Jaeger."""
    incomplete: set[str] = set()  # ids of runs that have begun
    seen: dict[tuple[str, str], float] = {}  # when a span was first read, by run and span id
    over = threading.Event()

    def poll() -> None:
        while not over.wait(POLL_SECONDS):
            for run_id in list(incomplete):
                trace, now = stack.jaeger.trace(run_id), time.time()
                for span in trace.spans:
                    seen.setdefault((run_id, span.span_id), now)
                if len(trace.spans) >= spans:
                    incomplete.remove(run_id)

    polling = threading.Thread(target=poll, daemon=True)
    polling.start()
    run_ids = _execute(stack, [str(uuid4()) for _ in range(runs)], ops, incomplete.add)
    wait_until(lambda: not incomplete, "Jaeger has the runs", COMPLETE_SECONDS)
    over.set()
    polling.join()
    late: list[float] = []
    with stack.instance() as instance:
        for run_id in run_ids:
            history = read_history(instance, run_id)
            assert history is not None
            for attempt in history.attempts:
                span_id = ids.attempt_span_id(run_id, attempt.step, attempt.number)
                if attempt.ended is not None:
                    late.append(seen[run_id, f"{span_id:016x}"] - attempt.ended)
    return late


def _counts(stack: Stack, run_ids: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """Return how many spans are missing, unexpected or stored twice in each backend."""
    backends = {"jaeger": stack.jaeger, "mlflow": MLflowTraces(MlflowClient(stack.mlflow_url))}
    counts = {name: [0, 0, 0] for name in backends}
    with stack.instance() as instance:
        for run_id in run_ids:
            expected = {span.span_id for span in _expected(stack, instance, run_id)}
            for name, backend in backends.items():
                stored = backend.trace(run_id)
                missing, unexpected = expected - stored.by_id.keys(), stored.by_id.keys() - expected
                for place, spans in enumerate((missing, unexpected, stored.repeated)):
                    counts[name][place] += len(spans)
    return counts


def _sent(stack: Stack) -> Mapping[str, float]:
    """Return the spans that the collector has exported so far, by backend."""
    page = requests.get(f"{stack.machine.url('otel-collector', 8888)}/metrics", timeout=10).text
    return {backend: float(spans) for backend, spans in SENT.findall(page)}


def _execute(stack: Stack, run_ids: list[str], ops: int, on_begin: Callable[[str], None]) -> list[str]:
    """Execute runs in a process with the environment of the code server; return their ids."""
    command = [sys.executable, "-m", "benchmarks.observer.execute", jobs.SPAN, str(ops), json.dumps(run_ids)]
    environment = stack.machine.described("code").environment
    with subprocess.Popen(
        command,
        env=environment,
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
    address = f"{HOST}:{stack.database.port}/dagster"
    engine, tables = sa.create_engine(f"postgresql+psycopg://dagster:{password}@{address}"), sa.MetaData()
    tables.reflect(engine, only=("event_logs", "runs"))
    new_ids = [str(uuid4()) for _ in range(copies)]
    with engine.begin() as connection:
        for table in (tables.tables["event_logs"], tables.tables["runs"]):
            columns = [column for column in table.c if column.name != "id"]
            select = sa.select(*columns).where(table.c.run_id == old).order_by(table.c.id)
            rows = connection.execute(select).mappings().all()
            now = datetime.now(UTC).replace(tzinfo=None)
            for number, new in enumerate(new_ids):
                replaced = _replaced_ids(history, new)
                copied = [{name: _copied(value, replaced) for name, value in row.items()} for row in rows]
                if table.name == "runs":
                    copied[0]["update_timestamp"] = now - timedelta(seconds=APART_SECONDS * (copies - number))
                connection.execute(sa.insert(table), copied)
    engine.dispose()
    return new_ids


def _replaced_ids(history: RunHistory, new: str) -> dict[str, str]:
    """Return the new id for a run's id, and for each id of a parent of spans from inside its steps."""
    replaced = {history.run.run_id: new}
    for attempt in history.attempts:
        phase = attempt.step, attempt.number, COMPUTE
        old_id, new_id = (ids.phase_span_id(run_id, *phase) for run_id in (history.run.run_id, new))
        replaced[f"{old_id:016x}"] = f"{new_id:016x}"
    return replaced


def _copied(value: Any, replaced: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for old, new in replaced.items():
            value = value.replace(old, new)
    return value
