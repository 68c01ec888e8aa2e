"""Runs of which a test writes each record itself, and a fake target that keeps what it is shown of them."""

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
    """A run in Dagster's storage; each of its records is a word, so that a test can tell them apart."""

    instance: dg.DagsterInstance
    run_id: str

    @property
    def record(self) -> dg.RunRecord:
        """As it is stored now."""
        record = self.instance.get_run_record_by_id(self.run_id)
        assert record is not None
        return record

    def write(self, *words: str) -> None:
        """Write records, as a step does that traces itself."""
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
        """Let it start."""
        self._report(DagsterEventType.RUN_START, None)

    def end(self, seconds_ago: float = 0.0) -> None:
        """Let it succeed, by the clock of its process so long ago."""
        self._report(DagsterEventType.RUN_SUCCESS, time.time() - seconds_ago)

    def fail(self, seconds_ago: float = 0.0) -> None:
        """Let it fail, by the clock of its process so long ago."""
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
    """A run that has started, and has written these words."""
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
    """What the run has written, as far as the history has it."""
    if history is None:
        return []
    return [span["name"] for recorded in history.recorded_spans for span in recorded.encoded]


@dataclass(frozen=True)
class Shown:
    """What a projection was given."""

    now: RunHistory
    before: RunHistory | None

    @property
    def run_id(self) -> str:
        """Return the run."""
        return self.now.run.run_id

    @property
    def news(self) -> list[str]:
        """The words that were not there before."""
        return words_of(self.now)[len(words_of(self.before)) :]


@dataclass
class FakeTarget:
    """A fake target: a projection that keeps what it is given, or raises what it is told to.

    Attributes:
        shown: What it was given and took, in order.
        backfills: The same of backfills.
        asked: The runs that it was given, whether it took them or not.
        refuses: Is called with what it is given, and may raise.
        took: Is called after it took something.
    """

    name: str = "fake target"
    shown: list[Shown] = field(default_factory=list)
    backfills: list[Backfill] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuses: Callable[[str], None] = lambda key: None
    took: Callable[[], None] = lambda: None

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Take a run, or refuse it."""
        self.asked.append(now.run.run_id)
        self.refuses(now.run.run_id)
        self.shown.append(Shown(now, before))
        self.took()
        return 1

    def export_backfill(self, backfill: Backfill) -> int:
        """Take a backfill, or refuse it."""
        self.refuses(backfill.backfill_id)
        self.backfills.append(backfill)
        return 1

    def of(self, run: WrittenRun) -> list[Shown]:
        """What it was given of a run."""
        return [shown for shown in self.shown if shown.run_id == run.run_id]

    def news_of(self, run: WrittenRun) -> list[Sequence[str]]:
        """The words of a run, by when they were shown."""
        return [shown.news for shown in self.of(run)]


class Clock:
    """Stands still until a test puts it forward: a busy machine changes nothing."""

    def __init__(self) -> None:
        self._now = float(int(time.monotonic()))  # whole, so that adding seconds to it is exact

    def __call__(self) -> float:
        """Return the time, which stands still."""
        return self._now

    def forward(self, seconds: float) -> None:
        """Put it forward."""
        self._now += seconds


@contextmanager
def clock_to_put_forward() -> Iterator[Clock]:
    """Instead of Python's own monotonic clock, for as long as the body runs."""
    clock = Clock()
    with patch.object(time, "monotonic", clock):
        yield clock
