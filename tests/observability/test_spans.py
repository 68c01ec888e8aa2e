"""The spans made from the event logs of real runs: which there are, what they say, in any number of portions."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from dagster import DagsterEvent, DagsterEventType, EventLogRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode

from observability import attributes as names
from observability import ids, step_spans
from observability.event_log import HistoryReader
from observability.history import RecordedSpans, RunHistory, RunStatus
from observability.links import Links
from observability.spans import LISTED, SCOPE, backfill_span, caller_of, run_spans
from tests.observability.exported_spans import (
    Key,
    as_dicts,
    attempt_span,
    context_of,
    key_of,
    named,
    path_of,
    root_of,
    spans_of,
    times_of,
    whole,
)
from tests.observability.recorded_jobs import Recording, Recordings

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

MICROSECOND = 1000  # nanoseconds; what the event log's times are good for
SECOND = 1_000_000_000


def trace_of(recording: Recording) -> list[ReadableSpan]:
    """The trace of its run."""
    trace_id = ids.trace_id(recording.run.run_id)
    return [span for span in spans_of(recording.history) if context_of(span).trace_id == trace_id]


def tagged(recording: Recording, **tags: str) -> RunHistory:
    """Its history, had the run been launched with these tags, of Dagster where nothing else is said."""
    named_tags = {name if name == "traceparent" else f"dagster/{name}": tag for name, tag in tags.items()}
    return replace(recording.history, run=replace(recording.run, tags=named_tags))


def dicts(recording: Recording) -> list[dict[str, Any]]:
    return as_dicts(trace_of(recording), recording.run.run_id)


def links_of(span: ReadableSpan) -> list[tuple[int, int, object]]:
    return [
        (link.context.trace_id, link.context.span_id, (link.attributes or {})[names.LINK])
        for link in span.links
    ]


def exceptions(span: ReadableSpan) -> list[tuple[object, object]]:
    """Type and message of those that a span tells of."""
    told = [event.attributes or {} for event in span.events if event.name == "exception"]
    return [(each["exception.type"], each["exception.message"]) for each in told]


def stack_of(span: ReadableSpan) -> str:
    (stack,) = [
        (event.attributes or {})["exception.stacktrace"] for event in span.events if event.name == "exception"
    ]
    assert isinstance(stack, str)
    return stack


# Every trace


def test_a_run_has_one_root_and_it_comes_last(recording: Recording) -> None:
    trace = trace_of(recording)
    root = root_of(trace)
    assert root is trace[-1]
    assert key_of(root) == (ids.trace_id(recording.run.run_id), ids.run_span_id(recording.run.run_id))


def test_every_span_has_an_id_of_its_own_and_a_parent_that_exists(recording: Recording) -> None:
    trace = trace_of(recording)
    keys = {key_of(span) for span in trace}
    assert len(keys) == len(trace)
    for span in trace:
        assert span.parent is None or (span.parent.trace_id, span.parent.span_id) in keys


def test_no_span_takes_less_than_no_time_or_leaves_its_parent(recording: Recording) -> None:
    trace = trace_of(recording)
    by_key = {key_of(span): span for span in trace}
    for span in trace:
        started, ended = times_of(span)
        assert started <= ended
        if span.parent is not None:
            parent = times_of(by_key[span.parent.trace_id, span.parent.span_id])
            # What a step traces has the clock's nanoseconds, its phases the event log's microseconds.
            assert parent[0] - MICROSECOND <= started
            assert ended <= parent[1] + MICROSECOND


def test_attempts_come_in_the_order_in_which_they_started(recording: Recording) -> None:
    started = [times_of(span)[0] for span in trace_of(recording) if names.OUTCOME in (span.attributes or {})]
    assert started == sorted(started)


def test_every_attempt_has_one_span_with_its_times_and_its_phases_below(recording: Recording) -> None:
    history, trace = recording.history, trace_of(recording)
    told = [span for span in trace if names.OUTCOME in (span.attributes or {})]
    assert len(told) == len(history.attempts)
    for attempt in history.attempts:
        span = attempt_span(trace, attempt.step, attempt.number)
        assert span.parent == root_of(trace).context
        assert attempt.ended is not None
        assert [time / SECOND for time in times_of(span)] == pytest.approx(
            [attempt.started, attempt.ended], abs=1e-6
        )
        below = [each.name for each in trace if each.parent == span.context]
        assert sorted(below) == sorted(phase.name for phase in attempt.phases)


def test_all_spans_are_sampled_and_say_who_made_them(recording: Recording) -> None:
    described = Resource({"service.name": "tests"})
    for span in run_spans(recording.history, None, described, Links(), None):
        assert context_of(span).trace_flags.sampled
        assert span.resource is described
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name in (SCOPE.name, "ledgerline.steps")


def test_what_did_not_succeed_is_an_error_and_says_why(recording: Recording) -> None:
    history, trace = recording.history, trace_of(recording)
    assert (root_of(trace).status.status_code is StatusCode.ERROR) == (
        history.status is not RunStatus.SUCCESS
    )
    failed = [attempt_span(trace, each.step, each.number) for each in history.attempts if each.failed]
    if history.status is not RunStatus.SUCCESS:
        failed.append(root_of(trace))
    for span in failed:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description
        exception = span.events[-1]
        assert exception.name == "exception"
        assert set(exception.attributes or {}) == {
            "exception.type",
            "exception.message",
            "exception.stacktrace",
        }
        assert (exception.attributes or {})["exception.type"]
    for attempt in history.attempts:
        if not attempt.failed:
            span = attempt_span(trace, attempt.step, attempt.number)
            assert span.status.status_code is StatusCode.OK
            assert not exceptions(span)


# In portions


def in_portions(
    recording: Recording, records: Sequence[EventLogRecord], cuts: set[int]
) -> list[list[ReadableSpan]]:
    """What is new after each portion of the records."""
    reader = HistoryReader(recording.run)
    before, told = None, []
    for start, end in pairwise([0, *sorted(cuts), len(records)]):
        reader.feed(records[start:end])
        now = reader.history()
        told.append(spans_of(now, before))
        before = now
    return told


def latest(spans: Sequence[ReadableSpan]) -> dict[Key, object]:
    """What a backend has in the end: the last that came of each."""
    return {key_of(span): whole(span) for span in spans}


def test_in_whatever_portions_a_log_is_read_the_same_spans_come_once(recording: Recording) -> None:
    records = recording.records
    at_once = latest(spans_of(recording.history))

    @settings(max_examples=20, deadline=None, database=None)
    @given(cuts=st.sets(st.integers(1, len(records))))
    def read_in_portions(cuts: set[int]) -> None:
        told = [span for portion in in_portions(recording, records, cuts) for span in portion]
        assert latest(told) == at_once
        assert len(told) == len(at_once)
        assert told[-1].parent is None

    read_in_portions()


def test_a_process_that_goes_on_after_its_run_was_given_up_on_is_told_of_in_the_end(
    recording: Recording,
) -> None:
    records = recording.records

    @settings(max_examples=20, deadline=None, database=None)
    @given(given_up=st.integers(1, len(records)), cuts=st.sets(st.integers(1, len(records) + 1)))
    def give_up(given_up: int, cuts: set[int]) -> None:
        lost = [*records[:given_up], failure_after(records[given_up - 1]), *records[given_up:]]
        at_once = latest(spans_of(recording.history_of(lost)))
        seen: dict[Key, object] = {}
        for portion in in_portions(recording, lost, cuts):
            assert len({key_of(span) for span in portion}) == len(portion)
            assert root_id not in [key_of(span) for span in portion[:-1]]
            for span in portion:
                assert seen.get(key_of(span)) != whole(span), "the same was told twice"
            seen |= latest(portion)
        # A computation that was interrupted before it began is the one thing that cannot be taken back.
        assert {key: seen[key] for key in at_once} == at_once

    root_id = ids.trace_id(recording.run.run_id), ids.run_span_id(recording.run.run_id)
    give_up()


def failure_after(record: EventLogRecord) -> EventLogRecord:
    """That the run has failed, as whoever monitors runs says it."""
    entry = record.event_log_entry
    event = DagsterEvent(
        DagsterEventType.RUN_FAILURE.value, job_name=entry.job_name or "", message="Its process is gone."
    )
    entry = entry._replace(dagster_event=event, step_key=None)
    return record._replace(event_log_entry=entry)


def test_a_run_that_goes_on_has_no_root_yet(recorded: Recordings) -> None:
    recording = recorded["ops"]
    for end in range(len(recording.records)):
        history = recording.history_of(recording.records[:end])
        if not history.finished:
            assert all(span.parent is not None for span in spans_of(history))


# Whole traces


def test_a_run_of_two_ops_is_told_as_a_whole(recorded: Recordings) -> None:
    def phase(name: str, step: str) -> dict[str, Any]:
        attributes = {"dagster.step.key": step, "dagster.step.attempt": 1}
        return {"name": name, "parent": step, "attributes": attributes}

    def step(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "parent": "run counting",
            "attributes": {
                "dagster.step.key": name,
                "dagster.step.attempt": 1,
                "dagster.step.outcome": "success",
                "dagster.op.name": name,
                "mlflow.spanType": "TASK",
            },
        }

    assert dicts(recorded["ops"]) == [
        phase("compute", "fetch"),
        phase("store result", "fetch"),
        step("fetch"),
        phase("load rows", "count"),
        phase("compute", "count"),
        phase("store result", "count"),
        step("count"),
        {"name": "launch", "parent": "run counting"},
        {"name": "resources", "parent": "run counting"},
        {
            "name": "run counting",
            "attributes": {
                "dagster.run.id": "<run>",
                "dagster.run.status": "SUCCESS",
                "dagster.job.name": "counting",
                "mlflow.spanType": "WORKFLOW",
                "mlflow.spanInputs": "counting",
                "mlflow.spanOutputs": "SUCCESS: 2 steps, 0 materialisations",
            },
        },
    ]


def test_assets_are_told_with_their_rows_versions_and_processes(recorded: Recordings) -> None:
    told = {
        (each["name"], each["attributes"].get("dagster.step.attempt")): each
        for each in dicts(recorded["processes"])
        if each.get("parent") in (None, "run fleet_job")
    }
    assert told["planes", 1] == {
        "name": "planes",
        "parent": "run fleet_job",
        "attributes": {
            "dagster.step.key": "planes",
            "dagster.step.attempt": 1,
            "dagster.step.outcome": "success",
            "dagster.op.name": "planes",
            "process.pid": "<pid>",
            "mlflow.spanType": "TASK",
            "dagster.asset.keys": ["planes"],
            "dagster.asset.data_versions": ["planes=<hash>"],
            "dagster.asset.code_version": "1",
            "dagster.asset.row_count": 3_322,
        },
    }
    assert told["fleet", 1]["attributes"] == {
        "dagster.step.key": "fleet",
        "dagster.step.attempt": 1,
        "dagster.step.outcome": "success",
        "dagster.op.name": "fleet",
        "process.pid": "<pid>",
        "mlflow.spanType": "TASK",
        "dagster.asset.keys": ["fleet"],
        "dagster.asset.data_versions": ["fleet=<hash>"],
        "dagster.asset.read_versions": ["airlines=<hash>", "planes=<hash>"],
    }
    message = "Multiprocess executor: child process for step airlines unexpectedly exited with code 3"
    crashed = told["airlines", 1]
    assert crashed["attributes"]["dagster.step.outcome"] == "retry"
    assert crashed["status"] == "ERROR"
    assert crashed["description"].startswith(message)
    (event,) = crashed["events"]
    assert event["exception.type"] == crashed["attributes"]["error.type"]
    assert event["exception.type"].endswith("ChildProcessCrashException")
    assert told["airlines", 2]["links"] == [("airlines", "previous attempt")]
    assert told["run fleet_job", None]["attributes"] == {
        "dagster.run.id": "<run>",
        "dagster.run.status": "SUCCESS",
        "dagster.job.name": "fleet_job",
        "dagster.asset.keys": ["planes", "airlines", "fleet"],
        "mlflow.spanType": "WORKFLOW",
        "mlflow.spanInputs": "fleet_job",
        "mlflow.spanOutputs": "SUCCESS: 3 steps, 3 materialisations",
    }


def test_checks_are_counted_and_told_one_by_one(recorded: Recordings) -> None:
    trace = trace_of(recorded["checks"])
    told = {
        step: as_dicts([attempt_span(trace, step)], recorded["checks"].run.run_id)
        for step in ("checked_unique_key", "checked_plausible_values")
    } if False else {}
    assert not told
    steps = {each["name"]: each for each in dicts(recorded["checks"])}
    checked, plausible, unique = (
        steps[name] for name in ("checked", "checked_plausible_values", "checked_unique_key")
    )
    counts = [
        (each["attributes"]["dagster.checks.passed"], each["attributes"]["dagster.checks.failed"])
        for each in (checked, plausible, unique)
    ]
    assert counts == [(1, 0), (0, 1), (0, 1)]
    check = {"name": "asset check", "dagster.asset.key": "checked"}
    assert checked["events"] == [
        check
        | {
            "dagster.check.name": "has_rows",
            "dagster.check.passed": True,
            "dagster.check.severity": "ERROR",
            "description": "3 rows",
        }
    ]
    assert plausible["events"] == [
        check
        | {
            "dagster.check.name": "plausible_values",
            "dagster.check.passed": False,
            "dagster.check.severity": "WARN",
        }
    ]
    assert "status" not in plausible
    assert unique["status"] == "ERROR"
    assert [event["name"] for event in unique["events"]] == ["asset check", "exception"]
    root = steps["run __ephemeral_asset_job__"]
    assert root["attributes"]["mlflow.spanOutputs"] == "FAILURE: checked_unique_key"
