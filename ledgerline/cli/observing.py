"""The work of `ledgerline observe` and `ledgerline trace`: exports runs of an instance, and prints traces."""

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

from ledgerline.cli.loaded_project import load
from ledgerline.cli.trace_tree import MIN_SECONDS, trace_tree
from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.errors import LedgerlineError
from ledgerline.ledger.cursors import CursorStore
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.given_by_users import Owners, owners_in
from ledgerline.ledger.observer import Observer, Report
from ledgerline.ledger.reasons import by_reason
from ledgerline.settings.project import Project

POLL_SECONDS = 0.5
# Spans are exported at once. MLflow runs are updated less often: the cost of an update to the run exceeds its
# benefit to a reader.
POLLS_SECONDS = {"traces": POLL_SECONDS}
OTHER_POLLS_SECONDS = 3.0
BUDGET_SECONDS = 1.0  # maximum duration of one poll, after which a signal to end is handled
END_SECONDS = 1.0
RUNS_AT_ONCE = 50
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ObservingError(LedgerlineError):
    """A run does not exist, or the time from which to observe runs is not a time."""


def moment(text: str) -> datetime:
    """Parse a local date or time in ISO format, or an age (`30m`, `12h`, `7d`, `4w`).

    Raises:
        ObservingError: The text is neither.

    Example:
        >>> moment("2026-01-31T12:00+01:00")
        datetime.datetime(2026, 1, 31, 11, 0, tzinfo=datetime.timezone.utc)
    """
    ago = re.fullmatch(r"(\d+)([mhdw])", text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ObservingError(
            f"{text!r} is not a time.", "Write 2026-01-31, 2026-01-31T12:00, or an age such as 12h or 7d."
        ) from error


def owners_of(console: Console, project: Project) -> Owners:
    """Return the owners of a project's assets; if its code cannot be loaded, print why, and return none."""
    try:
        return owners_in(load(project).defs.get_repository_def())
    except Exception as error:  # noqa: BLE001 (user code may raise anything; the event log has all but owners)
        console.print(Text(f"Runs are exported without the owners of assets: {error}"), soft_wrap=True)
        return {}


def observers_of(settings: Settings, cursor_store: CursorStore | None, owners: Owners) -> list[Observer]:
    """Return one observer for each target of the settings.

    Args:
        settings: Settings with the targets of the export.
        cursor_store: Store of the positions up to which runs are exported; None for the instance.
        owners: Owners of assets; empty for another instance, whose code is not available.
    """
    return [Observer(projection, cursor_store, owners) for projection in projections_of(settings)]


def export_runs(
    console: Console, instance: dg.DagsterInstance, observers: Sequence[Observer], run_ids: Sequence[str]
) -> bool:
    """Export runs from their beginning; return whether all targets accepted all of them."""
    records = []
    for text in run_ids:
        run_id = named_run(instance, text)
        record = instance.get_run_record_by_id(run_id)
        if record is None:
            raise ObservingError(f"There is no run {run_id} in {instance.root_directory}.")
        records.append(record)
    export = _Export(console, instance, observers)
    for record in records:
        export.add(record)
    export.print_failures()
    return not export.failed


def export_all(
    console: Console,
    instance: dg.DagsterInstance,
    observers: Sequence[Observer],
    since: datetime | None,
    *,
    verbose: bool,
) -> bool:
    """Export all runs since a time, the oldest first; return whether all targets accepted all of them.

    With `verbose`, a line is printed for each run that could not be exported, and not for each reason.
    """
    chosen = RunsFilter(created_after=since)
    total = instance.get_runs_count(chosen)
    if not total:
        console.print("There are no runs to export.")
        return True
    export, cursor = _Export(console, instance, observers, at_once=verbose), None
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("runs", total=total)
            while page := instance.get_run_records(chosen, RUNS_AT_ONCE, ascending=True, cursor=cursor):
                for record in page:
                    export.add(record)
                    description = f"runs ({export.failed} failed)" if export.failed else "runs"
                    progress.update(task, advance=1, description=description)
                    if progress.tasks[task].completed == 1:
                        _keep_loaded()
                cursor = page[-1].dagster_run.run_id
    finally:
        export.print_failures()
    console.print(
        "Some runs could not be exported. Repeating the command is safe."
        if export.failed
        else f"{total} runs exported."
    )
    return not export.failed


def follow(console: Console, instance: dg.DagsterInstance, observers: Sequence[Observer]) -> bool:
    """Export runs while they are executed, until Ctrl-C or SIGTERM, with one thread for each projection.

    Returns:
        True if all threads have ended. If not, end the process with `end_at_once`.
    """
    stopped = threading.Event()
    # Signals have handlers: by default, a process that a script starts in the background ignores Ctrl-C.
    # The handlers only record them: `Event.set` in one deadlocks if this thread holds the event's lock.
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
        # The wait is short, because a service manager kills a process that does not end. Runs that a target
        # has not accepted are exported by the next process.
        deadline = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        for number, handler in before.items():
            signal.signal(number, handler)
    return not any(thread.is_alive() for thread in threads)


def named_run(instance: dg.DagsterInstance, text: str) -> str:
    """Return the id of a run, given its id or trace id, or the first characters of one; dashes are optional.

    Raises:
        ObservingError: No run, or more than one, has such an id.
    """
    run_ids = [text] if instance.has_run(text) else instance.get_run_ids()
    wanted = text.replace("-", "").lower()
    matching = [run_id for run_id in run_ids if wanted and run_id.replace("-", "").startswith(wanted)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ObservingError(
            f"{len(matching)} runs begin with {text}, of which {matching[0]} is the latest.",
            "Write more characters.",
        )
    latest = f"The latest is {run_ids[0]}." if run_ids else ""
    raise ObservingError(f"There is no run {text} in {instance.root_directory}.", latest)


def print_trace(
    console: Console, instance: dg.DagsterInstance, run_id: str, least_seconds: float = MIN_SECONDS
) -> None:
    """Print the trace of a run as a tree.

    Raises:
        ObservingError: The run does not exist.
    """
    history = read_history(instance, named_run(instance, run_id))
    if history is None:
        raise ObservingError(f"There is no run {run_id} in {instance.root_directory}.")
    console.print(trace_tree(history, least_seconds))


@dataclass
class _Export:
    """Exports runs, and prints those that could not be exported.

    With `at_once`, each has a line as soon as it fails; otherwise, each reason has a line at the end.
    """

    console: Console
    instance: dg.DagsterInstance
    observers: Sequence[Observer]
    at_once: bool = False
    failed: int = 0  # of all projections
    problems: dict[str, dict[str, str]] = field(default_factory=dict)  # by projection and run

    def add(self, record: dg.RunRecord) -> None:
        run_id = record.dagster_run.run_id
        for observer in self.observers:
            name = observer.projection.name
            try:
                observer.export_run(self.instance, record)
            except Exception as error:  # noqa: BLE001 (one run must not keep the others from being exported)
                self.failed += 1
                if self.at_once:
                    self._print(f"Run {run_id} was not exported ({name}): {error}")
                else:
                    self.problems.setdefault(name, {})[run_id] = str(error)

    def print_failures(self) -> None:
        for name, problems in self.problems.items():
            for reason in by_reason(problems):
                if reason.count == 1:
                    self._print(f"Run {reason.example} was not exported ({name}): {reason.text}")
                else:
                    self._print(
                        f"{reason.count} runs were not exported ({name}), for example {reason.example}: "
                        f"{reason.text}"
                    )

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def _follow(
    console: Console, instance: dg.DagsterInstance, observer: Observer, stopped: threading.Event
) -> None:
    name, problem, is_loaded = observer.projection.name, None, False
    while not stopped.is_set():
        try:
            report = observer.tick(instance, BUDGET_SECONDS)
        except Exception as error:  # noqa: BLE001 (Dagster's database may be down for a while)
            report = Report(unavailable=f"{instance.root_directory} cannot be read: {error}")
        if report.written and not is_loaded:
            _keep_loaded()
            is_loaded = True
        lines = [str(report)] if report.written or report.failures or report.refused else []
        if report.unavailable != problem:
            problem = report.unavailable
            lines.append(problem or "The target is available again.")
        for line in lines:
            console.print(Text(f"{time.strftime('%H:%M:%S')}  {name:<12}{line}"), soft_wrap=True)
        stopped.wait(POLLS_SECONDS.get(name, OTHER_POLLS_SECONDS))


def _keep_loaded() -> None:
    """Exclude the objects that the first run has loaded from later garbage collections.

    Reading an event log creates many objects, and each collection would search the half a million objects of
    Dagster, MLflow and SQLAlchemy.
    """
    gc.collect()
    gc.freeze()
