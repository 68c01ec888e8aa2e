"""Keeps a projection's progress in the Dagster instance or beside it: a cursor names only what was shown.

Any process may load, extend and save it. Two that do so at the same time may undo what the other one wrote;
what is then left says less, never something untrue, and some things are shown once more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import dagster as dg

# How far back the search for updated runs reaches behind the latest one seen: clocks differ, and rows become
# visible out of order.
OVERLAP_SECONDS = 60


class CursorStore(Protocol):
    """A place for cursors: the run storage of the instance itself, or a folder (cursor_folder.py)."""

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        """Return the values of those keys that have one."""
        ...

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        """Replace the values of these keys."""
        ...


@dataclass
class Cursors:
    """What has been shown of the runs of an instance.

    Attributes:
        projection: Whose cursors these are.
        updated: All runs last updated before this time (seconds since the epoch) were seen.
        active: Runs that are followed, in the order of their turn, with the cursor in their event log.
        ended: Runs that are done with, with the time when they were last updated; older ones than the search
            reaches back are dropped.
        backfills: Backfills that are not over.
    """

    projection: str
    updated: float
    active: dict[str, str | None] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    backfills: set[str] = field(default_factory=set)
    saved: str | None = None

    @classmethod
    def load(cls, store: CursorStore, projection: str) -> Self | None:
        """What was last saved; None if nothing ever was."""
        key = _key(projection)
        text = store.get_cursor_values({key}).get(key)
        if text is None:
            return None
        kept = json.loads(text)
        return cls(
            projection,
            updated=kept["updated"],
            active=kept["active"],
            ended=kept["ended"],
            backfills=set(kept["backfills"]),
            saved=text,
        )

    def save(self, store: CursorStore) -> None:
        """Write it down, if something changed."""
        self.ended = {
            run_id: updated
            for run_id, updated in self.ended.items()
            if updated > self.updated - OVERLAP_SECONDS
        }
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

    def begin(self, run_id: str) -> None:
        """Follow a run from its beginning."""
        self.active[run_id] = None

    def begin_if_new(self, record: dg.RunRecord) -> bool:
        """Follow a run, unless it is followed already or done with; says whether it was new."""
        run_id = record.dagster_run.run_id
        if run_id in self.active or self.ended.get(run_id) == record.update_timestamp.timestamp():
            return False
        self.begin(run_id)
        return True

    def end(self, run_id: str, updated: float) -> None:
        """Be done with a run, unless it is updated once more."""
        self.active.pop(run_id, None)
        self.ended[run_id] = updated

    def forget(self, run_id: str) -> None:
        """Give up a run that is no longer there."""
        self.active.pop(run_id, None)

    def move_to_end(self, run_id: str) -> None:
        """Give all others their turn before this run."""
        self.active[run_id] = self.active.pop(run_id)

    def saw(self, updated: float) -> None:
        """Note that all runs updated before were seen."""
        self.updated = max(self.updated, updated)


def _key(projection: str) -> str:
    return f"ledgerline/{projection}"
