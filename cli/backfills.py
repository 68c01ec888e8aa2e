"""`ledgerline backfill`: a job over many partitions, from the command line."""

from collections.abc import Sequence

import dagster as dg
from rich.console import Console

from assets.delay_model_version import RegisteredVersion
from cli import observing, releases, runs
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records
from pipelines.jobs import train_delay_model


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
                if job_name == train_delay_model.name:
                    run_ids.append(_release(console, instance, settings, partitions[0]))
                continue
            runs.report_failure(console, outcome, settings)
            if outcome.interrupted:
                break
        with console.status("Showing the runs in MLflow …"):
            observing.show_runs(console, instance, observing.own_observers(console, settings), run_ids)
    console.print(f"{succeeded} of {len(batches)} runs succeeded.")
    return succeeded == len(batches)


def _release(console: Console, instance: dg.DagsterInstance, settings: Settings, month: str) -> str:
    """Compare the version of a month with production, and promote it or not: a refusal is no failure."""
    version = open_records(settings.data).read(dg.AssetKey("delay_model_version"), month, RegisteredVersion)
    release = releases.release(console, instance, settings, version.number)
    releases.report(console, settings, release)
    return release.outcome.run_id
