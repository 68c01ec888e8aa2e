"""Finds the partitions that jobs need: those related by Dagster's mappings, and those that are not stored."""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from ledgerline.cli.job_batches import RANGE_END, RANGE_START
from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import in_order
from ledgerline.dagster.storage.io_managers import RecordStorage, TableStorage, open_records, open_tables

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PARTITION = "dagster/partition"

# Partitions by asset.
Partitions = Mapping[dg.AssetKey, set[str]]


def assets_of(job: dg.JobDefinition) -> Sequence[dg.AssetKey]:
    """Return the assets that a job materialises; empty for a job of ops."""
    return sorted(job.asset_layer.executable_asset_keys)


def partitioned_assets_of(job: dg.JobDefinition) -> Sequence[dg.AssetKey]:
    """Return the partitioned assets that a job materialises."""
    return [key for key in assets_of(job) if job.asset_layer.get(key).is_partitioned]


def upstream(loaded: LoadedProject, job: dg.JobDefinition, keys: Iterable[str]) -> Partitions:
    """Return the partitions of other jobs' assets that a job needs for some of its own partitions."""
    graph = loaded.defs.resolve_asset_graph()
    own = set(assets_of(job))
    needed: dict[dg.AssetKey, set[str]] = {}
    for key in own:
        node = graph.get(key)
        subset = None if node.partitions_def is None else node.partitions_def.subset_with_partition_keys(keys)
        for parent in node.parent_keys - own:
            of_parent = graph.get(parent).partitions_def
            if of_parent is not None:
                mapped = graph.get_partition_mapping(
                    key, parent
                ).get_upstream_mapped_partitions_result_for_partitions(subset, node.partitions_def, of_parent)
                needed.setdefault(parent, set()).update(mapped.partitions_subset.get_partition_keys())
    return needed


def downstream(loaded: LoadedProject, job: dg.JobDefinition, known: Partitions) -> Sequence[str]:
    """Return the partitions of a job that depend on the partitions for which earlier jobs are run."""
    graph, definition = loaded.defs.resolve_asset_graph(), job.partitions_def
    possible: set[str] | None = None
    for key in assets_of(job):
        node = graph.get(key)
        for parent in node.parent_keys & known.keys():
            of_parent = graph.get(parent).partitions_def
            if of_parent is None or node.partitions_def is None:
                continue
            mapped = graph.get_partition_mapping(key, parent).get_downstream_partitions_for_partitions(
                of_parent.subset_with_partition_keys(known[parent]), of_parent, node.partitions_def
            )
            keys = {str(each) for each in mapped.get_partition_keys()}
            possible = keys if possible is None else possible & keys
    return in_order(definition, list(possible)) if definition is not None and possible else ()


def missing(
    instance: dg.DagsterInstance, loaded: LoadedProject, job_name: str, wanted: Sequence[str]
) -> list[str]:
    """Return the partitions that a job must be run for, in the order given.

    A partition is missing if one of the job's assets was never materialised for it, the last run of the job
    over it failed, or the library's storage has lost its file. Other storages are not read.
    """
    job = loaded.job(job_name)
    stored = set(wanted) - _failed(instance, job)
    for key in partitioned_assets_of(job):
        stored &= instance.get_materialized_partitions(key)
        in_storage = _stored(loaded, key)
        stored = stored if in_storage is None else stored & in_storage
    return [key for key in wanted if key not in stored]


def _failed(instance: dg.DagsterInstance, job: dg.JobDefinition) -> set[str]:
    """Return the partitions for which the last run of a job failed."""
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
    """Return the stored partitions of an asset; None if its storage is not one of the library's."""
    assets = loaded.defs.resolve_assets_def(key)
    storage = (loaded.defs.resources or {}).get(assets.get_io_manager_key_for_asset_key(key))
    if isinstance(storage, TableStorage):
        return set(open_tables(storage.base).stored_partitions(key))
    if isinstance(storage, RecordStorage):
        return set(open_records(storage.base).stored_partitions(key))
    return None
