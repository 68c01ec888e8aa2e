"""Tests the histories of steps and runs that fail, are retried or are canceled."""

import pytest

from ledgerline.ledger.history import RunStatus
from ledgerline.testing.recordings import Recordings
from tests.observability.histories import (
    FAILURE,
    IN_A_PROCESS,
    INTERRUPTED,
    RETRY,
    SUCCESS,
    attempt_at,
    failed_phases,
    outline,
    words,
)


def test_an_error_has_its_causes(recorded: Recordings) -> None:
    history = recorded["errors"].history
    assert {attempt.step: words(attempt.error) for attempt in history.attempts} == {
        "chained": [
            "RuntimeError: The features were not made.",
            "ValueError: row 7 has no plane",
            "KeyError: 'tailnum'",
        ],
        "during_another": ["ValueError: row 7 has no plane", "KeyError: 'tailnum'"],
        "without_a_message": ["NotImplementedError: "],
        "on_purpose": ["dagster._core.definitions.events.Failure: The flights of today: none."],
    }
    for attempt in history.attempts:
        assert (attempt.outcome, failed_phases(attempt)) == (FAILURE, ["compute"])
    chained = attempt_at(history, "chained").error
    assert chained is not None
    assert chained.root.type == "KeyError"
    assert 'raise RuntimeError("The features were not made.") from error' in chained.stack
    assert words(history.error) == words(chained)


def test_an_attempt_that_is_retried_has_a_separate_error(recorded: Recordings) -> None:
    history = recorded["retries"].history
    assert history.status is RunStatus.FAILURE
    assert sorted(outline(history)) == [
        ("ask_for_a_retry", 1, RETRY, ("compute",)),
        ("ask_for_a_retry", 2, SUCCESS, ("compute",)),
        ("fail_always", 1, RETRY, ("compute",)),
        ("fail_always", 2, RETRY, ("compute",)),
        ("fail_always", 3, FAILURE, ("compute",)),
        ("fail_once", 1, RETRY, ("compute",)),
        ("fail_once", 2, SUCCESS, ("compute",)),
    ]
    errors = {
        "ask_for_a_retry": ["TimeoutError: 10 s are over"],
        "fail_always": ["ConnectionError: nobody answers", "OSError: no route"],
        "fail_once": ["ConnectionError: nobody answers"],
    }
    for attempt in history.attempts:
        if attempt.outcome is SUCCESS:
            assert attempt.error is None
        else:
            assert words(attempt.error) == errors[attempt.step]


def test_an_input_that_cannot_be_loaded_is_where_the_step_failed(recorded: Recordings) -> None:
    history = recorded["unreadable"].history
    assert outline(history) == [
        ("planes", 1, SUCCESS, ("compute", "store result")),
        ("fleet", 1, FAILURE, ("load",)),
    ]
    fleet = attempt_at(history, "fleet")
    assert words(fleet.error) == ["FileNotFoundError: planes.parquet is gone"]
    assert (fleet.inputs, failed_phases(fleet)) == ((), ["load"])


def test_an_output_that_cannot_be_stored_was_computed_all_the_same(recorded: Recordings) -> None:
    history = recorded["unwritable"].history
    assert outline(history) == [("planes", 1, FAILURE, ("compute", "store result"))]
    (planes,) = history.attempts
    assert failed_phases(planes) == ["store result"]
    assert words(planes.error) == [
        "RuntimeError: The rows were not written.",
        "OSError: [Errno 28] No space left on device",
    ]
    assert history.materialisations == []


def test_a_process_that_dies_fails_its_attempt(recorded: Recordings) -> None:
    history = recorded["crash"].history
    assert history.status is RunStatus.FAILURE
    assert outline(history) == [
        ("crash", 1, RETRY, (*IN_A_PROCESS, "compute")),
        ("crash", 2, FAILURE, (*IN_A_PROCESS, "compute")),
    ]
    for attempt in history.attempts:
        assert attempt.error is not None
        assert attempt.error.type.endswith(".ChildProcessCrashException")
        assert failed_phases(attempt) == ["compute"]


@pytest.mark.parametrize(
    ("run", "before"), [("no resource", ()), ("no resource in a process", ("start worker",))]
)
def test_a_step_whose_resource_fails_computes_nothing(
    recorded: Recordings, run: str, before: tuple[str, ...]
) -> None:
    history = recorded[run].history
    assert history.status is RunStatus.FAILURE
    assert outline(history) == [("ask", 1, FAILURE, (*before, "resources"))]
    (ask,) = history.attempts
    assert failed_phases(ask) == ["resources"]
    assert words(ask.error) == ["ConnectionError: nobody answers"]


def test_a_run_whose_resource_fails_has_no_attempts(recorded: Recordings) -> None:
    history = recorded["no resource for two steps"].history
    assert (history.status, history.attempts) == (RunStatus.FAILURE, ())
    assert [(phase.name, phase.failed) for phase in history.phases] == [("resources", True)]
    assert words(history.error) == ["ConnectionError: nobody answers"]


@pytest.mark.parametrize(
    ("run", "phases"),
    [("canceled", ("compute",)), ("canceled in a process", (*IN_A_PROCESS, "compute"))],
)
def test_a_step_in_progress_is_interrupted_when_its_run_is_canceled(
    recorded: Recordings, run: str, phases: tuple[str, ...]
) -> None:
    history = recorded[run].history
    assert history.status is RunStatus.CANCELED
    assert outline(history) == [("cancel_the_run", 1, FAILURE, phases)]
    (attempt,) = history.attempts
    assert words(attempt.error)[0] == "dagster._core.errors.DagsterExecutionInterruptedError: "
    assert failed_phases(attempt) == ["compute"]


def test_a_run_that_never_left_the_queue_has_no_attempts(recorded: Recordings) -> None:
    history = recorded["canceled in the queue"].history
    assert (history.status, history.started, history.attempts) == (RunStatus.CANCELED, None, ())
    assert history.enqueued is not None
    assert (history.dequeued, list(history.waits)) == (None, [])
    assert words(history.error) == ["dagster.RunCanceled: Taken out of the queue."]


def test_a_step_without_an_end_was_interrupted_with_its_run(recorded: Recordings) -> None:
    history = recorded["killed"].history
    assert history.status is RunStatus.FAILURE
    assert words(history.error) == ["dagster.RunFailure: The process of the run is gone."]
    assert outline(history) == [("die", 1, INTERRUPTED, ("compute",))]
    (die,) = history.attempts
    assert (die.ended, die.error, failed_phases(die)) == (history.ended, None, ["compute"])
