"""Runs a job over its partitions, for `ledgerline backfill` and `ledgerline run JOB`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ledgerline.cli import releases
from ledgerline.cli.commands import OptionsError
from ledgerline.cli.job_batches import Batch, batches
from ledgerline.cli.partition_keys import PartitionError, between, extent, understood
from ledgerline.cli.results import registered_versions
from ledgerline.cli.runs import Outcome, Runner
from ledgerline.dagster.released_models.names import released_models


@dataclass(frozen=True)
class Given:
    """Partitions that the options of a command name: single ones, or a range."""

    keys: Sequence[str] = ()
    first: str | None = None
    last: str | None = None  # None for the first alone

    @property
    def is_empty(self) -> bool:
        """True if no partition is named."""
        return not self.keys and self.first is None and self.last is None


def planned(job: dg.JobDefinition, given: Given) -> list[Batch]:
    """Return the runs of a job for the partitions that the command line names.

    Raises:
        OptionsError: The options cannot be combined.
        PartitionError: A partition does not exist, a partition is named for a job without partitions, or no
            partition is named for a job with partitions.
    """
    definition = job.partitions_def
    if definition is None:
        if not given.is_empty:
            raise PartitionError(f"{job.name} has no partitions.", "Run it without naming a partition.")
        return batches(job, ())
    if given.keys and (given.first is not None or given.last is not None):
        raise OptionsError(
            "--partition cannot be combined with --from and --to.",
            "Give single partitions, or a range.",
        )
    if given.last is not None and given.first is None:
        raise OptionsError("--to works only with --from.", "Add --from, or omit --to.")
    if given.first is not None:
        keys = between(definition, given.first, given.last or given.first, job.name)
    else:
        keys = [understood(definition, key, job.name) for key in given.keys]
    if not keys:
        raise PartitionError(
            f"{job.name} has partitions ({extent(definition)}), and no partition is given.",
            "Give one with --partition, or a range with --from and --to.",
        )
    return batches(job, keys)


def run_all(
    runner: Runner, job_name: str, planned: Sequence[Batch], config: Mapping[str, Any] | None = None
) -> bool:
    """Execute one run for each batch, in order, and continue after a failed run, but not after Ctrl-C.

    Returns:
        True if all runs succeeded.
    """
    succeeded, run_ids = 0, []
    for batch in planned:
        outcome = runner.execute(job_name, batch, config)
        run_ids.append(outcome.run_id)
        if outcome.success:
            succeeded += 1
            run_ids += [each.outcome.run_id for each in _released(runner, outcome)]
            continue
        runner.report_failure(outcome)
        if outcome.interrupted:
            break
    runner.export(run_ids)
    runner.console.print(f"{job_name}: {succeeded} of {len(planned)} runs succeeded.")
    return succeeded == len(planned)


def _released(runner: Runner, outcome: Outcome) -> list[releases.Release]:
    """Release the versions that a run has registered; a version that a gate refuses is not a failure."""
    models = released_models(runner.loaded.defs)
    made = []
    for model, version in registered_versions(runner.instance, models, [outcome.run_id]).items():
        made.append(releases.release(runner, models[model], version.number))
        releases.report(runner, made[-1])
    return made
