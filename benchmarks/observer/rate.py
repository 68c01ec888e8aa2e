"""Measures how fast event logs of real runs are projected to spans, and how fast Dagster reads them."""

import gc
import statistics
from collections.abc import Iterator, Sequence

import dagster as dg

from benchmarks.context import Context, Result, Value
from benchmarks.observer import jobs
from benchmarks.observer.observed import executed_bare, new_home
from benchmarks.processes import processor_seconds
from ledgerline.ledger.event_log import PAGE, HistoryReader, run_from
from ledgerline.ledger.links import Links
from ledgerline.ledger.upstreams import Upstreams
from ledgerline.traces import telemetry
from ledgerline.traces.spans import run_spans

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")
COLUMNS = (
    *("run", "events", "Dagster reads, events/s", "read and projected, events/s", "ratio"),
    *("µs per event", "of them the projection"),
)
RESOURCE = telemetry.resource()


def measure_rate(context: Context) -> list[Result]:
    """Measure runs of many steps, and a run that materialises many partitions."""
    home, rounds = new_home(context.folder / "home"), context.pick(9, 3)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        measured = {name: _measured(instance, run_id, rounds) for name, run_id in _runs(context, instance)}
    events, alone, both, _ = (sum(column) for column in zip(*measured.values(), strict=True))
    measured["all"] = events, alone, both, both - alone
    rows = [_row(name, *each) for name, each in measured.items()]
    notes = (
        f"Dagster alone: get_records_for_run in pages of {PAGE}. Goal: a ratio of 0.7 or more.",
        "Rates are per second of processor time, which other programs do not change.",
    )
    return [Result(f"From event log to spans: medians of {rounds} rounds, in turns", COLUMNS, rows, notes)]


def _runs(context: Context, instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
    for steps in context.pick((100, 300, 1000), (10, 30)):
        yield f"{steps} steps", executed_bare(context.folder / "home", steps, jobs.IN_PROCESS, 1e-4)
    assets, days = context.pick((12, 365), (3, 30))
    keys = DAYS.get_partition_keys()
    span = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[days - 1],
    }
    done = dg.materialize(_tables(assets), instance=instance, tags=span, run_config=jobs.QUIET)
    yield f"{assets} assets over {days} days in one run", done.run_id


def _measured(instance: dg.DagsterInstance, run_id: str, rounds: int) -> tuple[int, float, float, float]:
    """Return the number of events, and the seconds for reading, for both, and for the projection."""
    events = _read(instance, run_id, None)
    _read_and_project(instance, run_id)  # This excludes initialisation from the measurement.
    gc.collect()
    gc.freeze()  # `ledgerline observe` does so after its first run.
    alone: list[float] = []
    both: list[float] = []
    for _ in range(rounds):
        alone.append(processor_seconds(lambda: _read(instance, run_id, None)))
        both.append(processor_seconds(lambda: _read_and_project(instance, run_id)))
    projection = statistics.median(two - one for one, two in zip(alone, both, strict=True))
    return events, statistics.median(alone), statistics.median(both), projection


def _read(instance: dg.DagsterInstance, run_id: str, reader: HistoryReader | None) -> int:
    """Read all records of a run; return their number."""
    cursor, count, more = None, 0, True
    while more:
        page = instance.get_records_for_run(run_id, cursor=cursor, limit=PAGE)
        if reader is not None:
            reader.feed(page.records)
        count += len(page.records)
        cursor, more = page.cursor, page.has_more
    return count


def _read_and_project(instance: dg.DagsterInstance, run_id: str) -> None:
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    reader = HistoryReader(run_from(record))
    _read(instance, run_id, reader)
    history = Upstreams(instance).resolve(reader.history())
    assert list(run_spans(history, None, RESOURCE, Links(), None))


def _row(name: str, events: int, alone: float, both: float, projection: float) -> Sequence[Value]:
    rates = events / alone, events / both, alone / both
    return name, events, *rates, both / events * 1e6, projection / events * 1e6


def _tables(count: int) -> list[dg.AssetsDefinition]:
    """Return a chain of assets with daily partitions, with metadata like that of this project's assets."""
    schema = dg.TableSchema([dg.TableColumn(f"column_{number}", "int64") for number in range(12)])
    tables: list[dg.AssetsDefinition] = []
    for number in range(count):

        @dg.asset(
            name=f"table_{number}",
            deps=tables[-1:],
            partitions_def=DAYS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            code_version="1",
        )
        def written() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"dagster/row_count": 1000, "dagster/column_schema": schema})

        tables.append(written)
    return tables
