"""How fast a run's event log becomes spans, beside Dagster's own reading of it, and whether that stays so.

The logs are recorded first, by real runs of this machine.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from rich.console import Console

from benchmarks import observed_jobs as jobs
from benchmarks import processes
from benchmarks.results import Result, Value
from ledgerline.ledger.event_log import PAGE, HistoryReader, run_from
from ledgerline.ledger.links import Links
from ledgerline.ledger.upstreams import Upstreams
from ledgerline.traces import telemetry
from ledgerline.traces.spans import run_spans

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")
COLUMNS = 12  # of each table

RESOURCE = telemetry.resource()


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        steps: A run for each number of steps.
        tables: Assets in the run over a range of days.
        days: How many.
        rounds: How often each log is read.
    """

    steps: Sequence[int]
    tables: int
    days: int
    rounds: int


FULL = Size(steps=(100, 300, 1000), tables=12, days=365, rounds=9)
QUICK = Size(steps=(10, 30), tables=3, days=30, rounds=3)


def measure(console: Console, folder: Path, size: Size) -> list[Result]:
    """One table: a row for each recorded run, and one for all of them."""
    home = processes.new_home(folder / "rate")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        recorded = {}
        for steps in size.steps:
            console.print(f"Recording a run of {steps} steps …")
            recorded[f"{steps} steps"] = _executed(home, steps)
        name = f"{size.tables} assets over {size.days} days in one run"
        console.print(f"Recording {name} …")
        recorded[name] = _materialised(instance, size)
        return [_result(instance, recorded, size.rounds)]


def read(instance: dg.DagsterInstance, run_id: str) -> int:
    """Read all records of a run; says how many there are."""
    cursor, count = None, 0
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, limit=PAGE)
        count += len(page.records)
        cursor = page.cursor
        if not page.has_more:
            return count


def read_and_project(instance: dg.DagsterInstance, run_id: str) -> int:
    """Read all records of a run and make all its spans; says how many records there are."""
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    reader = HistoryReader(run_from(record))
    cursor, count = None, 0
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, limit=PAGE)
        reader.feed(page.records)
        count += len(page.records)
        cursor = page.cursor
        if not page.has_more:
            break
    history = Upstreams(instance).found(reader.history())
    spans = list(run_spans(history, None, RESOURCE, Links(), None))
    assert spans
    return count


def _result(instance: dg.DagsterInstance, recorded: Mapping[str, str], rounds: int) -> Result:
    rows: list[Sequence[Value]] = []
    counted, read_seconds, all_seconds = 0, 0.0, 0.0
    for name, run_id in recorded.items():
        times: dict[Callable[[dg.DagsterInstance, str], int], list[float]] = {read: [], read_and_project: []}
        events = read(instance, run_id)
        read_and_project(instance, run_id)  # what is done only once
        gc.collect()
        gc.freeze()  # as `ledgerline observe` does after its first run
        for _ in range(rounds):
            for way, taken in times.items():
                started = time.process_time()
                way(instance, run_id)
                taken.append(time.process_time() - started)
        alone, with_ours = (statistics.median(taken) for taken in times.values())
        ours = statistics.median(
            both - one for one, both in zip(times[read], times[read_and_project], strict=True)
        )
        rows.append(_row(name, events, alone, with_ours, ours))
        counted, read_seconds, all_seconds = counted + events, read_seconds + alone, all_seconds + with_ours
    rows.append(_row("all", counted, read_seconds, all_seconds, all_seconds - read_seconds))
    return Result(
        "rate",
        f"From event log to spans: medians of {rounds} rounds, taken in turns",
        (
            "run",
            "events",
            "Dagster reads, events/s",
            "read and projected, events/s",
            "ratio",
            "µs per event",
            "of them ours",
        ),
        rows,
        (
            f"Dagster alone: get_records_for_run in pages of {PAGE}. Goal: a ratio of 0.7 or more.",
            "Seconds are of processor time, which stays the same when the machine has other things to do.",
        ),
    )


def _row(name: str, events: int, alone: float, with_ours: float, ours: float) -> Sequence[Value]:
    rates = events / alone, events / with_ours, alone / with_ours
    return name, events, *rates, with_ours / events * 1e6, ours / events * 1e6


def _executed(home: Path, steps: int) -> str:
    executed = processes.execute(jobs.BARE, steps, jobs.IN_PROCESS, home, op_seconds=1e-4)
    if executed.problem is not None or executed.run_id is None:
        raise processes.BenchmarkError(f"A run of {steps} steps: {executed.problem}")
    return executed.run_id


def _materialised(instance: dg.DagsterInstance, size: Size) -> str:
    keys = DAYS.get_partition_keys()
    done = dg.materialize(
        tables(size.tables),
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[size.days - 1],
        },
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    return done.run_id


def tables(count: int) -> list[dg.AssetsDefinition]:
    """Assets by day, each made from the one before, that say of themselves what this project's do."""
    schema = dg.TableSchema([dg.TableColumn(f"column_{number}", "int64") for number in range(COLUMNS)])
    made: list[dg.AssetsDefinition] = []

    def table(number: int) -> dg.AssetsDefinition:
        @dg.asset(
            name=f"table_{number}",
            deps=made[-1:],
            partitions_def=DAYS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            code_version="1",
        )
        def written() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"dagster/row_count": 1000, "dagster/column_schema": schema})

        return written

    for number in range(count):
        made.append(table(number))  # noqa: PERF401 (each needs the one before)
    return made
