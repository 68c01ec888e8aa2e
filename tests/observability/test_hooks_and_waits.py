"""Tests the seconds of hooks, of waits for pools and workers, and of lost processes."""

import logging

import dagster as dg
import pytest
from dagster import DagsterEventType as Event
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.handle import StepHandle
from opentelemetry.trace import StatusCode

from ledgerline.ledger.history import HookOutcome, Outcome, RunStatus
from ledgerline.mlflow_runs.timeline import timeline
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import attributes as names
from tests.observability.exported_spans import SECOND, spans_of, times_of
from tests.observability.histories import attempt_at, failed_phases
from tests.observability.timed_runs import ROUNDING, lengths, metrics, with_gaps

# Hooks


HOOK_EVENTS = {
    HookOutcome.COMPLETED: Event.HOOK_COMPLETED,
    HookOutcome.SKIPPED: Event.HOOK_SKIPPED,
    HookOutcome.ERRORED: Event.HOOK_ERRORED,
}


def test_hooks_have_their_seconds_and_outcomes(timed_runs: Recordings) -> None:
    # Dagster keeps the hooks of an op in a set: their order differs from process to process.
    order = [hook.outcome for hook in attempt_at(timed_runs["hooks"].history, "succeed").hooks]
    seconds = {outcome: float(index) for index, outcome in enumerate(order, start=1)}
    gaps = {("succeed", HOOK_EVENTS[outcome], 1): length for outcome, length in seconds.items()}
    history = with_gaps(timed_runs["hooks"], gaps)
    attempt = attempt_at(history, "succeed")
    assert attempt.outcome is Outcome.SUCCESS
    assert attempt.seconds == pytest.approx(0.0, abs=ROUNDING)  # the step is over before its hooks
    reported = {hook.outcome: (hook.name, round(hook.seconds, 4)) for hook in attempt.hooks}
    assert reported == {
        HookOutcome.COMPLETED: ("celebrate", seconds[HookOutcome.COMPLETED]),
        HookOutcome.SKIPPED: ("mourn", seconds[HookOutcome.SKIPPED]),
        HookOutcome.ERRORED: ("", seconds[HookOutcome.ERRORED]),  # Dagster does not record which it was
    }
    (errored,) = [hook for hook in attempt.hooks if hook.error is not None]
    assert errored.error is not None
    assert (errored.error.type, errored.error.message) == ("ConnectionError", "The pager does not answer.")

    spans = {
        span.name: span for span in spans_of(history) if (span.attributes or {}).get(names.STEP) == "succeed"
    }
    assert {name for name in spans if name.startswith("hook")} == {"hook", "hook celebrate"}
    failed = spans["hook"]
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "The pager does not answer.",
    )
    assert [event.name for event in failed.events] == ["exception"]
    started, ended = times_of(spans["hook celebrate"])
    assert (ended - started) / SECOND == pytest.approx(seconds[HookOutcome.COMPLETED], abs=ROUNDING)
    root = spans_of(history)[-1]
    assert spans["hook"].parent == spans["hook celebrate"].parent == root.context
    assert root.status.status_code is StatusCode.OK

    executed_seconds = seconds[HookOutcome.COMPLETED] + seconds[HookOutcome.ERRORED]
    assert metrics(history)["hook_seconds/succeed"] == pytest.approx(executed_seconds, abs=ROUNDING)
    assert metrics(history)["hooks_failed"] == 2  # and once more of the other step
    assert timeline(history).startswith(b"\x89PNG")


def test_a_hook_of_an_attempt_that_is_retried_belongs_to_that_attempt(timed_runs: Recordings) -> None:
    history = timed_runs["hooks"].history
    first, second = attempt_at(history, "fail_once", 1), attempt_at(history, "fail_once", 2)
    assert (first.outcome, {hook.outcome for hook in first.hooks}) == (Outcome.RETRY, {HookOutcome.SKIPPED})
    assert {hook.outcome for hook in second.hooks} == set(HookOutcome)


# Waits


def test_waiting_for_a_pool_is_a_phase_of_its_step(timed_runs: Recordings) -> None:
    history = with_gaps(
        timed_runs["pool"], {("query", Event.STEP_START, 1): 5.0, ("query", Event.STEP_SUCCESS, 1): 1.0}
    )
    assert history.status is RunStatus.SUCCESS
    query = attempt_at(history, "query")
    assert lengths(query) == [("wait for pool database", 5.0), ("compute", 1.0)]
    assert query.seconds == pytest.approx(6.0, abs=ROUNDING)
    assert metrics(history)["wait_seconds/query"] == pytest.approx(5.0, abs=ROUNDING)
    assert "wait_seconds/let_go" not in metrics(history)


def test_a_step_that_is_still_waiting_when_its_run_ends_was_interrupted(timed_runs: Recordings) -> None:
    records = timed_runs["pool"].records
    (start,) = [
        index
        for index, record in enumerate(records)
        if record.event_log_entry.step_key == "query"
        and record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type is Event.STEP_START
    ]
    history = timed_runs["pool"].history_of([*records[:start], records[-1]])
    query = attempt_at(history, "query")
    assert query.outcome is Outcome.INTERRUPTED
    assert [phase.name for phase in query.phases] == ["wait for pool database"]


