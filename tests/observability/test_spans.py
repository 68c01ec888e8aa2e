"""Tests the spans of runs, made from their event logs in any portions."""

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
from opentelemetry.trace import StatusCode

from ledgerline.ledger import ids
from ledgerline.ledger.event_log import HistoryReader
from ledgerline.ledger.history import RunStatus
from ledgerline.ledger.links import Links
from ledgerline.testing.recordings import Recording, Recordings
from ledgerline.traces import attributes as names
from ledgerline.traces.spans import LISTED, SCOPE, run_spans
from tests.observability.exported_spans import (
    MICROSECOND,
    SECOND,
    Key,
    attempt_span,
    context_of,
    dicts_of,
    exceptions,
    key_of,
    path_of,
    root_of,
    spans_of,
    times_of,
    trace_of,
    whole,
)


def as_tuple(value: object) -> tuple[Any, ...]:
    assert isinstance(value, tuple)
    return value


# Every trace


def test_a_run_has_one_root_and_it_is_last(recording: Recording) -> None:
    trace = trace_of(recording)
    root = root_of(trace)
    assert root is trace[-1]
    assert key_of(root) == (ids.trace_id(recording.run.run_id), ids.run_span_id(recording.run.run_id))


def test_every_span_has_a_unique_id_and_an_existing_parent(recording: Recording) -> None:
    trace = trace_of(recording)
    keys = {key_of(span) for span in trace}
    assert len(keys) == len(trace)
    for span in trace:
        assert span.parent is None or (span.parent.trace_id, span.parent.span_id) in keys


def test_no_span_has_a_negative_duration_or_leaves_its_parent(recording: Recording) -> None:
    trace = trace_of(recording)
    by_key = {key_of(span): span for span in trace}
    for span in trace:
        started, ended = times_of(span)
        assert started <= ended
        if span.parent is not None:
            parent = times_of(by_key[span.parent.trace_id, span.parent.span_id])
            # A span from inside a step has nanoseconds, and a phase has the microseconds of the event log.
            assert parent[0] - MICROSECOND <= started
            assert ended <= parent[1] + MICROSECOND


def test_attempts_are_in_the_order_in_which_they_started(recording: Recording) -> None:
    started = [times_of(span)[0] for span in trace_of(recording) if names.OUTCOME in (span.attributes or {})]
    assert started == sorted(started)


def test_every_attempt_has_one_span_with_its_times_and_its_phases_below(recording: Recording) -> None:
    history, trace = recording.history, trace_of(recording)
    selected = [span for span in trace if names.OUTCOME in (span.attributes or {})]
    assert len(selected) == len(history.attempts)
    for attempt in history.attempts:
        span = attempt_span(trace, attempt.step, attempt.number)
        assert span.parent == root_of(trace).context
        assert attempt.ended is not None
        assert [time / SECOND for time in times_of(span)] == pytest.approx(
            [attempt.started, attempt.ended], abs=1e-6
        )
        below = [each.name for each in trace if each.parent == span.context]
        assert sorted(below) == sorted(phase.name for phase in attempt.phases)


def test_all_spans_are_sampled_and_have_the_scope_of_the_library(recording: Recording) -> None:
    described = Resource({"service.name": "tests"})
    for span in run_spans(recording.history, None, described, Links(), None):
        assert context_of(span).trace_flags.sampled
        assert span.resource is described
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name in (SCOPE.name, "ledgerline.steps")


def test_spans_without_success_are_errors_with_a_description(recording: Recording) -> None:
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
    """Return the new spans after each portion of the records."""
    reader = HistoryReader(recording.run)
    before, selected = None, []
    for start, end in pairwise([0, *sorted(cuts), len(records)]):
        reader.feed(records[start:end])
        now = reader.history()
        selected.append(spans_of(now, before))
        before = now
    return selected


def latest(spans: Sequence[ReadableSpan]) -> dict[Key, object]:
    """Return the last version of each span, as a backend stores them."""
    return {key_of(span): whole(span) for span in spans}


