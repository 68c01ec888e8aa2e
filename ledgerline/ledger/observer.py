"""Follows the event logs of runs and exports them with a projection: in order, and at least once.

cursors.py stores the progress, tail.py reads one event log, and a projection exports the histories.
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
from ledgerline.ledger.dagster_internals import NOT_FINISHED_STATUSES
from ledgerline.ledger.given_by_users import Owners
from ledgerline.ledger.pauses import Pauses
from ledgerline.ledger.projection import NotYetError, Projection, RefusedError, TargetUnavailableError
from ledgerline.ledger.reasons import by_reason
from ledgerline.ledger.tail import Tail

# Without a cursor, the first poll covers this time; `ledgerline observe --all` exports older runs.
FIRST_POLL_SECONDS = 3600
# A run is read for this long after its end, because hooks and spans from inside steps may be written later.
LINGER_SECONDS = 10
RUNS_AT_ONCE = 100


@dataclass
class Report:
    """The result of one poll of the instance.

    Attributes:
        runs: Number of runs with new events.
        written: Number of items that the projection wrote, such as spans.
        waiting: Number of runs that are followed: they are in progress, or not exported to their end.
        unavailable: Error of a target that is unavailable; None if it is available.
        failures: Errors of runs and backfills that could not be exported. They are retried after pauses that
            grow longer.
        refused: Runs that are exported without the parts that the target refused; each part is reported once.
    """

    runs: int = 0
    written: int = 0
    waiting: int = 0
    unavailable: str | None = None
    failures: dict[str, Exception] = field(default_factory=dict)
    refused: dict[str, RefusedError] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.runs} runs updated, {self.written} items written, {self.waiting} followed"]
        if self.unavailable is not None:
            parts.append(f"unavailable: {self.unavailable}")
        for reason in by_reason({name: str(error) for name, error in self.failures.items()}):
            others = f" and {reason.count - 1} more" if reason.count > 1 else ""
            parts.append(f"{reason.example}{others} cannot be exported: {reason.text}")
        parts += [f"{name}: {error}" for name, error in self.refused.items()]
        return "; ".join(parts)


class Observer:
    """Exports the runs of an instance with one projection.

    It keeps the histories of runs in progress in memory. A new observer reads them again.
    """

    def __init__(
        self, projection: Projection, cursor_store: CursorStore | None = None, owners: Owners | None = None
    ) -> None:
        """Create an observer. Without a store, its cursors are stored in the observed instance."""
        self.projection = projection
        self._cursor_store = cursor_store
        self._owners = owners or {}
        self._tails: dict[str, Tail] = {}
        self._pauses = Pauses()
        self._named: dict[str, set[str]] = {}  # the refused parts, by run, that were already reported
        self._lock = threading.Lock()

    def tick(self, instance: dg.DagsterInstance, budget: float) -> Report:
        """Export the events since the last tick, also if another process executed that tick.

        After `budget` seconds, no export of another run is started.
        """
        with self._lock:
            deadline = time.monotonic() + budget
            store = self._cursor_store or instance.run_storage
            cursors = Cursors.load(store, self.projection.name)
            if cursors is None:
                cursors = self._first_cursors(instance)
            report = Report()
            for page in self._pages(instance, cursors):
                self._export_page(instance, cursors, page, report, deadline)
                cursors.save(store)
                over = report.unavailable is not None or time.monotonic() > deadline
                # Runs that began in the meantime are still noted. They are processed in the next tick, even
                # if a run that cannot be exported, or many runs in progress, take all the time of this one.
                if over and len(cursors.active) >= RUNS_AT_ONCE:
                    break
            if report.unavailable is None:
                self._export_backfills(instance, cursors, report)
                cursors.save(store)
            self._tails = {run_id: tail for run_id, tail in self._tails.items() if run_id in cursors.active}
            self._named = {run_id: names for run_id, names in self._named.items() if run_id in cursors.active}
            self._pauses.keep_only(cursors.active)
            report.unavailable = report.unavailable or self._pauses.outage
            report.waiting = len(cursors.active)
            return report

    def export_run(self, instance: dg.DagsterInstance, record: RunRecord) -> int:
        """Export one run from its beginning up to now; return the number of items written.

        Raises:
            TargetUnavailableError: The target is unavailable.
            RefusedError: The target refuses parts of the run; the rest is exported.
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
            written += self._export_backfill(instance, now.run.backfill_id) or 0
        # A run that has just ended may still write events.
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
        in_progress = instance.get_run_records(RunsFilter(statuses=NOT_FINISHED_STATUSES))
        followed: dict[str, str | None] = {record.dagster_run.run_id: None for record in in_progress}
        return Cursors(self.projection.name, updated=time.time() - FIRST_POLL_SECONDS, active=followed)

    def _pages(self, instance: dg.DagsterInstance, cursors: Cursors) -> Iterator[list[RunRecord]]:
        """Yield the runs to process: first those that are followed, then updated ones, the oldest first."""
        followed = list(cursors.active)
        records = instance.get_run_records(RunsFilter(run_ids=followed)) if followed else []
        under_way = {record.dagster_run.run_id: record for record in records}
        for run_id in followed:
            if run_id not in under_way:
                del cursors.active[run_id]  # The run was deleted.
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
            cursors.advance(since)
            if len(page) < RUNS_AT_ONCE:
                return

    def _export_page(
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
            # The first run of this tick is the last of the next one, so that no run blocks the others.
            cursors.move_to_end(run_id)
            try:
                self._export_one(instance, cursors, record, report)
            except NotYetError:
                continue
            except TargetUnavailableError as error:
                report.unavailable = str(error)
                self._pauses.unavailable(run_id, report.unavailable)
            except Exception as error:  # noqa: BLE001 (one run must not block the others)
                report.failures[f"run {run_id}"] = error
                self._tails.pop(run_id, None)
                self._pauses.failed(run_id)
            else:
                self._pauses.exported(run_id)

    def _export_one(
        self, instance: dg.DagsterInstance, cursors: Cursors, record: RunRecord, report: Report
    ) -> None:
        run_id = record.dagster_run.run_id
        tail = self._tails.get(run_id)
        if tail is None:
            tail = self._tails[run_id] = Tail.of(record, self._owners)
            tail.rewind(instance, cursors.active[run_id])
        if tail.read(instance) or not tail.is_exported:
            report.runs += 1
            now = tail.history
            try:
                report.written += self.projection.export(instance, now, tail.exported)
            except RefusedError as refused:
                report.written += refused.written
                self._report_refused(run_id, refused, report)
            if tail.exported is None and now.run.backfill_id is not None:
                cursors.backfills.add(now.run.backfill_id)
            tail.exported = now
        cursors.active[run_id] = tail.stable_cursor
        if record.dagster_run.is_finished and tail.quiet_for(LINGER_SECONDS):
            cursors.end(run_id, record.update_timestamp.timestamp())
            del self._tails[run_id]

    def _report_refused(self, run_id: str, refused: RefusedError, report: Report) -> None:
        """Report the refused parts of a run that were not reported before."""
        reported = self._named.setdefault(run_id, set())
        if not refused.left_out.keys() <= reported:
            report.refused[f"run {run_id}"] = refused
            reported.update(refused.left_out)

    def _export_backfills(self, instance: dg.DagsterInstance, cursors: Cursors, report: Report) -> None:
        for backfill_id in sorted(cursors.backfills):
            try:
                written = self._export_backfill(instance, backfill_id)
            except TargetUnavailableError as error:
                report.unavailable = str(error)
                return
            except Exception as error:  # noqa: BLE001 (neither must a backfill)
                report.failures[f"backfill {backfill_id}"] = error
                continue
            if written is not None:
                report.written += written
                cursors.backfills.discard(backfill_id)

    def _export_backfill(self, instance: dg.DagsterInstance, backfill_id: str) -> int | None:
        """Export a backfill that has ended; return None if it is in progress."""
        backfill = read_backfill(instance, backfill_id)
        if isinstance(backfill, Pending):
            return None if backfill is Pending.IN_PROGRESS else 0
        return self.projection.export_backfill(backfill)
