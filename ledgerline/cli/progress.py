"""Shows the progress of a run, read from Dagster's event log. Runs are started in runs.py."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType, EventLogRecord
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.ledger.errors import error_from
from ledgerline.ledger.history import Materialisation
from ledgerline.ledger.materialised import MaterialisationReader
from ledgerline.ledger.written import by_asset, row_count

POLL_SECONDS = 0.25

STARTS = {DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED}
ENDS = {
    DagsterEventType.STEP_SUCCESS: "done",
    DagsterEventType.STEP_FAILURE: "failed",
    DagsterEventType.STEP_SKIPPED: "skipped",
    DagsterEventType.STEP_UP_FOR_RETRY: "will be retried",
}


@dataclass
class Step:
    """The state of one step, from its events so far."""

    key: str
    started: float | None = None
    ended: float | None = None
    state: str = "waiting"
    doing: str = ""
    rows: int | None = None
    failed_checks: list[str] = field(default_factory=list)
    error: str = ""
    materialisations: list[Materialisation] = field(default_factory=list, repr=False)  # of this attempt

    @property
    def seconds(self) -> float:
        """Duration in seconds, until now if it has not ended."""
        return 0.0 if self.started is None else (self.ended or time.time()) - self.started


class RunView:
    """The state of a run, from its event records so far, which are fed in order."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.problem = ""  # the reason of a failure outside of all steps
        self.interrupted = False  # by Ctrl-C or a signal
        self._materialisations = MaterialisationReader()

    def feed(self, record: EventLogRecord) -> Step | None:
        """Process one record; return the step if the record ends it."""
        entry = record.event_log_entry
        if entry.step_key is None:
            self._process_end(entry.dagster_event)
            return None
        step = self.steps.setdefault(entry.step_key, Step(entry.step_key))
        event = entry.dagster_event
        if event is None:
            step.doing = entry.user_message
            return None
        if event.event_type in STARTS:
            step.started, step.ended, step.state = entry.timestamp, None, "running"
            step.materialisations, step.rows = [], None
        elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
            recorded = event.step_materialization_data.materialization
            step.materialisations.append(self._materialisations.read(recorded, entry.timestamp))
        elif event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                step.failed_checks.append(f"{evaluation.check_name}: {evaluation.description}")
        elif event.event_type in ENDS:
            step.ended, step.state = entry.timestamp, ENDS[event.event_type]
            step.rows = _rows(step.materialisations)
            if event.is_step_failure and event.step_failure_data.error is not None:
                step.error = _own_error(event.step_failure_data.error)
            return step
        return None

    def _process_end(self, event: dg.DagsterEvent | None) -> None:
        if event is None or event.event_type is not DagsterEventType.RUN_FAILURE:
            return
        error = event.job_failure_data.error
        message = error.message if error is not None else event.message or ""
        self.interrupted = dg.DagsterExecutionInterruptedError.__name__ in message
        self.problem = "The run was interrupted." if self.interrupted else message.strip()


@contextmanager
def displayed(console: Console, instance: dg.DagsterInstance, run_id: str, title: str) -> Iterator[RunView]:
    """Print a line for each finished step, and the running steps, while the body executes the run."""
    view = RunView()
    finished = threading.Event()
    console.print(Text(title, style="bold"))
    with Live(
        console=console, refresh_per_second=8, transient=True, get_renderable=lambda: _now(view)
    ) as live:

        def follow() -> None:
            cursor: str | None = None
            while True:
                last_round = finished.is_set()
                page = instance.get_records_for_run(run_id, cursor=cursor)
                cursor = page.cursor
                for record in page.records:
                    if (ended := view.feed(record)) is not None:
                        live.console.print(_line(ended))
                if page.has_more:
                    continue
                if last_round:
                    return
                finished.wait(POLL_SECONDS)

        follower = threading.Thread(target=follow, name=f"progress of {run_id}")
        follower.start()
        try:
            yield view
        finally:
            finished.set()
            follower.join()


def _rows(materialisations: list[Materialisation]) -> int | None:
    counts = map(row_count, by_asset(materialisations).values())
    known = [rows for rows in counts if rows is not None]
    return sum(known) if known else None


def _line(step: Step) -> Text:
    mark, style = {"done": ("✓", "green"), "failed": ("✗", "red")}.get(step.state, ("·", "yellow"))
    line = Text.assemble((f"  {mark} ", style), f"{step.key:<26}{step.seconds:6.1f} s")
    if step.rows is not None:
        line.append(f"  {step.rows:>9,} rows", style="dim")
    if step.failed_checks:
        count = len(step.failed_checks)
        line.append(f"  {count} {'check' if count == 1 else 'checks'} failed", style="yellow")
    if step.state not in ("done", "failed"):
        line.append(f"  {step.state}", style=style)
    return line


def _now(view: RunView) -> RenderableType:
    lines = [
        Spinner("dots", Text(f"{step.key:<26}{step.seconds:6.1f} s  {step.doing}", style="cyan"))
        for step in list(view.steps.values())
        if step.state == "running"
    ]
    return Group(*lines) if lines else Spinner("dots", Text("starting", style="dim"))


def _own_error(info: "dg.SerializableErrorInfo") -> str:
    """Return the error of the step as one paragraph; a PermanentFailure without its class name."""
    error = error_from(info)
    is_own = error.type.endswith(PermanentFailure.__name__)
    return error.message if is_own else f"{error.type}: {error.message}"
