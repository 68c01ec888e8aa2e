"""Reads histories: the outline of attempts, their phases and their errors."""

from collections.abc import Sequence

from dagster import DagsterEventType, EventLogRecord

from ledgerline.ledger.history import COMPUTE, STORE, Attempt, Error, Outcome, Phase, RunHistory

SUCCESS, FAILURE, RETRY, INTERRUPTED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.RETRY, Outcome.INTERRUPTED
IN_A_PROCESS = ("start worker", "resources")  # what a step goes through before it begins

ROUNDING = 1e-6  # seconds: times are floats since 1970


def outline(history: RunHistory) -> list[tuple[str, int, Outcome, tuple[str, ...]]]:
    """Return its attempts: step, number, outcome, names of phases."""
    return [
        (attempt.step, attempt.number, attempt.outcome, tuple(phase.name for phase in phases_of(attempt)))
        for attempt in history.attempts
    ]


def phases_of(attempt: Attempt) -> Sequence[Phase]:
    """Return an attempt's phases up to the last output: on a busy machine, recording it may take long."""
    if attempt.outcome is SUCCESS and [phase.kind for phase in attempt.phases[-2:]] == [STORE, COMPUTE]:
        return attempt.phases[:-1]
    return attempt.phases


def attempt_at(history: RunHistory, step: str, number: int = 1) -> Attempt:
    (found,) = [each for each in history.attempts if (each.step, each.number) == (step, number)]
    return found


def failed_phases(attempt: Attempt) -> list[str]:
    return [phase.name for phase in attempt.phases if phase.failed]


def words(error: Error | None) -> list[str]:
    """The error and its causes, as a traceback would end."""
    assert error is not None
    return [f"{each.type}: {each.message}" for each in (error, *error.causes)]


def check_times(history: RunHistory) -> None:
    """Nothing takes less than no time, and everything lies in what it is a part of."""
    assert history.ended is not None
    for phase in (*history.phases, *history.waits):
        assert phase.seconds >= 0
    for attempt in history.attempts:
        assert attempt.ended is not None
        assert attempt.seconds is not None
        assert attempt.seconds >= 0
        for phase in attempt.phases:
            assert phase.seconds >= 0
            assert phase.started >= attempt.started - ROUNDING
            assert phase.ended <= attempt.ended + ROUNDING
        for event in (*attempt.materialisations, *attempt.observations, *attempt.checks):
            assert attempt.started - ROUNDING <= event.time <= attempt.ended + ROUNDING


def type_of(record: EventLogRecord) -> DagsterEventType | None:
    event = record.event_log_entry.dagster_event
    return event.event_type if event is not None else None
