"""`ledgerline backfill` and `ledgerline run JOB`: a job over its partitions, from the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ledgerline.cli import releases
from ledgerline.cli.job_batches import Batch, batches
from ledgerline.cli.partition_keys import between, extent, understood
from ledgerline.cli.registered_versions import registered_versions
from ledgerline.cli.runs import Outcome, Runner
from ledgerline.dagster.released_models.names import released_models


class PartitionsGivenError(Exception):
    """Partitions that do not fit the job; the message says what to give."""


@dataclass(frozen=True)
class Given:
    """Partitions as a person names them on the command line.

    Attributes:
        keys: Single ones.
        first: The first of a range.
        last: The last of the range; None: only the first.
    """

    keys: Sequence[str] = ()
    first: str | None = None
    last: str | None = None

    @property
    def is_empty(self) -> bool:
        """True if no partition is named."""
        return not self.keys and self.first is None and self.last is None


def planned(job: dg.JobDefinition, given: Given) -> list[Batch]:
    """Return the runs that a job takes for the partitions that a person names.

    Raises:
        PartitionsGivenError: The job has no partitions, or needs some.
        UnknownPartitionError: One of them does not exist.
    """
    definition = job.partitions_def
    if definition is None:
        if not given.is_empty:
            raise PartitionsGivenError(f"{job.name} has no partitions: run it without.")
        return batches(job, ())
    if given.keys and (given.first is not None or given.last is not None):
        raise PartitionsGivenError("Name partitions with --partition, or a range with --from and --to.")
    if given.last is not None and given.first is None:
        raise PartitionsGivenError("--to goes with --from.")
    if given.first is not None:
        keys = between(definition, given.first, given.last or given.first, job.name)
    else:
        keys = [understood(definition, key, job.name) for key in given.keys]
    if not keys:
        raise PartitionsGivenError(
            f"{job.name} has partitions ({extent(definition)}): name one with --partition, or a range with "
            "--from and --to."
        )
    return batches(job, keys)


def run_all(
    runner: Runner, job_name: str, planned: Sequence[Batch], config: Mapping[str, Any] | None = None
) -> bool:
    """Execute one run for each batch, in order; a failed one does not stop the next, Ctrl-C does.

    Returns:
        Whether all of them succeeded.
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
    runner.show(run_ids)
    runner.console.print(f"{job_name}: {succeeded} of {len(planned)} runs succeeded.")
    return succeeded == len(planned)


def _released(runner: Runner, outcome: Outcome) -> list[releases.Release]:
    """Release the versions that a run has registered: a refusal is no failure."""
    models = released_models(runner.loaded.defs)
    made = []
    for model, version in registered_versions(runner.instance, models, [outcome.run_id]).items():
        made.append(releases.release(runner, models[model], version.number))
        releases.report(runner, made[-1])
    return made
