"""Follows Dagster's partition mappings from the partitions of one job to those of others."""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import in_order

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
