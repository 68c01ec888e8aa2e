"""`ledgerline run`: from nothing to a model in production and a scored day, and what came of it."""

import time
from collections.abc import Sequence

import dagster as dg
from rich.console import Console
from rich.table import Table

from assets.delay_model_evaluation import Evaluation
from assets.partitions import judged_days, training_days
from cli import ingested, observing, releases
from cli.job_batches import batches
from cli.runs import Outcome, Runner
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from ledgerline.mlflow_store.store import without_password

# Of a phase in the traces that are printed; `ledgerline trace` prints more.
LEAST_SECONDS = 0.5

# Where lower is better.
LOSSES = {"log_loss", "brier", "calibration_error"}


def run_all(runner: Runner, month: str, fresh: bool) -> bool:
    """Ingest what the month's model needs, train it, promote it or not, and score the month's last day.

    Returns:
        Whether everything succeeded.
    """
    started = time.monotonic()
    console, settings = runner.console, runner.settings
    days = training_days(month) + judged_days(month)
    outcomes: list[Outcome] = []

    def execute(job_name: str, keys: Sequence[str]) -> None:
        (batch,) = batches(runner.loaded.job(job_name), keys)
        outcomes.append(runner.execute(job_name, batch))

    missing = days if fresh else ingested.missing_days(runner.instance, open_tables(settings.data), days)
    if missing:
        execute("ingest_flights", missing)
    else:
        console.print(
            f"[bold]ingest_flights[/]  {days[0]} to {days[-1]} are there already (--fresh reads them again)"
        )
    if _all_succeeded(outcomes):
        execute("train_delay_model", [month])
    release = None
    if _all_succeeded(outcomes):
        release = releases.release(runner, _registered(settings, month).number)
        outcomes.append(release.outcome)
    if release is not None and release.outcome.success:
        execute("score_flights", [days[-1]])
    runner.show([outcome.run_id for outcome in outcomes])
    console.print()
    for outcome in outcomes:
        observing.print_trace(console, runner.instance, outcome.run_id, LEAST_SECONDS)
    failed = [outcome for outcome in outcomes if not outcome.success]
    if failed or release is None:
        runner.report_failure(failed[-1])
        return False
    _summarise(console, settings, month)
    releases.report(runner, release)
    _conclude(console, settings, month, time.monotonic() - started)
    return True


def _all_succeeded(outcomes: Sequence[Outcome]) -> bool:
    return all(outcome.success for outcome in outcomes)


def _registered(settings: Settings, month: str) -> RegisteredVersion:
    return open_records(settings.data).read(dg.AssetKey("delay_model_version"), month, RegisteredVersion)


def _summarise(console: Console, settings: Settings, month: str) -> None:
    evaluation = open_records(settings.data).read(dg.AssetKey("delay_model_evaluation"), month, Evaluation)
    version = _registered(settings, month)
    console.print()
    console.print(_scores_table(evaluation))
    console.print(f"[bold]{version.name}[/] version [bold]{version.number}[/], sha256 {version.sha256[:12]}…")


def _conclude(console: Console, settings: Settings, month: str, seconds: float) -> None:
    console.print(f"\nDone in {seconds:.0f} s. Tables: {settings.data}", soft_wrap=True)
    days = judged_days(month)
    score = f"ledgerline backfill score_flights --from {days[0]} --to {days[-1]}"
    if settings.observer == "service":  # of a stack, whose pages are there already
        console.print(f"Dagster: {settings.links.dagster}\nMLflow: {settings.links.mlflow}", soft_wrap=True)
        console.print(f"\nNext:  [bold]{score}[/]   a month of predictions", soft_wrap=True)
        return
    console.print(f"MLflow: {without_password(settings.tracking_uri)}", soft_wrap=True)
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
