"""`ledgerline observe` and `ledgerline trace`: runs of an instance, shown elsewhere or here."""

import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster import RunsFilter
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from cli.trace_tree import LEAST_SECONDS, trace_tree
from observability.event_log import read_history
from observability.observer import Observer, Report
from resources.environments import Settings, projections_of

POLL_SECONDS = 0.5
# A span is wanted at once. Updating the page of an MLflow run that often takes more from the run than it
# gives to who reads it.
LOOKS_SECONDS = {"traces": POLL_SECONDS}
OTHER_LOOKS_SECONDS = 3.0
BUDGET_SECONDS = 1.0  # of one look, after which it is seen whether somebody wants it to end
END_SECONDS = 1.0
RUNS_AT_ONCE = 50
# One of these is in every DAGSTER_HOME.
OF_AN_INSTANCE = ("dagster.yaml", "history")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ObservingError(Exception):
    """What was asked for cannot be observed; the message says why."""


@contextmanager
def instance_at(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open a Dagster instance.

    Raises:
        ObservingError: There is none.
    """
    # Opened like that, any other folder would become one.
    if not any((home / name).exists() for name in OF_AN_INSTANCE):
        raise ObservingError(
            f"{home} is no Dagster instance: it has no {' and no '.join(OF_AN_INSTANCE)}. "
            "--dagster-home takes the DAGSTER_HOME of one."
        )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def moment(text: str) -> datetime:
    """A point in time: a date or time in ISO format (local), or how long ago (`30m`, `12h`, `7d`, `4w`).

    Raises:
        ObservingError: It is neither.
    """
    ago = re.fullmatch(r"(\d+)([mhdw])", text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ObservingError(
            f"{text!r} is no time: write 2026-01-31, 2026-01-31T12:00, or 12h, 7d."
        ) from error


def show_runs(
    console: Console, instance: dg.DagsterInstance, settings: Settings, run_ids: Sequence[str]
) -> bool:
    """Show runs from their beginning; says whether all of them could be shown everywhere."""
    records = []
    for run_id in run_ids:
        record = instance.get_run_record_by_id(run_id)
        if record is None:
            raise ObservingError(f"There is no run {run_id} in {instance.root_directory}.")
        records.append(record)
    complete = True
    observers = _observers(settings)
    for record in records:
        for observer in observers:
            complete &= _shown(console, observer, instance, record)
    return complete


def show_all(
    console: Console, instance: dg.DagsterInstance, settings: Settings, since: datetime | None
) -> bool:
    """Show all runs, the oldest first; says whether all of them could be shown everywhere."""
    chosen = RunsFilter(created_after=since)
    total = instance.get_runs_count(chosen)
    if not total:
        console.print("There are no runs to show.")
        return True
    observers = _observers(settings)
    complete, cursor = True, None
    with Progress(console=console) as progress:
        task = progress.add_task("runs", total=total)
        while page := instance.get_run_records(chosen, limit=RUNS_AT_ONCE, ascending=True, cursor=cursor):
            for record in page:
                for observer in observers:
                    complete &= _shown(progress.console, observer, instance, record)
                progress.advance(task)
            cursor = page[-1].dagster_run.run_id
    console.print(
        f"{total} runs shown." if complete else "Not all runs could be shown; the same again is safe."
    )
    return complete


def follow(console: Console, instance: dg.DagsterInstance, settings: Settings) -> None:
    """Show runs as they happen, until Ctrl-C or SIGTERM; each projection in a thread of its own."""
    stopped = threading.Event()
    # Handlers, and not the default: started in the background by a script, Ctrl-C would be ignored.
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in STOP_SIGNALS}
    threads = [
        threading.Thread(
            target=_follow,
            args=(console, instance, observer, stopped),
            name=observer.projection.name,
            daemon=True,
        )
        for observer in _observers(settings)
    ]
    console.print(f"Following the runs of {instance.root_directory}; Ctrl-C ends it.", soft_wrap=True)
    try:
        for thread in threads:
            thread.start()
        # In short waits: a thread that waits without an end does not notice signals.
        while not stopped.wait(POLL_SECONDS) and all(thread.is_alive() for thread in threads):
            pass
    finally:
        stopped.set()
        # Not for longer: whoever sent the signal would kill it. What a target that does not answer holds up
        # is shown by the next process.
        deadline = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        for number, handler in before.items():
            signal.signal(number, handler)


def print_trace(
    console: Console, instance: dg.DagsterInstance, run_id: str, least_seconds: float = LEAST_SECONDS
) -> None:
    """Print the trace of a run as a tree."""
    history = read_history(instance, run_id)
    if history is None:
        raise ObservingError(f"There is no run {run_id} in {instance.root_directory}.")
    console.print(trace_tree(history, least_seconds))


def _observers(settings: Settings) -> list[Observer]:
    return [Observer(projection) for projection in projections_of(settings)]


def _shown(console: Console, observer: Observer, instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    try:
        observer.show(instance, record)
    except Exception as error:  # noqa: BLE001 (one run must not keep the others from being shown)
        run_id = record.dagster_run.run_id
        console.print(
            Text(f"Run {run_id} is not shown ({observer.projection.name}): {error}"), soft_wrap=True
        )
        return False
    return True


def _follow(
    console: Console, instance: dg.DagsterInstance, observer: Observer, stopped: threading.Event
) -> None:
    name, problem = observer.projection.name, None
    while not stopped.is_set():
        try:
            report = observer.tick(instance, BUDGET_SECONDS)
        except Exception as error:  # noqa: BLE001 (Dagster's database is away, say: it will be back)
            report = Report(unavailable=f"{instance.root_directory} cannot be read: {error}")
        if report.written or report.failures:
            console.print(Text(f"{_now()}  {name:<12}{report}"), soft_wrap=True)
        if report.unavailable != problem:
            problem = report.unavailable
            console.print(Text(f"{_now()}  {name:<12}{problem or 'It is back.'}"), soft_wrap=True)
        stopped.wait(LOOKS_SECONDS.get(name, OTHER_LOOKS_SECONDS))


def _now() -> str:
    return time.strftime("%H:%M:%S")
