"""The event log of one run, read on from where it was left. Who decides when: observer.py."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import dagster as dg
from dagster import EventLogRecord

from ledgerline.ledger.dagster_internals import EventLogCursor
from ledgerline.ledger.event_log import NO_OWNERS, PAGE, HistoryReader, run_from
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.upstreams import Upstreams

# Records get their number before they become visible, so with several writers a lower one may appear after a
# higher one was read. A record is read again for this long, and taken once.
SETTLE_SECONDS = 1.0


@dataclass
class Tail:
    """What was read of a run.

    Attributes:
        run_id: The Dagster run.
        reader: Holds what the records said.
        settled: Cursor behind which no record can appear any more; None at the beginning.
        shown: The history that was last shown.
    """

    run_id: str
    reader: HistoryReader
    settled: str | None = None
    shown: RunHistory | None = None
    _recent: dict[int, float] = field(default_factory=dict)  # when each record after `settled` was read
    _latest_news: float = field(default_factory=time.monotonic)  # for who did not read it: just now
    _history: RunHistory | None = None
    _upstreams: Upstreams | None = None

    @classmethod
    def of(cls, record: dg.RunRecord, owners: Mapping[str, tuple[str, ...]] = NO_OWNERS) -> Self:
        """Return the log of a run, of which nothing was read yet.

        Args:
            record: The run.
            owners: Those of assets, by name.
        """
        return cls(record.dagster_run.run_id, HistoryReader(run_from(record), owners))

    @property
    def history(self) -> RunHistory:
        """What was read so far."""
        if self._history is None:
            history = self.reader.history()
            self._history = self._upstreams.found(history) if self._upstreams is not None else history
        return self._history

    @property
    def shown_all(self) -> bool:
        """Whether all that was read was shown."""
        return self.shown is not None and self.shown is self._history

    def rewind(self, instance: dg.DagsterInstance, cursor: str | None) -> None:
        """Read up to a cursor, behind which everything was shown by an earlier process."""
        if cursor is None:
            return
        last = EventLogCursor.parse(cursor).storage_id()
        position: str | None = None
        while position != cursor:
            page = instance.get_records_for_run(self.run_id, cursor=position, limit=PAGE)
            known = [record for record in page.records if record.storage_id <= last]
            self._take(instance, known)
            if len(known) < len(page.records) or not page.has_more:
                break
            position = page.cursor
        self.settled = cursor
        self.shown = self.history

    def read(self, instance: dg.DagsterInstance) -> bool:
        """Read what is new; says whether anything was."""
        now = time.monotonic()
        position, news = self.settled, False
        while True:
            page = instance.get_records_for_run(self.run_id, cursor=position, limit=PAGE)
            new = [record for record in page.records if record.storage_id not in self._recent]
            if new:
                news = True
                self._take(instance, new)
                self._recent.update((record.storage_id, now) for record in new)
            position = page.cursor
            if not page.has_more:
                break
        if news:
            self._latest_news = now
        self._settle(now)
        return news

    def quiet_for(self, seconds: float) -> bool:
        """Whether nothing was written to the log for so long, or since long before it was read."""
        history = self.history
        long_ago = history.ended is not None and time.time() - history.ended > seconds
        return long_ago or time.monotonic() - self._latest_news > seconds

    def _take(self, instance: dg.DagsterInstance, records: list[EventLogRecord]) -> None:
        if records:
            if self._upstreams is None:
                self._upstreams = Upstreams(instance)
            self.reader.feed(records)
            self._history = None

    def _settle(self, now: float) -> None:
        for storage_id in sorted(self._recent):
            if now - self._recent[storage_id] < SETTLE_SECONDS:
                break
            self.settled = EventLogCursor.from_storage_id(storage_id).to_string()
            del self._recent[storage_id]
