"""Runs whose event records a test writes itself, and a fake target that stores its exports."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from unittest.mock import patch
from uuid import uuid4

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

from ledgerline.ledger.dagster_internals import EngineEventData
from ledgerline.ledger.event_log import ATTEMPT_METADATA, SPANS_METADATA
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import Backfill

JOB, STEP = "written", "step"


@dataclass(frozen=True)
class WrittenRun:
    """A run in Dagster's storage. Each of its records is a word, so that a test can distinguish them."""

    instance: dg.DagsterInstance
    run_id: str

    @property
    def record(self) -> dg.RunRecord:
        """The current record of the run."""
        record = self.instance.get_run_record_by_id(self.run_id)
        assert record is not None
        return record

    def write(self, *words: str) -> None:
        """Write records, as a step with spans does."""
        for word in words:
            self.instance.report_engine_event(
                word,
                engine_event_data=EngineEventData(
                    {
                        SPANS_METADATA: dg.MetadataValue.json([{"name": word}]),
                        ATTEMPT_METADATA: dg.MetadataValue.int(1),
                    }
                ),
                step_key=STEP,
                job_name=JOB,
                run_id=self.run_id,
            )

    def start(self) -> None:
        """Write the start of the run."""
        self._report(DagsterEventType.RUN_START, None)

    def end(self, seconds_ago: float = 0.0) -> None:
        """Write the success of the run, with a time that is this many seconds ago."""
        self._report(DagsterEventType.RUN_SUCCESS, time.time() - seconds_ago)

    def fail(self, seconds_ago: float = 0.0) -> None:
        """Write the failure of the run, with a time that is this many seconds ago."""
        self._report(DagsterEventType.RUN_FAILURE, time.time() - seconds_ago)

    def _report(self, kind: DagsterEventType, timestamp: float | None) -> None:
        event = DagsterEvent(kind.value, job_name=JOB)
        self.instance.report_dagster_event(event, run_id=self.run_id, timestamp=timestamp)


def begin(
    instance: dg.DagsterInstance,
    *words: str,
    seconds_ago: float = 0.0,
    backfill: str | None = None,
    retry_of: WrittenRun | None = None,
) -> WrittenRun:
    """Create a run that has started and has written these words."""
    first = retry_of.run_id if retry_of is not None else None
    run = dg.DagsterRun(
        JOB,
        run_id=str(uuid4()),
        tags={"dagster/backfill": backfill} if backfill else {},
        root_run_id=first,
        parent_run_id=first,
    )
    created = datetime.fromtimestamp(time.time() - seconds_ago, UTC)
    instance.run_storage.add_historical_run(run, created)
    written = WrittenRun(instance, run.run_id)
    written._report(DagsterEventType.RUN_START, created.timestamp())
    written.write(*words)
    return written


def words_of(history: RunHistory | None) -> list[str]:
    """Return the words of the run in a history."""
    if history is None:
        return []
    return [span["name"] for recorded in history.recorded_spans for span in recorded.encoded]


@dataclass(frozen=True)
class Export:
    """The arguments of one export."""

    now: RunHistory
    before: RunHistory | None

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.now.run.run_id

    @property
    def new_words(self) -> list[str]:
        """The words that the previous export did not have."""
        return words_of(self.now)[len(words_of(self.before)) :]


@dataclass
class FakeTarget:
    """A fake target: a projection that stores its exports, or fails as a test requires.

    Attributes:
        name: Name of the projection.
        exports: Exports that succeeded, in order.
        backfills: Exports of backfills that succeeded, in order.
        offered: Ids of the runs of all exports, including those that failed.
        before_export: Function that is called with the id before an export; it may raise an error.
        after_export: Function that is called after an export has succeeded.
    """

    name: str = "fake target"
    exports: list[Export] = field(default_factory=list)
    backfills: list[Backfill] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    before_export: Callable[[str], None] = lambda key: None
    after_export: Callable[[], None] = lambda: None

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Store the export of a run."""
        self.offered.append(now.run.run_id)
        self.before_export(now.run.run_id)
        self.exports.append(Export(now, before))
        self.after_export()
        return 1

    def export_backfill(self, backfill: Backfill) -> int:
        """Store the export of a backfill."""
        self.before_export(backfill.backfill_id)
        self.backfills.append(backfill)
        return 1

    def of(self, run: WrittenRun) -> list[Export]:
        """Return the exports of a run."""
        return [export for export in self.exports if export.run_id == run.run_id]

    def new_words_of(self, run: WrittenRun) -> list[Sequence[str]]:
        """Return the new words of each export of a run."""
        return [export.new_words for export in self.of(run)]


class Clock:
    """A clock that advances only when a test calls `forward`, however busy the machine is."""

    def __init__(self) -> None:
        self._now = float(int(time.monotonic()))  # whole, so that adding seconds to it is exact

    def __call__(self) -> float:
        """Return the current time of this clock."""
        return self._now

    def forward(self, seconds: float) -> None:
        """Advance the clock."""
        self._now += seconds


@contextmanager
def clock_to_put_forward() -> Iterator[Clock]:
    """Replace Python's monotonic clock until the end of the `with` block."""
    clock = Clock()
    with patch.object(time, "monotonic", clock):
        yield clock
