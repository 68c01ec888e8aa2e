"""Which days are there already, as Dagster's run history has it."""

from collections.abc import Sequence

import dagster as dg

from assets.delay_model import FEATURES_ASSET
from assets.partitions import DAYS
from cli.job_batches import RANGE_END, RANGE_START
from ledgerline.dagster.storage.io_managers import Tables
from pipelines.jobs import ingest_flights

PARTITION = "dagster/partition"

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def missing_days(instance: dg.DagsterInstance, tables: Tables, wanted: Sequence[str]) -> list[str]:
    """The days that must be ingested: the last run over them failed, or their file is gone.

    Returns:
        A gapless range from the first missing to the last missing day, or nothing.
    """
    good: set[str] = set()
    runs = instance.get_runs(dg.RunsFilter(job_name=ingest_flights.name, statuses=ENDED))
    for run in reversed(runs):  # oldest first
        days = _days_of(run)
        good = good | days if run.is_success else good - days
    good &= set(tables.stored_partitions(FEATURES_ASSET))
    missing = [day for day in wanted if day not in good]
    return [day for day in wanted if missing[0] <= day <= missing[-1]] if missing else []


def _days_of(run: dg.DagsterRun) -> set[str]:
    if PARTITION in run.tags:
        return {run.tags[PARTITION]}
    if RANGE_START not in run.tags:
        return set()
    span = dg.PartitionKeyRange(run.tags[RANGE_START], run.tags[RANGE_END])
    return set(DAYS.get_partition_keys_in_range(span))
