"""`ledgerline observe` and `ledgerline trace`: runs of an instance, shown elsewhere or here."""

import gc
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import RunsFilter
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from ledgerline.cli.loaded_project import LoadedProject, load
from ledgerline.cli.trace_tree import MIN_SECONDS, trace_tree
from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.cursors import CursorStore
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.observer import Observer, Report
from ledgerline.ledger.owners import Owners, owners_in
from ledgerline.ledger.reasons import by_reason

POLL_SECONDS = 0.5
# A span is wanted at once. Updating the page of an MLflow run that often takes more from the run than it
# gives to who reads it.
LOOKS_SECONDS = {"traces": POLL_SECONDS}
OTHER_LOOKS_SECONDS = 3.0
BUDGET_SECONDS = 1.0  # of one look, after which it is seen whether somebody wants it to end
END_SECONDS = 1.0
RUNS_AT_ONCE = 50
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ObservingError(Exception):
    """What was asked for cannot be observed; the message says why."""


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


def own_observers(
    console: Console, settings: Settings, cursor_store: CursorStore | None = None
) -> list[Observer]:
    """Return what shows the runs of this project, whose code says the owners of its assets.

    Args:
        console: Where to say that the code cannot be loaded; runs are shown all the same.
        settings: Where runs are shown.
        cursor_store: Keeps how far they have been shown; the instance, unless another is given.
    """
    owners: Owners = {}
    try:
        owners = owners_in(load(settings.project).defs.get_repository_def())
    except Exception as error:  # noqa: BLE001 (whatever is wrong with it: the event log has the rest)
        console.print(Text(f"Without the owners of assets: {error}"), soft_wrap=True)
    return [Observer(projection, cursor_store, owners) for projection in projections_of(settings)]


def observers_of(loaded: LoadedProject, settings: Settings) -> list[Observer]:
    """Return what shows the runs of this project, whose code is loaded."""
    owners = owners_in(loaded.defs.get_repository_def())
    return [Observer(projection, None, owners) for projection in projections_of(settings)]


def foreign_observers(settings: Settings, cursor_store: CursorStore) -> list[Observer]:
    """Return what shows the runs of another instance, whose code is not here."""
    return [Observer(projection, cursor_store) for projection in projections_of(settings)]


def show_runs(
    console: Console, instance: dg.DagsterInstance, observers: Sequence[Observer], run_ids: Sequence[str]
) -> bool:
    """Show runs from their beginning; says whether all of them could be shown everywhere."""
    records = []
    for text in run_ids:
        run_id = named_run(instance, text)
        record = instance.get_run_record_by_id(run_id)
        if record is None:
            raise ObservingError(f"There is no run {run_id} in {instance.root_directory}.")
        records.append(record)
    failures = Failures(console)
    for record in records:
        for observer in observers:
            failures.note(observer, record.dagster_run.run_id, _problem(observer, instance, record))
    failures.print()
    return not failures.count


def show_all(
    console: Console,
    instance: dg.DagsterInstance,
    observers: Sequence[Observer],
    since: datetime | None,
    *,
    verbose: bool,
) -> bool:
    """Show all runs, the oldest first; says whether all of them could be shown everywhere.

    Args:
        console: Where to print.
        instance: Where the runs are.
        observers: Show them.
        since: Only runs that were created then or later.
        verbose: Whether each run that could not be shown has a line of its own.
    """
    chosen = RunsFilter(created_after=since)
    total = instance.get_runs_count(chosen)
    if not total:
        console.print("There are no runs to show.")
        return True
    failures, cursor = Failures(console, at_once=verbose), None
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("runs", total=total)
            while page := instance.get_run_records(chosen, RUNS_AT_ONCE, ascending=True, cursor=cursor):
                for record in page:
                    for observer in observers:
                        problem = _problem(observer, instance, record)
                        failures.note(observer, record.dagster_run.run_id, problem)
                    not_shown = f"runs ({failures.count} not shown)" if failures.count else "runs"
                    progress.update(task, advance=1, description=not_shown)
                    if progress.tasks[task].completed == 1:
                        _keep_loaded()
                cursor = page[-1].dagster_run.run_id
    finally:
        failures.print()
    console.print(
        "Not all runs could be shown; the same again is safe." if failures.count else f"{total} runs shown."
    )
    return not failures.count


