"""`ledgerline run`: from nothing to a registered model and a scored day, and what came of it."""

import time

import dagster as dg
from rich.console import Console
from rich.table import Table

from assets.delay_model_evaluation import Evaluation
from assets.delay_model_version import RegisteredVersion
from assets.partitions import judged_days, training_days
from cli import ingested, observing, runs
from registry.store import without_password
from registry.versions import STAGING
from resources.environments import Settings
from resources.storage import open_records, open_tables

# Of a phase in the traces that are printed; `ledgerline trace` prints more.
LEAST_SECONDS = 0.5

# Where lower is better.
LOSSES = {"log_loss", "brier", "calibration_error"}


def run_all(console: Console, settings: Settings, month: str, fresh: bool) -> bool:
    """Ingest what the month's model needs, train, judge, register, and score the month's last day.

    Returns:
        Whether everything succeeded.
    """
    started = time.monotonic()
    days = training_days(month) + judged_days(month)
    outcomes: list[runs.Outcome] = []
    with runs.local_instance(settings) as instance:
        missing = days if fresh else ingested.missing_days(instance, open_tables(settings.data), days)
        if missing:
            outcomes.append(runs.execute(console, instance, "ingest_flights", missing))
        else:
            console.print(
                f"[bold]ingest_flights[/]  {days[0]} to {days[-1]} are there "
                "already (--fresh reads them again)"
            )
        for job_name, partition in (("train_delay_model", month), ("score_flights", days[-1])):
            if all(outcome.success for outcome in outcomes):
                outcomes.append(runs.execute(console, instance, job_name, [partition]))
        with console.status("Showing the runs in MLflow …"):
            observing.show_runs(console, instance, settings, [outcome.run_id for outcome in outcomes])
        console.print()
        for outcome in outcomes:
            observing.print_trace(console, instance, outcome.run_id, LEAST_SECONDS)
    if not all(outcome.success for outcome in outcomes):
        runs.report_failure(console, outcomes[-1], settings)
        return False
    _summarise(console, settings, month, time.monotonic() - started)
    return True


def _summarise(console: Console, settings: Settings, month: str, seconds: float) -> None:
    records = open_records(settings.data)
    evaluation = records.read(dg.AssetKey("delay_model_evaluation"), month, Evaluation)
    version = records.read(dg.AssetKey("delay_model_version"), month, RegisteredVersion)

    console.print()
    console.print(_scores_table(evaluation))
    alias = f"alias [bold]{STAGING}[/]" if version.is_staging else f"{STAGING} is of a later month"
    console.print(
        f"[bold]{version.name}[/] version [bold]{version.number}[/], {alias}, sha256 {version.sha256[:12]}…"
    )
    console.print(f"Done in {seconds:.0f} s. Tables: {settings.data}", soft_wrap=True)
    console.print(f"MLflow: {without_password(settings.tracking_uri)}", soft_wrap=True)
    days = judged_days(month)
    score = f"ledgerline backfill score_flights --from {days[0]} --to {days[-1]}"
    console.print("\nNext:  [bold]make dev[/]   the Dagster and MLflow pages of all this")
    console.print(f"       [bold].venv/bin/{score}[/]   a month of predictions", soft_wrap=True)


def _scores_table(evaluation: Evaluation) -> Table:
    title = f"Judged on {evaluation.rows:,} flights of {evaluation.month[:7]}"
    table = Table("", title=title, title_justify="left")
    names = list(evaluation.scores)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for metric in evaluation.scores[names[0]]:
        values = [evaluation.scores[name][metric] for name in names]
        best = min(values) if metric in LOSSES else max(values)
        cells = [f"[bold green]{x:.4f}[/]" if x == best else f"{x:.4f}" for x in values]
        table.add_row(metric, *cells)
    return table
