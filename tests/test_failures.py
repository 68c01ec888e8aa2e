"""Tests that errors of the library become failures of Dagster in one place."""

import dagster as dg
import pytest

from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.errors import LedgerlineError

RETRIES = dg.RetryPolicy(max_retries=2)


class _AwayError(LedgerlineError):
    is_transient = True


def step_failures(error: Exception, *passing: type[LedgerlineError]) -> list[dg.DagsterEvent]:
    """Run a step with a retry policy that raises an error in each attempt; return its failures."""

    @dg.op(retry_policy=RETRIES)
    @permanent_failures(*passing)
    def predict() -> None:
        raise error

    @dg.job
    def score() -> None:
        predict()

    result = score.execute_in_process(raise_on_error=False)
    return [event for event in result.all_events if event.is_step_failure or event.is_step_up_for_retry]


def test_an_error_of_the_library_fails_its_step_at_once_with_problem_and_remedy() -> None:
    (failure,) = step_failures(LedgerlineError("There is no version 7.", "Choose one that exists."))

    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert data.description == "There is no version 7. Choose one that exists."
    assert {label: value.value for label, value in data.metadata.items()} == {
        "problem": "There is no version 7.",
        "remedy": "Choose one that exists.",
    }


def test_a_transient_error_is_retried() -> None:
    events = step_failures(_AwayError("The server does not answer."))
    assert [event.is_step_up_for_retry for event in events] == [True, True, False]


def test_an_error_that_the_caller_handles_passes_unchanged() -> None:
    class _RefusedError(LedgerlineError):
        pass

    with pytest.raises(_RefusedError), permanent_failures(_RefusedError):
        raise _RefusedError("The version broke a rule.")


def test_a_failure_stays_the_same() -> None:
    failure = PermanentFailure("The table sales is not stored.", "Materialise it first.")
    with pytest.raises(PermanentFailure) as raised, permanent_failures():
        raise failure
    assert raised.value is failure


def test_an_exception_of_another_library_passes_unchanged() -> None:
    with pytest.raises(KeyError), permanent_failures():
        raise KeyError("sales")


def test_a_failure_has_no_secrets() -> None:
    with pytest.raises(PermanentFailure) as raised, permanent_failures():
        raise LedgerlineError("postgresql://me:hunter2@db/x does not answer.", "Check password=hunter2.")
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in str(raised.value.metadata)


def test_a_failure_is_an_error_of_the_library_with_problem_and_remedy() -> None:
    failure = PermanentFailure("The table sales is not stored.")
    assert isinstance(failure, LedgerlineError)
    assert (failure.problem, failure.remedy) == ("The table sales is not stored.", "")
    assert str(failure) == "The table sales is not stored."