def follow(console: Console, instance: dg.DagsterInstance, observers: Sequence[Observer]) -> bool:
    """Show runs as they happen, until Ctrl-C or SIGTERM; each projection in a thread of its own.

    Returns:
        Whether all threads have ended; if not, end the process with `end_at_once`.
    """
    stopped = threading.Event()
    # Handlers, and not the default: started in the background by a script, Ctrl-C would be ignored.
    # They only take note: `Event.set` in a handler waits for ever if this thread holds the event's lock.
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number)) for number in STOP_SIGNALS
    }
    threads = [
        threading.Thread(
            target=_follow,
            args=(console, instance, observer, stopped),
            name=observer.projection.name,
            daemon=True,
        )
        for observer in observers
    ]
    console.print(f"Following the runs of {instance.root_directory}; Ctrl-C ends it.", soft_wrap=True)
    try:
        for thread in threads:
            thread.start()
        while not received and all(thread.is_alive() for thread in threads):
            time.sleep(POLL_SECONDS)
    finally:
        stopped.set()
        # Not for longer: whoever sent the signal would kill it. What a target that does not answer holds up
        # is shown by the next process.
        deadline = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        for number, handler in before.items():
            signal.signal(number, handler)
    return not any(thread.is_alive() for thread in threads)


def named_run(instance: dg.DagsterInstance, text: str) -> str:
    """Return the id of a run that is named by it, by its first characters, or as a trace is, without dashes.

    Raises:
        ObservingError: There is no such run, or there are several.
    """
    run_ids = [text] if instance.has_run(text) else instance.get_run_ids()
    wanted = text.replace("-", "").lower()
    found = [run_id for run_id in run_ids if wanted and run_id.replace("-", "").startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ObservingError(f"{len(found)} runs begin with {text}, of which {found[0]} is the latest.")
    latest = f" The latest is {run_ids[0]}." if run_ids else ""
    raise ObservingError(f"There is no run {text} in {instance.root_directory}.{latest}")


def print_trace(
    console: Console, instance: dg.DagsterInstance, run_id: str, least_seconds: float = MIN_SECONDS
) -> None:
    """Print the trace of a run as a tree.

    Raises:
        ObservingError: There is no such run.
    """
    history = read_history(instance, named_run(instance, run_id))
    if history is None:
        raise ObservingError(f"There is no run {run_id} in {instance.root_directory}.")
    console.print(trace_tree(history, least_seconds))


@dataclass
class Failures:
    """Runs that could not be shown, printed with the reason.

    Attributes:
        console: Where to print.
        at_once: Whether each has a line of its own, when it happens; else those of one reason share one.
        count: How many there are, for all projections.
    """

    console: Console
    at_once: bool = False
    count: int = field(default=0, init=False)
    _by_projection: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def note(self, observer: Observer, run_id: str, problem: str | None) -> None:
        """Take note of a run that was tried; without a problem, it was shown."""
        if problem is None:
            return
        self.count += 1
        name = observer.projection.name
        if self.at_once:
            self._print(f"Run {run_id} is not shown ({name}): {problem}")
        else:
            self._by_projection.setdefault(name, {})[run_id] = problem

    def print(self) -> None:
        """Print those that were not printed yet."""
        for name, problems in self._by_projection.items():
            for reason in by_reason(problems):
                if reason.count == 1:
                    self._print(f"Run {reason.example} is not shown ({name}): {reason.text}")
                else:
                    self._print(
                        f"{reason.count} runs are not shown ({name}), for example {reason.example}: "
                        f"{reason.text}"
                    )

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def _problem(observer: Observer, instance: dg.DagsterInstance, record: dg.RunRecord) -> str | None:
    """Show a run; returns why it could not be shown, if so."""
    try:
        observer.show(instance, record)
    except Exception as error:  # noqa: BLE001 (one run must not keep the others from being shown)
        return str(error)
    return None


def _follow(
    console: Console, instance: dg.DagsterInstance, observer: Observer, stopped: threading.Event
) -> None:
    name, problem, is_loaded = observer.projection.name, None, False
    while not stopped.is_set():
        try:
            report = observer.tick(instance, BUDGET_SECONDS)
        except Exception as error:  # noqa: BLE001 (Dagster's database is away, say: it will be back)
            report = Report(unavailable=f"{instance.root_directory} cannot be read: {error}")
        if report.written and not is_loaded:
            _keep_loaded()
            is_loaded = True
        if report.written or report.failures or report.refused:
            console.print(Text(f"{_now()}  {name:<12}{report}"), soft_wrap=True)
        if report.unavailable != problem:
            problem = report.unavailable
            console.print(Text(f"{_now()}  {name:<12}{problem or 'It is back.'}"), soft_wrap=True)
        stopped.wait(LOOKS_SECONDS.get(name, OTHER_LOOKS_SECONDS))


def _keep_loaded() -> None:
    """Keep the garbage collector from looking through what the first run had loaded, again for each run.

    Reading an event log makes many objects, and Dagster, MLflow and SQLAlchemy are half a million.
    """
    gc.collect()
    gc.freeze()


def _now() -> str:
    return time.strftime("%H:%M:%S")