def test_the_spans_do_not_depend_on_the_portions_in_which_a_log_is_read(recording: Recording) -> None:
    records = recording.records
    at_once = latest(spans_of(recording.history))

    @settings(max_examples=12, deadline=None, database=None)
    @given(cuts=st.sets(st.integers(1, len(records))))
    def read_in_portions(cuts: set[int]) -> None:
        selected = [span for portion in in_portions(recording, records, cuts) for span in portion]
        assert latest(selected) == at_once
        assert len(selected) == len(at_once)
        assert selected[-1].parent is None

    read_in_portions()


def test_spans_of_a_process_that_continues_after_its_run_has_failed_are_updated(
    recording: Recording,
) -> None:
    records = recording.records

    @settings(max_examples=12, deadline=None, database=None)
    @given(given_up=st.integers(1, len(records)), cuts=st.sets(st.integers(1, len(records) + 1)))
    def give_up(given_up: int, cuts: set[int]) -> None:
        lost = [*records[:given_up], failure_after(records[given_up - 1]), *records[given_up:]]
        at_once = latest(spans_of(recording.history_of(lost)))
        seen: dict[Key, object] = {}
        for portion in in_portions(recording, lost, cuts):
            assert len({key_of(span) for span in portion}) == len(portion)
            assert root_id not in [key_of(span) for span in portion[:-1]]
            seen |= latest(portion)
        # A computation that was interrupted before it began is the one thing that cannot be taken back.
        assert {key: seen[key] for key in at_once} == at_once

    root_id = ids.trace_id(recording.run.run_id), ids.run_span_id(recording.run.run_id)
    give_up()


def failure_after(record: EventLogRecord) -> EventLogRecord:
    """Return the event of run monitoring that the run has failed."""
    entry = record.event_log_entry
    event = DagsterEvent(
        DagsterEventType.RUN_FAILURE.value, job_name=entry.job_name or "", message="Its process is gone."
    )
    # At another time, as no two events of a run are recorded at once.
    entry = entry._replace(dagster_event=event, step_key=None, timestamp=entry.timestamp + 1e-6)
    return record._replace(event_log_entry=entry)


def test_a_run_that_goes_on_has_no_root_yet(recorded: Recordings) -> None:
    recording = recorded["ops"]
    for end in range(len(recording.records)):
        history = recording.history_of(recording.records[:end])
        if not history.finished:
            assert all(span.parent is not None for span in spans_of(history))


# Whole traces


def test_spans_of_assets_have_rows_versions_and_processes(recorded: Recordings) -> None:
    selected = {
        (each["name"], each["attributes"].get("dagster.step.attempt")): each
        for each in dicts_of(recorded["processes"])
        if "attributes" in each and each.get("parent") in (None, "run fleet_job")
    }
    assert selected["planes", 1] == {
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
            "dagster.asset.data_versions": ["planes=<hash>@<run>"],
            "dagster.asset.code_version": "1",
            "dagster.asset.row_count": 3_322,
        },
    }
    assert selected["fleet", 1]["attributes"] == {
        "dagster.step.key": "fleet",
        "dagster.step.attempt": 1,
        "dagster.step.outcome": "success",
        "dagster.op.name": "fleet",
        "process.pid": "<pid>",
        "mlflow.spanType": "TASK",
        "dagster.asset.keys": ["fleet"],
        "dagster.asset.data_versions": ["fleet=<hash>"],
        "dagster.asset.read_versions": ["airlines=<hash>@<run>", "planes=<hash>@<run>"],
    }
    died = "dagster._core.executor.child_process_executor.ChildProcessCrashException"
    how = "Multiprocess executor: child process for step airlines unexpectedly exited with code 3."
    assert selected["airlines", 1] == {
        "name": "airlines",
        "parent": "run fleet_job",
        "attributes": {
            "dagster.step.key": "airlines",
            "dagster.step.attempt": 1,
            "dagster.step.outcome": "retry",
            "dagster.op.name": "airlines",
            "process.pid": "<pid>",
            "mlflow.spanType": "TASK",
            "error.type": died,
        },
        "status": "ERROR",
        "description": how,
        "events": [
            {
                "name": "exception",
                "exception.type": died,
                "exception.message": how,
                "exception.stacktrace": "...",
            }
        ],
    }
    assert selected["airlines", 2]["links"] == [("airlines", "previous attempt")]
    assert selected["airlines", 2]["attributes"]["dagster.asset.code_version"] == "2"
    assert selected["run fleet_job", None]["attributes"] == {
        "dagster.run.id": "<run>",
        "dagster.run.status": "SUCCESS",
        "dagster.job.name": "fleet_job",
        "dagster.asset.keys": ["planes", "airlines", "fleet"],
        "mlflow.spanType": "WORKFLOW",
        "mlflow.spanInputs": "fleet_job",
        "mlflow.spanOutputs": "SUCCESS: 3 steps, 3 materialisations",
    }


