"""Follows the event logs of runs and has a projection show them: at least once, in order, from any instance.

How far a projection has come: cursors.py. How one log is read on: tail.py. What is shown: the projections.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
from dagster import RunRecord, RunsFilter

from ledgerline.ledger.backfills import Pending, read_backfill
from ledgerline.ledger.cursors import OVERLAP_SECONDS, Cursors, CursorStore
from ledgerline.ledger.owners import Owners
from ledgerline.ledger.pauses import Pauses
from ledgerline.ledger.projection import NotYetError, Projection, RefusedError, TargetUnavailableError
from ledgerline.ledger.reasons import by_reason
from ledgerline.ledger.tail import Tail

# How far back it reaches when there is no cursor yet; older runs: `ledgerline observe --all`.
FIRST_LOOK_SECONDS = 3600
# How long an ended run is still read: its steps may have a last word, and write what they traced themselves.
LINGER_SECONDS = 10
RUNS_AT_ONCE = 100
LONGEST_PAUSE_SECONDS = 300

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass
class Report:
    """What one look at the instance came to.

    Attributes:
        runs: How many runs had news.
        written: How many things the projection wrote.
        waiting: How many runs have news that are not shown yet, or go on.
        unavailable: What did not take them, if so.
        failures: Runs and backfills that could not be shown, with the reason; they are tried again, runs ever
            less often.
        refused: Runs that are shown without the parts that the target refuses, which are named once.
    """

    runs: int = 0
    written: int = 0
    waiting: int = 0
    unavailable: str | None = None
    failures: dict[str, Exception] = field(default_factory=dict)
    refused: dict[str, RefusedError] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.runs} runs with news, {self.written} written, {self.waiting} followed"]
        if self.unavailable is not None:
            parts.append(f"not now: {self.unavailable}")
        for reason in by_reason({shown: str(error) for shown, error in self.failures.items()}):
            others = f" and {reason.count - 1} more" if reason.count > 1 else ""
            parts.append(f"{reason.example}{others} cannot be shown: {reason.text}")
        parts += [f"{shown}: {error}" for shown, error in self.refused.items()]
        return "; ".join(parts)


class Observer:
    """Drives one projection. Keeps what it read of runs under way; without that, it reads them again."""

    def __init__(
        self,
        projection: Projection,
        cursor_store: CursorStore | None = None,
        owners: Owners | None = None,
    ) -> None:
        """Make one.

        Args:
            projection: Shows the runs.
            cursor_store: Keeps the cursors; the observed instance itself, unless another is given.
            owners: Owners of assets; empty without the code that declares them.
        """
        self.projection = projection
        self._cursor_store = cursor_store
        self._owners = owners or {}
        self._tails: dict[str, Tail] = {}
        self._pauses = Pauses(LONGEST_PAUSE_SECONDS)
        self._named: dict[str, set[str]] = {}  # what is left out of runs, and was reported
        self._lock = threading.Lock()

    def tick(self, instance: dg.DagsterInstance, budget: float) -> Report:
        """Show what is new since the last tick, of whatever process; the rest waits for the next one.

        Args:
            instance: The Dagster instance to look at.
            budget: Seconds after which no other run is begun.
        """
        with self._lock:
            deadline = time.monotonic() + budget
            store = self._cursor_store or instance.run_storage
            cursors = Cursors.load(store, self.projection.name)
            if cursors is None:
                cursors = self._first_cursors(instance)
            report = Report()
            for page in self._pages(instance, cursors):
                self._show(instance, cursors, page, report, deadline)
                cursors.save(store)
                over = report.unavailable is not None or time.monotonic() > deadline
                # What began meanwhile is still noted, so that it has its turn in the next tick, whatever a
                # run that the target never takes, or those under way, do to this one.
                if over and len(cursors.active) >= RUNS_AT_ONCE:
                    break
            if report.unavailable is None:
                self._show_backfills(instance, cursors, report)
                cursors.save(store)
            self._tails = {run_id: tail for run_id, tail in self._tails.items() if run_id in cursors.active}
            self._named = {run_id: said for run_id, said in self._named.items() if run_id in cursors.active}
            self._pauses.keep_only(cursors.active)
            report.unavailable = report.unavailable or self._pauses.outage
            report.waiting = len(cursors.active)
            return report

    def show(self, instance: dg.DagsterInstance, record: RunRecord) -> int:
        """Show one run from its beginning, as far as it has come; says how many things were written.

        Raises:
            TargetUnavailableError: It could not be shown now.
            RefusedError: It is shown without what the target refuses.
        """
        tail = Tail.of(record, self._owners)
        tail.read(instance)
        now = tail.history
        refused: RefusedError | None = None
        try:
            written = self.projection.export(instance, now, None)
        except RefusedError as error:
            refused, written = error, error.written
        if now.run.backfill_id is not None:
            written += self._show_backfill(instance, now.run.backfill_id) or 0
        # Of a run that has just ended, there may be a last word yet.
        if now.finished and tail.quiet_for(LINGER_SECONDS):
            with self._lock:
                store = self._cursor_store or instance.run_storage
                cursors = Cursors.load(store, self.projection.name)
                if cursors is not None:
                    cursors.end(record.dagster_run.run_id, record.update_timestamp.timestamp())
                    cursors.save(store)
        if refused is not None:
            raise refused
        return written

    def _first_cursors(self, instance: dg.DagsterInstance) -> Cursors:
        cursors = Cursors(self.projection.name, updated=time.time() - FIRST_LOOK_SECONDS)
        for record in instance.get_run_records(RunsFilter(statuses=IN_PROGRESS)):
            cursors.begin(record.dagster_run.run_id)
        return cursors

    def _pages(self, instance: dg.DagsterInstance, cursors: Cursors) -> Iterator[list[RunRecord]]:
        """The runs to look at: those under way first, then those updated since, oldest first."""
        followed = list(cursors.active)
        records = instance.get_run_records(RunsFilter(run_ids=followed)) if followed else []
        under_way = {record.dagster_run.run_id: record for record in records}
        for run_id in list(cursors.active):
            if run_id not in under_way:
                cursors.forget(run_id)  # deleted
        if under_way:
            yield [under_way[run_id] for run_id in cursors.active]
        since = cursors.updated - OVERLAP_SECONDS
        while True:
            page = instance.get_run_records(
                RunsFilter(updated_after=datetime.fromtimestamp(since, UTC)),
                limit=RUNS_AT_ONCE,
                order_by="update_timestamp",
                ascending=True,
            )
            new = [record for record in page if cursors.begin_if_new(record)]
            if new:
                yield new
            if not page:
                return
            since = page[-1].update_timestamp.timestamp()
            cursors.saw(since)
            if len(page) < RUNS_AT_ONCE:
                return

    def _show(
        self,
        instance: dg.DagsterInstance,
        cursors: Cursors,
        records: Iterable[RunRecord],
        report: Report,
        deadline: float,
    ) -> None:
        for record in records:
            if report.unavailable is not None or time.monotonic() > deadline:
                return
            run_id = record.dagster_run.run_id
            if run_id in self._pauses:
                continue
            # Whoever comes first in one tick comes last in the next: none can keep the others waiting.
            cursors.move_to_end(run_id)
            try:
                self._show_one(instance, cursors, record, report)
            except NotYetError:
                continue
            except TargetUnavailableError as error:
                report.unavailable = str(error)
                self._pauses.not_taken(run_id, report.unavailable)
            except Exception as error:  # noqa: BLE001 (one run must not keep the others waiting)
                report.failures[f"run {run_id}"] = error
                self._tails.pop(run_id, None)
                self._pauses.failed(run_id)
            else:
                self._pauses.shown(run_id)

    def _show_one(
        self, instance: dg.DagsterInstance, cursors: Cursors, record: RunRecord, report: Report
    ) -> None:
        run_id = record.dagster_run.run_id
        tail = self._tails.get(run_id)
        if tail is None:
            tail = self._tails[run_id] = Tail.of(record, self._owners)
            tail.rewind(instance, cursors.active[run_id])
        if tail.read(instance) or not tail.shown_all:
            report.runs += 1
            now = tail.history
            try:
                report.written += self.projection.export(instance, now, tail.shown)
            except RefusedError as refused:
                report.written += refused.written
                self._report_refused(run_id, refused, report)
            if tail.shown is None and now.run.backfill_id is not None:
                cursors.backfills.add(now.run.backfill_id)
            tail.shown = now
        cursors.active[run_id] = tail.settled
        if record.dagster_run.is_finished and tail.quiet_for(LINGER_SECONDS):
            cursors.end(run_id, record.update_timestamp.timestamp())
            del self._tails[run_id]

    def _report_refused(self, run_id: str, refused: RefusedError, report: Report) -> None:
        """Name what is left out of a run, unless that was done before."""
        said = self._named.setdefault(run_id, set())
        if not refused.left_out.keys() <= said:
            report.refused[f"run {run_id}"] = refused
            said.update(refused.left_out)

    def _show_backfills(self, instance: dg.DagsterInstance, cursors: Cursors, report: Report) -> None:
        for backfill_id in sorted(cursors.backfills):
            try:
                written = self._show_backfill(instance, backfill_id)
            except TargetUnavailableError as error:
                report.unavailable = str(error)
                return
            except Exception as error:  # noqa: BLE001 (nor must a backfill)
                report.failures[f"backfill {backfill_id}"] = error
                continue
            if written is not None:
                report.written += written
                cursors.backfills.discard(backfill_id)

    def _show_backfill(self, instance: dg.DagsterInstance, backfill_id: str) -> int | None:
        """Show a backfill that is over; None if it goes on."""
        backfill = read_backfill(instance, backfill_id)
        if isinstance(backfill, Pending):
            return None if backfill is Pending.GOES_ON else 0
        return self.projection.export_backfill(backfill)
