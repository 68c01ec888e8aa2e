"""Reads the event log of one run from a cursor on. observer.py decides when it is read."""

import time
from dataclasses import dataclass, field
from typing import Self

import dagster as dg
from dagster import EventLogRecord

from ledgerline.ledger.dagster_internals import EventLogCursor
from ledgerline.ledger.event_log import NO_OWNERS, HistoryReader, pages, run_from
from ledgerline.ledger.given_by_users import Owners
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.upstreams import Upstreams

# A record gets its number before it becomes visible, so with several writers a lower number may appear after
# a higher one was read. The cursor advances over a record after this time; until then its page is read again,
# and records that were processed already are skipped.
STABLE_SECONDS = 1.0


@dataclass
class Tail:
    """The part of a run's event log that was read.

    Attributes:
        stable_cursor: Cursor before which no further record can appear; None at the beginning.
        exported: History that was last exported; None if the run was never exported.
    """

    run_id: str
    reader: HistoryReader
    stable_cursor: str | None = None
    exported: RunHistory | None = None
    _recent: dict[int, float] = field(default_factory=dict)  # times of reading, by record
    _latest_read: float = field(default_factory=time.monotonic)  # time of the last new record
    _history: RunHistory | None = None
    _upstreams: Upstreams | None = None

    @classmethod
    def of(cls, record: dg.RunRecord, owners: Owners = NO_OWNERS) -> Self:
        """Return the tail of a run's event log, without reading it."""
        return cls(record.dagster_run.run_id, HistoryReader(run_from(record), owners))

    @property
    def history(self) -> RunHistory:
        """The history of the records that were read."""
        if self._history is None:
            history = self.reader.history()
            self._history = self._upstreams.resolve(history) if self._upstreams is not None else history
        return self._history

    @property
    def is_exported(self) -> bool:
        """True if all records that were read have been exported."""
        return self.exported is not None and self.exported is self._history

    def rewind(self, instance: dg.DagsterInstance, cursor: str | None) -> None:
        """Read up to a cursor, before which another process has exported everything."""
        if cursor is None:
            return
        last = EventLogCursor.parse(cursor).storage_id()
        for records, position in pages(instance, self.run_id):
            known = [record for record in records if record.storage_id <= last]
            self._take(instance, known)
            if len(known) < len(records) or position == cursor:
                break
        self.stable_cursor = cursor
        self.exported = self.history

    def read(self, instance: dg.DagsterInstance) -> bool:
        """Read the new records; return True if there are any."""
        now = time.monotonic()
        is_updated = False
        for records, _ in pages(instance, self.run_id, self.stable_cursor):
            new = [record for record in records if record.storage_id not in self._recent]
            if new:
                is_updated = True
                self._take(instance, new)
                self._recent.update((record.storage_id, now) for record in new)
        if is_updated:
            self._latest_read = now
        self._advance(now)
        return is_updated

    def quiet_for(self, seconds: float) -> bool:
        """Return whether the end of the run, or the last new record, is more than this many seconds ago."""
        history = self.history
        long_ago = history.ended is not None and time.time() - history.ended > seconds
        return long_ago or time.monotonic() - self._latest_read > seconds

    def _take(self, instance: dg.DagsterInstance, records: list[EventLogRecord]) -> None:
        if records:
            self._upstreams = self._upstreams or Upstreams(instance)
            self.reader.feed(records)
            self._history = None

    def _advance(self, now: float) -> None:
        for storage_id in sorted(self._recent):
            if now - self._recent[storage_id] < STABLE_SECONDS:
                break
            self.stable_cursor = EventLogCursor.from_storage_id(storage_id).to_string()
            del self._recent[storage_id]