def test_partitions_written_by_one_step_are_attributes_of_its_span(recorded: Recordings) -> None:
    trace = trace_of(recorded["partitions"])
    flights = attempt_span(trace, "flights").attributes or {}
    assert sorted(as_tuple(flights[names.PARTITIONS])) == ["monday", "tuesday"]
    assert flights[names.ROWS] == 100 + 101
    assert flights[names.ASSETS] == ("flights",)
    delays = attempt_span(trace, "delays").attributes or {}
    assert sorted(as_tuple(delays[names.PARTITIONS])) == ["monday", "tuesday"]
    assert names.ROWS not in delays
    assert "weather=weather of 2013" in as_tuple(delays[names.READ_VERSIONS])
    root = root_of(trace)
    assert root.name == "run delays, flights, weather monday...tuesday"
    assert (root.attributes or {})[names.PARTITION] == "monday...tuesday"
    assert (root.attributes or {})[names.ASSETS] == ("flights", "weather", "delays")


def test_no_attribute_lists_more_partitions_than_backends_take(recorded: Recordings) -> None:
    history = recorded["partitions"].history
    (flights,) = [each for each in history.attempts if each.step == "flights"]
    days = [f"2013-{day:03}" for day in range(3 * LISTED)]
    written = tuple(
        replace(flights.materialisations[0], partition=day, data_version=day, is_of_code=False, rows=2)
        for day in days
    )
    history = replace(history, attempts=(replace(flights, materialisations=written),))
    selected = attempt_span(spans_of(history), "flights").attributes or {}
    assert selected[names.PARTITIONS] == tuple(days[:LISTED])
    assert selected[names.DATA_VERSIONS] == tuple(f"flights={day}" for day in days[:LISTED])
    assert selected[names.ROWS] == 3 * LISTED * 2


def test_the_spans_of_a_graph_name_the_op_of_each_step(recorded: Recordings) -> None:
    trace = trace_of(recorded["mapped"])
    assert (attempt_span(trace, "doubled.double[west]").attributes or {})[names.OP] == "doubled.double"


def test_steps_that_were_skipped_are_named(recorded: Recordings) -> None:
    root = root_of(trace_of(recorded["skipped"]))
    assert (root.attributes or {})[names.SKIPPED] == recorded["skipped"].history.skipped
    assert recorded["skipped"].history.skipped


def test_spans_of_a_step_are_below_its_computation(recorded: Recordings) -> None:
    trace = trace_of(recorded["traced"])
    paths = [path_of(span, trace) for span in trace if span.name in ("parse", "load seats")]
    assert paths == [
        ["run tracing", "read_planes", "compute", "read the table", "parse"],
        ["run tracing", "read_planes", "compute", "read the table", "parse"],
        ["run tracing", "count_seats", "compute", "load seats"],
    ]
    parsed = [span for span in trace if span.name == "parse"]
    assert [(span.attributes or {})[names.ATTEMPT] for span in parsed] == [1, 2]
