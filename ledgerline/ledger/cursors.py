"""Stores the progress of a projection in the Dagster instance or beside it.

A cursor covers only what has been exported. Any process may load, extend and save it. If two processes do so
at the same time, one may overwrite the other. The remaining cursor then covers less, so that some events are
exported again; no event is lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol, Self

import dagster as dg

# The search for updated runs begins this long before the latest update, because clocks differ and rows become
# visible out of order.
OVERLAP_SECONDS = 60


class CursorStore(Protocol):
    """A store of cursors: the run storage of the instance, or a folder for an instance opened read-only."""

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        """Return the values by key, without keys that have no value."""
        ...

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        """Replace the values of these keys."""
        ...


@dataclass(frozen=True)
class CursorFolder:
    """Stores cursors, one file for each key, with the same methods as Dagster's run storage."""

    folder: Path

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        """Return the values by key, without keys that have no value."""
        files = {key: self._file(key) for key in keys}
        return {key: file.read_text() for key, file in files.items() if file.exists()}

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        """Replace the values of these keys. Each file is replaced atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for key, value in pairs.items():
            with NamedTemporaryFile("w", dir=self.folder, delete=False) as file:
                file.write(value)
            Path(file.name).replace(self._file(key))

    def _file(self, key: str) -> Path:
        return self.folder / f"{key.replace('/', '.')}.json"


@dataclass
class Cursors:
    """The progress of a projection through the runs of an instance.

    Attributes:
        updated: Time in seconds since the epoch, before which all updates of runs are known.
        active: Runs that are followed, in the order of processing, with the cursor in their event log.
        ended: Runs that are exported to their end, with the time of their last update. Runs that the next
            search cannot return are dropped.
        backfills: Backfills that are in progress.
        saved: Text that was last loaded or saved.
    """

    projection: str
    updated: float
    active: dict[str, str | None] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    backfills: set[str] = field(default_factory=set)
    saved: str | None = None

    @classmethod
    def load(cls, store: CursorStore, projection: str) -> Self | None:
        """Return the cursors that were last saved; None if none were saved."""
        key = _key(projection)
        text = store.get_cursor_values({key}).get(key)
        if text is None:
            return None
        kept = json.loads(text)
        backfills = set(kept["backfills"])
        return cls(projection, kept["updated"], kept["active"], kept["ended"], backfills, saved=text)

    def save(self, store: CursorStore) -> None:
        """Save the cursors if they changed."""
        since = self.updated - OVERLAP_SECONDS
        self.ended = {run_id: updated for run_id, updated in self.ended.items() if updated > since}
        kept = {
            "updated": self.updated,
            "active": self.active,
            "ended": self.ended,
            "backfills": sorted(self.backfills),
        }
        text = json.dumps(kept)
        if text != self.saved:
            store.set_cursor_values({_key(self.projection): text})
            self.saved = text

    def begin_if_new(self, record: dg.RunRecord) -> bool:
        """Follow a run unless it is known already; return True if it was new."""
        run_id = record.dagster_run.run_id
        if run_id in self.active or self.ended.get(run_id) == record.update_timestamp.timestamp():
            return False
        self.active[run_id] = None
        return True

    def end(self, run_id: str, updated: float) -> None:
        """Stop following a run until its next update."""
        self.active.pop(run_id, None)
        self.ended[run_id] = updated

    def move_to_end(self, run_id: str) -> None:
        """Process this run after all others."""
        self.active[run_id] = self.active.pop(run_id)

    def advance(self, updated: float) -> None:
        """Record that all updates of runs before this time are known."""
        self.updated = max(self.updated, updated)


def _key(projection: str) -> str:
    return f"ledgerline/{projection}"
