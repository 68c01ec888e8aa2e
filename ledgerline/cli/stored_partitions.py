"""Which partitions of a job are there already, by Dagster's history and the library's own storages."""

from collections.abc import Sequence

import dagster as dg

from ledgerline.cli.job_batches import RANGE_END, RANGE_START
from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.related_partitions import partitioned_assets_of
from ledgerline.dagster.storage.io_managers import RecordStorage, TableStorage, open_records, open_tables

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PARTITION = "dagster/partition"


def missing(
    instance: dg.DagsterInstance, loaded: LoadedProject, job_name: str, wanted: Sequence[str]
) -> list[str]:
    """Return the partitions that a job must be run for, in the order given.

    One of its assets was never materialised for them, the last run of the job over them failed, or the
    library's storage has lost the file. What other storages keep is not looked at.
    """
    job = loaded.job(job_name)
    there = set(wanted) - _failed(instance, job)
    for key in partitioned_assets_of(job):
        there &= instance.get_materialized_partitions(key)
        stored = _stored(loaded, key)
        there = there if stored is None else there & stored
    return [key for key in wanted if key not in there]


def _failed(instance: dg.DagsterInstance, job: dg.JobDefinition) -> set[str]:
    """Return the partitions over which the last run of a job failed."""
    failed: set[str] = set()
    for run in reversed(instance.get_runs(dg.RunsFilter(job_name=job.name, statuses=ENDED))):  # oldest first
        keys = _partitions_of(run, job)
        failed = failed - keys if run.is_success else failed | keys
    return failed


def _partitions_of(run: dg.DagsterRun, job: dg.JobDefinition) -> set[str]:
    if PARTITION in run.tags:
        return {run.tags[PARTITION]}
    if RANGE_START not in run.tags or RANGE_END not in run.tags or job.partitions_def is None:
        return set()
    span = dg.PartitionKeyRange(run.tags[RANGE_START], run.tags[RANGE_END])
    if not all(job.partitions_def.has_partition_key(key) for key in (span.start, span.end)):
        return set()  # the definition has changed since
    return {str(key) for key in job.partitions_def.get_partition_keys_in_range(span)}


def _stored(loaded: LoadedProject, key: dg.AssetKey) -> set[str] | None:
    """Return the partitions of an asset that the library's own storage has; None: it has another storage."""
    assets = loaded.defs.resolve_assets_def(key)
    storage = (loaded.defs.resources or {}).get(assets.get_io_manager_key_for_asset_key(key))
    if isinstance(storage, TableStorage):
        return set(open_tables(storage.base).stored_partitions(key))
    if isinstance(storage, RecordStorage):
        return set(open_records(storage.base).stored_partitions(key))
    return None