@pytest.mark.parametrize("retried", [False, True])
def test_waiting_for_a_worker_of_celery_is_a_phase_of_its_step(timed_runs: Recordings, retried: bool) -> None:
    """The events are those that dagster-celery writes around a step."""
    recording = timed_runs["hooks"]
    step, number = ("fail_once", 2) if retried else ("succeed", 1)
    start = Event.STEP_RESTARTED if retried else Event.STEP_START
    (index,) = [
        index
        for index, record in enumerate(recording.records)
        if record.event_log_entry.step_key == step
        and record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type is start
    ]
    record = recording.records[index]
    waited = [
        record._replace(
            event_log_entry=record.event_log_entry._replace(
                timestamp=record.timestamp - seconds,
                dagster_event=queue_event(step, data),
            )
        )
        for seconds, data in (
            (25.0, EngineEventData(marker_start="celery_queue_wait")),
            (0.0, EngineEventData(marker_end="celery_queue_wait")),
        )
    ]
    records = [*recording.records[:index], *waited, *recording.records[index:]]
    attempt = attempt_at(recording.history_of(records), step, number)
    assert attempt.phases[0].name == "wait for a worker"
    assert attempt.phases[0].seconds == pytest.approx(25.0, abs=ROUNDING)


def queue_event(step: str, data: EngineEventData) -> dg.DagsterEvent:
    return dg.DagsterEvent(
        Event.ENGINE_EVENT.value,
        job_name="hooked",
        step_handle=StepHandle(NodeHandle(step, None), step),
        event_specific_data=data,
    )


# Lost processes


def test_a_step_that_its_executor_reports_as_lost_ends_before_its_run(timed_runs: Recordings) -> None:
    """A killed step on Celery leaves a message of the run's process; the run may go on for long."""
    records = list(timed_runs["outputs"].records)
    (start,) = [
        index
        for index, record in enumerate(records)
        if record.event_log_entry.step_key == "yield_both"
        and record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.event_type is Event.STEP_START
    ]
    entry = records[start].event_log_entry
    changed = entry._replace(
        dagster_event=None,
        step_key=None,
        level=logging.ERROR,
        user_message="Step yield_both finished without success or failure event. Downstream steps will not "
        "execute.",
        timestamp=entry.timestamp + 5.0,
    )
    message = records[start]._replace(event_log_entry=changed)
    others = [record for record in records[start + 1 :] if record.event_log_entry.step_key != "yield_both"]
    history = timed_runs["outputs"].history_of([*records[: start + 1], message, *others])
    attempt = attempt_at(history, "yield_both")
    assert attempt.outcome is Outcome.INTERRUPTED
    assert lengths(attempt) == [("compute", 5.0)]
    assert failed_phases(attempt) == ["compute"]
    assert attempt.error is not None
    assert attempt.error.type == "dagster.StepLost"
    by_the_step = message._replace(event_log_entry=changed._replace(step_key="yield_both"))
    unsaid = timed_runs["outputs"].history_of([*records[: start + 1], by_the_step, *others])
    assert attempt_at(unsaid, "yield_both").ended == unsaid.ended


def test_a_run_that_continued_in_another_process_is_marked(timed_runs: Recordings) -> None:
    recording = timed_runs["outputs"]
    record = recording.records[3]
    event = dg.DagsterEvent(
        Event.ENGINE_EVENT.value,
        job_name="outputs",
        message="Detected run worker status FAILED: 'gone'. Resuming run with a new worker.",
        event_specific_data=EngineEventData(),
    )
    found = record._replace(
        event_log_entry=record.event_log_entry._replace(dagster_event=event, step_key=None)
    )
    history = recording.history_of([*recording.records[:4], found, *recording.records[4:]])
    assert history.resumptions == (found.timestamp,)
    *_, root = spans_of(history)
    assert root.events[0].name == "run resumed"


@pytest.mark.parametrize("ended", [False, True])
def test_a_step_that_is_executed_again_without_a_retry_is_another_attempt(
    timed_runs: Recordings, ended: bool
) -> None:
    """Dask does so with steps of a worker that was lost, the succeeded ones too."""
    own = [
        record for record in timed_runs["outputs"].records if record.event_log_entry.step_key == "yield_both"
    ]
    first = own if ended else own[:3]
    later = [
        record._replace(event_log_entry=record.event_log_entry._replace(timestamp=record.timestamp + 100.0))
        for record in own
    ]
    history = timed_runs["outputs"].history_of([*first, *later])
    before, after = history.attempts
    assert [(each.number, each.outcome) for each in (before, after)] == [
        (1, Outcome.SUCCESS if ended else Outcome.INTERRUPTED),
        (2, Outcome.SUCCESS),
    ]
    assert after.started == later[0].timestamp
    assert before.error is None or before.error.type == "dagster.StepLost"
