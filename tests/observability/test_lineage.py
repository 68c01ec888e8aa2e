"""Tests the OpenLineage events of runs and of their steps: states, times, errors, parents, facets."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from openlineage.client.event_v2 import RunEvent, RunState
from openlineage.client.serde import Serde

from ledgerline.ledger import ids
from ledgerline.ledger.history import Error, Outcome, Run, RunHistory, RunStatus
from ledgerline.lineage.events import PRODUCER, run_events
from ledgerline.testing.recordings import Recording, Recordings
from tests.observability.lineage_events import (
    ABORT,
    COMPLETE,
    CREATED,
    FAIL,
    NAMESPACE,
    START,
    STATIONS_INPUT,
    as_sent,
    event_of,
    history_of,
    made_up,
    timestamp,
)
from tests.observability.lineage_jobs import break_down


@pytest.fixture(scope="module")
def breakdown(weather_instance: dg.DagsterInstance) -> RunHistory:
    """A run that fails."""
    run = break_down.execute_in_process(instance=weather_instance, raise_on_error=False)
    return history_of(weather_instance, run.run_id)


def states_of(events: Sequence[RunEvent]) -> list[tuple[str, RunState | None]]:
    return [(event.job.name, event.eventType) for event in events]


def facets_of(event: RunEvent) -> Iterator[tuple[str, dict[str, Any]]]:
    """All facets of an event as they are sent, with their names."""
    sent = json.loads(Serde.to_json(event))
    datasets = [*sent["inputs"], *sent["outputs"]]
    for part in (sent["run"], sent["job"], *datasets):
        yield from part["facets"].items()
    for dataset in datasets:
        yield from dataset.get("inputFacets", {}).items()
        yield from dataset.get("outputFacets", {}).items()


# Runs and attempts


def test_a_run_and_each_attempt_at_its_steps_start_and_end_in_order(weather: RunHistory) -> None:
    events = run_events(weather, NAMESPACE)
    assert states_of(events)[0] == ("observe_weather", START)
    assert states_of(events)[-1] == ("observe_weather", COMPLETE)
    assert sorted(states_of(events)[1:-1], key=lambda states_of: states_of[0]) == [
        ("observe_weather.forecast", START),
        ("observe_weather.forecast", FAIL),
        ("observe_weather.forecast", START),
        ("observe_weather.forecast", COMPLETE),
        ("observe_weather.hottest_and_report", START),
        ("observe_weather.hottest_and_report", COMPLETE),
        ("observe_weather.readings", START),
        ("observe_weather.readings", COMPLETE),
        ("observe_weather.stations", START),
        ("observe_weather.stations", COMPLETE),
        ("observe_weather.stations_stations_are_unique", START),
        ("observe_weather.stations_stations_are_unique", COMPLETE),
    ]
    times = [timestamp(event) for event in events]
    assert times == sorted(times)
    assert times[0] == pytest.approx(weather.started, abs=1e-5)
    assert times[-1] == pytest.approx(weather.ended, abs=1e-5)


def test_a_retry_is_another_run_of_the_same_job(weather: RunHistory) -> None:
    failed = event_of(weather, "observe_weather.forecast", FAIL)
    succeeded = event_of(weather, "observe_weather.forecast", COMPLETE)
    assert failed.run.runId != succeeded.run.runId
    first, second = as_sent(failed), as_sent(succeeded)
    assert first["run"]["facets"]["errorMessage"]["message"] == (
        "ConnectionError: The weather service is busy."
    )
    assert first["run"]["facets"]["ledgerline_run"]["attempt"] == 1
    assert second["run"]["facets"]["ledgerline_run"]["attempt"] == 2
    assert first["outputs"] == []
    assert [dataset["name"] for dataset in second["outputs"]] == ["forecast"]
    assert second["inputs"] == [STATIONS_INPUT]


def test_a_failed_step_and_its_run_have_the_error(breakdown: RunHistory) -> None:
    for job in ("break_down.broken", "break_down"):
        error = as_sent(event_of(breakdown, job, FAIL))["run"]["facets"]["errorMessage"]
        assert error["message"] == "RuntimeError: Not a reading."
        assert error["programmingLanguage"] == "python"
        stack = error["stackTrace"]
        assert stack.count('raise RuntimeError("Not a reading.") from error') == 1
        assert stack.count("Caused by ValueError: invalid literal for int() with base 10: 'seven'") == 1
        assert stack.endswith('int("seven")')


def test_a_run_without_a_cause_of_its_own_has_the_error_of_the_first_failed_step(
    recorded: Recordings,
) -> None:
    history = recorded["errors"].history
    knows_little = replace(history, error=Error("dagster.RunFailure", "Steps failed: 4.", stack=""))
    error = as_sent(event_of(knows_little, "failing", FAIL))["run"]["facets"]["errorMessage"]
    assert error["message"] == "dagster.RunFailure: Steps failed: 4."
    causes = [line for line in error["stackTrace"].splitlines() if line.startswith("Caused by ")]
    assert [cause.split(":")[0] for cause in causes] == [
        "Caused by RuntimeError",
        "Caused by ValueError",
        "Caused by KeyError",
    ]


def test_a_retry_that_helped_is_not_the_reason_of_the_failed_run(recorded: Recordings) -> None:
    history = recorded["retries"].history
    knows_little = replace(history, error=Error("dagster.RunFailure", "Steps failed: 1.", stack=""))
    error = as_sent(event_of(knows_little, "retrying", FAIL))["run"]["facets"]["errorMessage"]
    assert "in fail_always" in error["stackTrace"]
    assert "in ask_for_a_retry" not in error["stackTrace"]


def test_the_version_of_the_code_is_a_facet_where_an_asset_declares_one(weather: RunHistory) -> None:
    facet = as_sent(event_of(weather, "observe_weather.stations"))["run"]["facets"]["ledgerline_run"]
    assert facet["code_versions"] == [{"asset": "stations", "code_version": "2"}]


def test_the_mlflow_run_is_a_facet_where_it_is_known(weather: RunHistory) -> None:
    for event in run_events(weather, NAMESPACE, mlflow_run_id="abc"):
        assert as_sent(event)["run"]["facets"]["ledgerline_run"]["mlflow_run_id"] == "abc"


def test_a_run_executed_again_has_the_run_before_it_as_parent(
    weather_instance: dg.DagsterInstance, breakdown: RunHistory
) -> None:
    first = breakdown.run.run_id
    again = weather_instance.create_run_for_job(break_down, parent_run_id=first, root_run_id=first)
    execute_run(InMemoryJob(break_down), again, weather_instance)
    history = history_of(weather_instance, again.run_id)
    of_run = as_sent(event_of(history, "break_down", START))["run"]["facets"]["parent"]
    of_step = as_sent(event_of(history, "break_down.broken", START))["run"]["facets"]["parent"]
    assert of_run["run"]["runId"] == first
    assert of_step["run"]["runId"] == again.run_id
    for parent in (of_run, of_step):
        assert parent["job"]["name"] == "break_down"
        assert parent["root"]["run"]["runId"] == first
        assert parent["root"]["job"]["name"] == "break_down"


# Any run


def test_events_during_a_run_equal_those_of_its_whole_history(recording: Recording) -> None:
    """Record by record, each event once, and with the same words."""
    at_once = run_events(recording.history, NAMESPACE)
    by_and_by: list[RunEvent] = []
    before = None
    for read in range(1, len(recording.records) + 1):
        now = recording.history_of(recording.records[:read])
        by_and_by += run_events(now, NAMESPACE, before=before)
        before = now
    last_words = {(event.run.runId, event.eventType == START): event for event in by_and_by}
    assert sorted(last_words.values(), key=str) == sorted(at_once, key=str)
    assert by_and_by[0] == at_once[0]
    assert run_events(recording.history, NAMESPACE, before=recording.history) == []


def test_each_run_of_openlineage_starts_once_and_ends_once(recording: Recording) -> None:
    events = run_events(recording.history, NAMESPACE)
    starts = [event.run.runId for event in events if event.eventType == START]
    ends = [event.run.runId for event in events if event.eventType != START]
    assert len(set(starts)) == len(starts) == 1 + len(recording.history.attempts)
    assert sorted(starts) == sorted(ends)
    assert all(str(UUID(run_id)) == run_id for run_id in starts)


def test_the_same_history_has_the_same_events(recording: Recording) -> None:
    states_of, again = (
        [Serde.to_json(event) for event in run_events(recording.history, NAMESPACE)] for _ in range(2)
    )
    assert states_of == again


def test_every_event_and_facet_has_its_producer_and_its_schema(recording: Recording) -> None:
    for event in run_events(recording.history, NAMESPACE):
        assert event.producer == PRODUCER
        for name, facet in facets_of(event):
            assert facet["_producer"] == PRODUCER
            kind = (
                "urn:ledgerline:facet:" if name.startswith("ledgerline_") else "https://openlineage.io/spec/"
            )
            assert facet["_schemaURL"].startswith(kind)
            assert not facet["_schemaURL"].endswith("BaseFacet")


def test_the_producer_of_others_in_the_same_process_stays_theirs(weather: RunHistory) -> None:
    from openlineage.client.facet_v2 import processing_engine_run

    run_events(weather, NAMESPACE)
    facet = processing_engine_run.ProcessingEngineRunFacet("1.0")
    assert facet._producer != PRODUCER


def test_a_step_whose_run_was_killed_failed_and_one_whose_run_was_canceled_was_aborted(
    recorded: Recordings,
) -> None:
    history = recorded["killed"].history
    [attempt] = [attempt for attempt in history.attempts if attempt.outcome is Outcome.INTERRUPTED]
    for status, state in ((RunStatus.FAILURE, FAIL), (RunStatus.CANCELED, ABORT), (RunStatus.SUCCESS, ABORT)):
        ended = replace(history, status=status)
        event = event_of(ended, f"{history.run.job}.{attempt.step}", FAIL, ABORT)
        assert event.eventType == state
        error = as_sent(event)["run"]["facets"]["errorMessage"]
        assert error["message"].startswith("dagster.StepInterrupted: The run ended before this step did.")


@pytest.mark.parametrize("name", ["canceled", "canceled in a process"])
def test_a_step_that_was_stopped_with_its_run_was_aborted(recorded: Recordings, name: str) -> None:
    history = recorded[name].history
    ends = {event.job.name: event.eventType for event in run_events(history, NAMESPACE)}
    assert ends[history.run.job] == ABORT
    assert ends[f"{history.run.job}.cancel_the_run"] == ABORT


def test_a_run_that_was_canceled_in_the_queue_has_begun_when_it_was_created(recorded: Recordings) -> None:
    history = recorded["canceled in the queue"].history
    start, end = run_events(history, NAMESPACE)
    assert (start.eventType, end.eventType) == (START, ABORT)
    assert timestamp(start) == pytest.approx(history.run.created, abs=1e-5)
    assert timestamp(end) == pytest.approx(history.ended, abs=1e-5)


def test_a_run_that_waits_has_no_events() -> None:
    waiting = RunHistory(Run("0a6b7cb8-9a3f-4f0e-8f4b-3d8a5a1d2c11", "train", CREATED), enqueued=CREATED + 1)
    assert run_events(waiting, NAMESPACE) == []
    started = replace(waiting, started=CREATED + 60)
    assert states_of(run_events(started, NAMESPACE, before=waiting)) == [("train", START)]


def test_a_run_id_that_is_not_a_uuid_becomes_the_trace_id() -> None:
    history = made_up(run_id="nightly-7")
    event = event_of(history, "train")
    assert event.run.runId == str(UUID(int=ids.trace_id("nightly-7")))
    assert as_sent(event)["run"]["facets"]["ledgerline_run"]["dagster_run_id"] == "nightly-7"
