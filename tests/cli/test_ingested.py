"""Which days need no second ingestion, as real runs of the job left them."""

from pathlib import Path

import dagster as dg

from cli.ingested import PARTITION, missing_days
from cli.job_batches import RANGE_END, RANGE_START
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from pipelines.definitions import build_definitions

WEEK = [f"2013-01-0{number}" for number in range(1, 8)]


def ingest(instance: dg.DagsterInstance, settings: Settings, *days: str) -> bool:
    """Run the job for a day, or from the first to the last; returns whether it succeeded."""
    tags = {PARTITION: days[0]} if len(days) == 1 else {RANGE_START: days[0], RANGE_END: days[-1]}
    job = build_definitions(settings, dg.in_process_executor).resolve_job_def("ingest_flights")
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success


def missing(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    return missing_days(instance, open_tables(settings.data), WEEK)


def test_at_first_every_day_is_missing(instance: dg.DagsterInstance, settings: Settings) -> None:
    assert missing(instance, settings) == WEEK


def test_a_run_over_a_range_and_one_over_a_single_day_add_their_days(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert ingest(instance, settings, "2013-01-01", "2013-01-05")
    assert missing(instance, settings) == ["2013-01-06", "2013-01-07"]
    assert ingest(instance, settings, "2013-01-07")
    assert missing(instance, settings) == ["2013-01-06"]


def test_missing_days_with_good_ones_between_them_are_one_gapless_range(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert ingest(instance, settings, *WEEK)
    for day in ("2013-01-02", "2013-01-05"):
        open_tables(settings.data).path_of(dg.AssetKey("features"), day).unlink()
    assert missing(instance, settings) == ["2013-01-02", "2013-01-03", "2013-01-04", "2013-01-05"]


def test_days_whose_last_run_failed_are_missing_although_they_are_stored(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert ingest(instance, settings, *WEEK)
    flights = Path(settings.data, "flights")
    aside = flights.rename(flights.with_name("flights-aside"))
    flights.write_text("a file where the folder should be")
    assert not ingest(instance, settings, "2013-01-03", "2013-01-04")
    flights.unlink()
    aside.rename(flights)
    assert missing(instance, settings) == ["2013-01-03", "2013-01-04"]
    assert ingest(instance, settings, "2013-01-03", "2013-01-04")
    assert missing(instance, settings) == []


def test_runs_without_partitions_say_nothing(instance: dg.DagsterInstance, settings: Settings) -> None:
    @dg.job(name="ingest_flights")
    def namesake() -> None: ...

    assert namesake.execute_in_process(instance=instance).success
    assert missing(instance, settings) == WEEK
