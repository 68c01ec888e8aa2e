"""Divides the partitions of a job into runs by the backfill policies of its assets, as Dagster's UI does."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ledgerline.cli.partition_keys import in_order

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class Batch:
    """The partitions of one run, in order; none for a job without partitions."""

    keys: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)  # of the run; they name the partitions for Dagster

    def __str__(self) -> str:
        return " to ".join(dict.fromkeys([*self.keys[:1], *self.keys[-1:]]))


WHOLE = Batch()


def batches(job: dg.JobDefinition, keys: Sequence[str]) -> list[Batch]:
    """Return the runs of a job for some of its partitions.

    A range is one run if the backfill policy of every partitioned asset allows it. Otherwise a run has as
    many partitions as the strictest policy allows. Without a policy, each partition has a run.
    """
    definition = job.partitions_def
    if definition is None:
        return [WHOLE]
    most = job.backfill_policy.max_partitions_per_run
    if most == 1:
        return [_of_keys(job, [key]) for key in in_order(definition, keys)]
    return [
        _of_keys(job, chunk)
        for key_range in _ranges(definition, in_order(definition, keys))
        for chunk in _chunks(_keys_in(definition, key_range), most)
    ]


def spanning(job: dg.JobDefinition, keys: Sequence[str]) -> list[Batch]:
    """Return the runs for all partitions from the first to the last of the given ones."""
    definition = job.partitions_def
    if definition is None or not keys or isinstance(definition, dg.MultiPartitionsDefinition):
        return batches(job, keys)
    ordered = in_order(definition, keys)
    return batches(job, _keys_in(definition, dg.PartitionKeyRange(ordered[0], ordered[-1])))


def _ranges(definition: dg.PartitionsDefinition, keys: Sequence[str]) -> list[dg.PartitionKeyRange]:
    """Return ranges with these keys and no others; a single range if possible."""
    if not keys:
        return []
    whole = dg.PartitionKeyRange(keys[0], keys[-1])
    if set(_keys_in(definition, whole)) == set(keys):
        return [whole]
    ranges = definition.subset_with_partition_keys(keys).get_partition_key_ranges(definition)
    return sorted(ranges, key=lambda each: keys.index(each.start))


def _keys_in(definition: dg.PartitionsDefinition, key_range: dg.PartitionKeyRange) -> list[str]:
    return [str(key) for key in definition.get_partition_keys_in_range(key_range)]


def _chunks(keys: Sequence[str], most: int | None) -> Iterable[Sequence[str]]:
    size = most or len(keys)
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _of_keys(job: dg.JobDefinition, keys: Sequence[str]) -> Batch:
    # These include the job's own tags for a partition: those of a partitioned config or of each dimension.
    tags = dict(job.get_tags_for_partition_key(keys[0], selected_asset_keys=None))
    if len(keys) > 1:
        single = job.partitions_def.get_tags_for_partition_key(keys[0]) if job.partitions_def else {}
        tags = {name: value for name, value in tags.items() if name not in single}
        tags |= {RANGE_START: keys[0], RANGE_END: keys[-1]}
    return Batch(tuple(keys), tags)
