"""Tests histories of processes that go on after their run has ended, or whose clocks are wrong."""

from collections.abc import Callable, Sequence

import pytest
from dagster import DagsterEvent, DagsterEventType, EventLogRecord
from dagster._core.execution.plan.objects import StepFailureData
from dagster_shared.error import SerializableErrorInfo

from ledgerline.ledger.history import Attempt
from ledgerline.testing.recordings import Recordings
from tests.observability.histories import FAILURE, ROUNDING, attempt_at, check_times, outline, type_of, words

SKEW = 30.0  # seconds; longer than any process here takes to start


def test_events_of_a_process_after_its_run_was_failed_are_not_counted(recorded: Recordings) -> None:
    recording = recorded["one op"]
    (start,) = [
        index
        for index, record in enumerate(recording.records)
        if type_of(record) is DagsterEventType.STEP_START
    ]
    lost = SerializableErrorInfo("Step fetch failed health check: its pod is gone.", [], None)
    verdict = with_event(
        recording.records[start],
        lambda event: event._replace(
            event_type_value=DagsterEventType.STEP_FAILURE.value,
            event_specific_data=StepFailureData(error=lost, user_failure_data=None),
        ),
    )
    records = [*recording.records[: start + 1], verdict, *recording.records[start + 1 :]]
    history = recording.history_of(records)
    assert outline(history) == [("fetch", 1, FAILURE, ("resources", "compute"))]
    assert words(history.attempts[0].error) == ["Error: Step fetch failed health check: its pod is gone."]
    check_times(history)


@pytest.mark.parametrize(
    ("run", "step", "number"),
    [
        ("processes", "planes", 1),
        (
            "processes",
            "airlines",
            1,
        ),  # its end is recorded by the process that started it, with another clock
        ("processes", "airlines", 2),
        ("processes", "fleet", 1),
        ("delegated", "split_at_last", 1),
        ("delegated", "doubled.double[west]", 1),
        ("no resource in a process", "ask", 1),  # so is its
    ],
)
def test_a_clock_that_is_behind_changes_nothing(
    recorded: Recordings, run: str, step: str, number: int
) -> None:
    recording = recorded[run]
    true = recording.history
    on_time = attempt_at(true, step, number)
    history = recording.history_of(with_skew(recording.records, on_time.pid, -SKEW))
    check_times(history)
    late = attempt_at(history, step, number)

    # The time to start the process cannot be distinguished from the lag of its clock.
    start_up = seconds_between(
        recording.records,
        on_time,
        DagsterEventType.STEP_WORKER_STARTING,
        DagsterEventType.STEP_WORKER_STARTED,
    )
    assert late.clock_behind == pytest.approx(SKEW - start_up, abs=ROUNDING * 10)
    assert late.seconds == pytest.approx(on_time.seconds, abs=start_up + ROUNDING * 10)
    assert [phase.name for phase in late.phases] == [phase.name for phase in on_time.phases]
    for phase, true_phase in zip(late.phases, on_time.phases, strict=True):
        assert phase.seconds == pytest.approx(true_phase.seconds, abs=start_up + ROUNDING * 10)
    for attempt in history.attempts:
        assert history.started is not None
        assert history.ended is not None
        assert attempt.ended is not None
        assert history.started <= attempt.started <= attempt.ended <= history.ended
    others = [attempt for attempt in true.attempts if attempt is not on_time]
    assert [attempt for attempt in history.attempts if attempt is not late] == others


def test_a_clock_that_is_ahead_makes_no_time_negative(recorded: Recordings) -> None:
    recording = recorded["processes"]
    for attempt in recording.history.attempts:
        check_times(recording.history_of(with_skew(recording.records, attempt.pid, SKEW)))


def with_event(record: EventLogRecord, change: Callable[[DagsterEvent], DagsterEvent]) -> EventLogRecord:
    entry = record.event_log_entry
    assert entry.dagster_event is not None
    return record._replace(event_log_entry=entry._replace(dagster_event=change(entry.dagster_event)))


def seconds_between(
    records: Sequence[EventLogRecord], attempt: Attempt, first: DagsterEventType, last: DagsterEventType
) -> float:
    """The time from one event of an attempt to another."""
    times = {
        type_of(record): record.timestamp
        for record in records
        if record.event_log_entry.step_key == attempt.step
        and attempt.started <= record.timestamp <= (attempt.ended or 0.0)
    }
    return times[last] - times[first]


def with_skew(records: Sequence[EventLogRecord], pid: int | None, seconds: float) -> list[EventLogRecord]:
    """The records as they would be if the clock of one process were wrong."""
    assert pid is not None
    skewed = []
    for record in records:
        entry = record.event_log_entry
        if entry.dagster_event is not None and entry.dagster_event.pid == pid:
            entry = entry._replace(timestamp=entry.timestamp + seconds)
        skewed.append(record._replace(event_log_entry=entry))
    return skewed
