"""`ledgerline backfill`: a job over many partitions, from the command line."""

from collections.abc import Sequence

from rich.console import Console

from cli import observing, runs
from resources.environments import Settings


def run_all(console: Console, settings: Settings, job_name: str, batches: Sequence[Sequence[str]]) -> bool:
    """Execute one run for each batch, in order; a failed one does not stop the next, Ctrl-C does.

    Returns:
        Whether all of them succeeded.
    """
    succeeded, run_ids = 0, []
    with runs.local_instance(settings) as instance:
        for partitions in batches:
            outcome = runs.execute(console, instance, job_name, partitions)
            run_ids.append(outcome.run_id)
            if outcome.success:
                succeeded += 1
                continue
            runs.report_failure(console, outcome, settings)
            if outcome.interrupted:
                break
        with console.status("Showing the runs in MLflow …"):
            observing.show_runs(console, instance, settings, run_ids)
    console.print(f"{succeeded} of {len(batches)} runs succeeded.")
    return succeeded == len(batches)
