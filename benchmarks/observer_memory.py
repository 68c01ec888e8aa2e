"""Whether an observer that has shown thousands of runs holds more memory than one that has shown a few.

The runs are copies of one real run, made in the database: rows as Dagster wrote them, with other ids and
times. All event logs are in one SQLite file (Dagster's ConsolidatedSqliteEventLogStorage): with its default,
a file for each run, most of the time would go into opening files.
"""

import json
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psutil
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from rich.console import Console

from benchmarks import observed_jobs as jobs
from benchmarks import processes
from benchmarks.results import Result, Value
from ledgerline.ledger.observer import LINGER_SECONDS, Observer
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.telemetry import Telemetry

STEPS = 3
SPREAD_SECONDS = 3000  # the runs ended one after the other within so long; an observer looks back an hour
BUDGET_SECONDS = 30.0
SETTLED = 0.2  # share of the runs after which caches are full

STORAGE = """
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config:
    base_dir: {}
"""
COPIED_OF_RUN = "snapshot_id, pipeline_name, mode, status, start_time, end_time"
COPY_RUN = f"""
    INSERT INTO runs (run_id, run_body, create_timestamp, update_timestamp, {COPIED_OF_RUN})
    SELECT :new, replace(run_body, :old, :new), create_timestamp,
           strftime('%Y-%m-%d %H:%M:%f', 'now', :ago), {COPIED_OF_RUN}
    FROM runs WHERE run_id = :old
"""  # noqa: S608 (nothing of it comes from outside)
COPIED_OF_EVENT = "dagster_event_type, timestamp, step_key, asset_key, partition"
COPY_EVENTS = f"""
    INSERT INTO event_logs (run_id, event, {COPIED_OF_EVENT})
    SELECT :new, replace(event, :old, :new), {COPIED_OF_EVENT}
    FROM event_logs WHERE run_id = :old ORDER BY id
"""  # noqa: S608


def measure(console: Console, folder: Path, runs: int) -> list[Result]:
    """One table: a row for each tenth of the runs."""
    home = processes.new_home(folder / "memory")
    with (home / "dagster.yaml").open("a") as configuration:
        configuration.write(STORAGE.format(home))
    executed = processes.execute(jobs.BARE, STEPS, jobs.IN_PROCESS, home)
    if executed.run_id is None:
        raise processes.BenchmarkError(f"A run of {STEPS} steps: {executed.problem}")
    ended = time.monotonic()
    console.print(f"Making {runs:,} runs of one …")
    _copy(home, executed.run_id, runs - 1)
    time.sleep(max(0.0, LINGER_SECONDS + 1 - (time.monotonic() - ended)))  # the run ended long ago
    console.print("Observing them …")
    log = home / "memory.json"
    command = [sys.executable, "-m", "benchmarks.observer_memory", str(home), str(runs // 10)]
    with processes.started(command, processes.environment_of({}), log) as process:
        if process.wait(processes.RUN_SECONDS * 2):
            raise processes.BenchmarkError(f"The observer ended early: {log.read_text()[-3000:]}")
    return [_result(json.loads(log.read_text().splitlines()[-1]), runs)]


@dataclass
class Sampler(SpanExporter):
    """Throws spans away, and notes the memory of this process after every so many runs."""

    every: int
    runs: int = 0
    samples: list[tuple[int, float, float]] = field(default_factory=list)
    _process: psutil.Process = field(default_factory=psutil.Process)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """A root span is the last one of its run."""
        for span in spans:
            if span.parent is None:
                self.runs += 1
                if self.runs % self.every == 0:
                    sample = self.runs, time.perf_counter(), self._process.memory_info().rss / 1e6
                    self.samples.append(sample)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""


def observe(home: str, every: int) -> Sampler:
    """Show all runs of an instance, in ticks as `ledgerline observe --follow` has them."""
    sampler = Sampler(every)
    observer = Observer(TraceProjection("nowhere", lambda: sampler, Telemetry()))
    with dg.DagsterInstance.from_config(home) as instance:
        while True:
            report = observer.tick(instance, BUDGET_SECONDS)
            if report.failures or report.unavailable:
                raise processes.BenchmarkError(str(report))
            if not report.runs and not report.waiting:
                return sampler


def _copy(home: Path, run_id: str, copies: int) -> None:
    with (
        closing(sqlite3.connect(home / "history" / "runs.db")) as runs,
        closing(sqlite3.connect(home / "event_log.db")) as events,
    ):
        for number in range(copies):
            ago = f"-{SPREAD_SECONDS * (1 - number / copies):.3f} seconds"
            values = {"new": str(uuid4()), "old": run_id, "ago": ago}
            runs.execute(COPY_RUN, values)
            events.execute(COPY_EVENTS, values)
        runs.commit()
        events.commit()


def _result(samples: Sequence[tuple[int, float, float]], runs: int) -> Result:
    rows: list[Sequence[Value]] = []
    before = None
    for count, seconds, megabytes in samples:
        rate = None if before is None else (count - before[0]) / (seconds - before[1])
        rows.append((count, megabytes, rate))
        before = count, seconds
    settled = next(megabytes for count, _, megabytes in samples if count >= runs * SETTLED)
    growth = samples[-1][2] - settled
    return Result(
        "memory",
        f"Memory of an observer over {runs:,} runs of {STEPS} steps",
        ("runs shown", "RSS MB", "runs/s"),
        rows,
        (
            f"From {runs * SETTLED:,.0f} to {runs:,} runs it grew by {growth:.1f} MB.",
            "Spans are made and thrown away.",
            "The runs are copies of a real one, with all event logs in one SQLite file.",
        ),
    )


if __name__ == "__main__":
    print(json.dumps(observe(sys.argv[1], int(sys.argv[2])).samples))
