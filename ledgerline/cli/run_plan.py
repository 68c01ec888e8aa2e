"""Decides for which partitions `ledgerline run` runs each of the jobs that the project names.

One of them is the main job: the one that registers versions of a released model, or else the last one with
partitions. It runs for the requested partition. By Dagster's partition mappings, earlier jobs run for the
partitions that it needs, and later jobs for the last of the partitions that depend on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from ledgerline.cli.job_batches import Batch, batches, spanning
from ledgerline.cli.job_partitions import assets_of, downstream, missing, partitioned_assets_of, upstream
from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import PartitionError, in_order, understood
from ledgerline.dagster.released_models.names import released_models


@dataclass(frozen=True)
class PlannedJob:
    """A job and the partitions to run it for.

    Attributes:
        partitions: Partitions that must be materialised; empty for a job without partitions.
        batches: Runs that are still to be executed.
        possible: For a job after the main one, all partitions that depend on those of the main job.
    """

    name: str
    partitions: Sequence[str]
    batches: Sequence[Batch]
    possible: Sequence[str] = ()


def plan(
    instance: dg.DagsterInstance,
    loaded: LoadedProject,
    names: Sequence[str],
    requested: str | None,
    *,
    fresh: bool,
) -> list[PlannedJob]:
    """Return the jobs to run, in order.

    Args:
        instance: Dagster instance, with the history of materialised partitions.
        loaded: Project.
        names: Jobs that the project names.
        requested: Partition of the main job, as the user types it; None for the last one.
        fresh: True to run earlier jobs for materialised partitions, too.

    Raises:
        UnknownJobError: A job does not exist.
        PartitionError: The requested partition does not exist, or there are no partitions yet.
    """
    jobs = [loaded.job(name) for name in names]
    main = _main_jobs(loaded, jobs)
    chosen = {
        job.name: _last(job.name, definition)
        if requested is None
        else understood(definition, requested, job.name)
        for job in main
        if (definition := job.partitions_def) is not None
    }
    if requested is not None and not chosen:
        subject = f"{' and '.join(job.name for job in main)} has no" if main else "no job has"
        raise PartitionError(
            f"There is no partition {requested!r}, because {subject} partitions.", "Run without --partition."
        )
    first_of_main = min((jobs.index(job) for job in main), default=len(jobs))
    needed = _needed(loaded, jobs, main, chosen)
    planned: list[PlannedJob] = []
    known: dict[dg.AssetKey, set[str]] = {}
    for place, job in enumerate(jobs):
        definition = job.partitions_def
        if definition is None:
            planned.append(PlannedJob(job.name, (), batches(job, ())))
            continue
        possible: Sequence[str] = ()
        if job.name in chosen:
            keys = [chosen[job.name]]
            runs = batches(job, keys)
        elif needed.get(job.name):
            keys = in_order(definition, list(needed[job.name]))
            runs = _runs(job, keys if fresh else missing(instance, loaded, job.name, keys))
        else:
            possible = downstream(loaded, job, known) if place > first_of_main else ()
            possible = _within(definition, possible, _window(main, chosen))
            same = (key for key in chosen.values() if definition.has_partition_key(key))
            keys = [possible[-1] if possible else next(same, None) or _last(job.name, definition)]
            runs = batches(job, keys)
        planned.append(PlannedJob(job.name, keys, runs, possible))
        known |= {key: set(keys) for key in partitioned_assets_of(job)}
    return planned


def _main_jobs(loaded: LoadedProject, jobs: Sequence[dg.JobDefinition]) -> list[dg.JobDefinition]:
    versions = {names.versions for names in released_models(loaded.defs).values()}
    registering = [job for job in jobs if versions & set(assets_of(job))]
    return registering or [job for job in jobs if job.partitions_def is not None][-1:]


def _last(job_name: str, definition: dg.PartitionsDefinition) -> str:
    last = definition.get_last_partition_key()
    if last is None:
        raise PartitionError(f"{job_name} has no partitions yet.", "Add some first.")
    return str(last)


def _needed(
    loaded: LoadedProject,
    jobs: Sequence[dg.JobDefinition],
    main: Sequence[dg.JobDefinition],
    chosen: Mapping[str, str],
) -> Mapping[str, set[str]]:
    """Return, by job, the partitions of earlier jobs that the main jobs need."""
    of_asset: dict[dg.AssetKey, set[str]] = {}
    needed: dict[str, set[str]] = {}
    last_of_main = max((jobs.index(job) for job in main), default=-1)
    for job in reversed(jobs[: last_of_main + 1]):
        if job in main:
            keys = {chosen[job.name]} if job.name in chosen else set()
        else:
            keys = set().union(*(of_asset.get(key, set()) for key in assets_of(job)))
            needed[job.name] = keys
        if keys or job in main:
            for key, partitions in upstream(loaded, job, keys).items():
                of_asset.setdefault(key, set()).update(partitions)
    return needed


def _window(main: Sequence[dg.JobDefinition], chosen: Mapping[str, str]) -> dg.TimeWindow | None:
    """Return the time window of the main job's partition, if it has one."""
    for job in main:
        if isinstance(job.partitions_def, dg.TimeWindowPartitionsDefinition) and job.name in chosen:
            return job.partitions_def.time_window_for_partition_key(chosen[job.name])
    return None


def _within(
    definition: dg.PartitionsDefinition, keys: Sequence[str], window: dg.TimeWindow | None
) -> Sequence[str]:
    """Return the partitions that begin in a time window, or all of them if no partition does."""
    if window is None or not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return keys
    starts = {key: definition.start_time_for_partition_key(key).timestamp() for key in keys}
    inside = [key for key in keys if window.start.timestamp() <= starts[key] < window.end.timestamp()]
    return inside or keys


def _runs(job: dg.JobDefinition, keys: Sequence[str]) -> list[Batch]:
    """Return the runs for some partitions: a single one if the backfill policy allows any number in a run."""
    in_one_run = job.backfill_policy.max_partitions_per_run is None
    return spanning(job, keys) if in_one_run else batches(job, keys)
