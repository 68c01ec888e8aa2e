"""Tests that spans from inside steps are stored in the event log, and never fail a step."""

import json
import threading
from typing import Any

import dagster as dg
import pytest
from opentelemetry.trace import StatusCode

from ledgerline.dagster.tracing import OTelResource
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import ATTEMPT_METADATA, SPANS_METADATA
from ledgerline.traces import attributes as names
from ledgerline.traces.step_tracing import EVENT_BYTES, SPANS_AT_ONCE, SPANS_PER_ATTEMPT
from tests.observability.exported_spans import attempt_span, named
from tests.observability.step_spans import WAIT_SECONDS, own, paths, run_of

pytestmark = pytest.mark.usefixtures("unused_opentelemetry")

MANY = 2 * SPANS_PER_ATTEMPT


def events_with_spans(instance: dg.DagsterInstance) -> list[dg.DagsterEvent]:
    (run,) = instance.get_runs()
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
    return [
        event
        for event in events
        if event is not None and event.is_engine_event and SPANS_METADATA in event.engine_event_data.metadata
    ]


def stored_in(event: dg.DagsterEvent) -> list[Any]:
    """The spans in an event."""
    spans = event.engine_event_data.metadata[SPANS_METADATA].value
    assert isinstance(spans, list)
    return list(spans)


# The event log


def test_spans_are_one_engine_event_of_their_step(instance: dg.DagsterInstance) -> None:
    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def fetch(context: dg.OpExecutionContext, otel: OTelResource) -> None:
        with otel.span("read"), otel.span("parse"):
            if context.retry_number == 0:
                raise ConnectionError("nobody answers")

    run_of(instance, fetch)
    first, second = events_with_spans(instance)
    for attempt, event in enumerate((first, second), start=1):
        assert (event.step_key, event.job_name) == ("fetch", "tracing")
        assert event.message == "fetch recorded 2 spans."
        assert [span["name"] for span in stored_in(event)] == ["parse", "read"]
        metadata = event.engine_event_data.metadata
        assert metadata[ATTEMPT_METADATA] == dg.MetadataValue.int(attempt)
        assert set(metadata) == {SPANS_METADATA, ATTEMPT_METADATA}
        assert event.engine_event_data.error is None


def test_a_step_that_traces_nothing_adds_nothing_to_the_event_log(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None: ...

    assert own(run_of(instance, fetch)) == []
    assert events_with_spans(instance) == []


def test_spans_are_in_the_event_log_while_the_step_goes_on(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(context: dg.OpExecutionContext, otel: OTelResource) -> None:
        with otel.span("read"):
            pass
        written, tick = threading.Event(), threading.Event()
        for _ in range(WAIT_SECONDS * 10):
            if events_with_spans(context.instance):
                written.set()
                break
            tick.wait(0.1)
        assert written.is_set()

    assert paths(run_of(instance, fetch)) == ["fetch > compute > read"]


def test_no_more_spans_of_an_attempt_are_kept_than_the_event_log_is_for(
    instance: dg.DagsterInstance,
) -> None:
    recording: list[bool] = []

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def fetch(context: dg.OpExecutionContext, otel: OTelResource) -> None:
        if context.retry_number == 1:
            with otel.span("read once more"):
                return
        with otel.span("all"):
            for _ in range(MANY):
                with otel.span("one") as one:
                    recording.append(one.is_recording())
        with otel.span("too many") as too_many, otel.span("below"):
            assert otel.environment()["TRACEPARENT"].endswith(
                f"{ids.phase_span_id(context.run_id, 'fetch', 1, 'compute'):016x}-01"
            )
            assert not too_many.is_recording()
        raise ConnectionError("nobody answers")

    spans = run_of(instance, fetch)
    kept = own(spans)
    assert len(kept) == SPANS_PER_ATTEMPT + 1
    # The outer span is recorded, although it ends last.
    around = named(kept, "all")
    assert all(span.parent == around.context for span in kept if span.name == "one")
    assert recording == [True] * (SPANS_PER_ATTEMPT - 1) + [False] * (MANY - SPANS_PER_ATTEMPT + 1)
    named(kept, "read once more")

    events = events_with_spans(instance)
    assert max(len(stored_in(event)) for event in events) <= SPANS_AT_ONCE
    limit = f" Further spans are dropped: the limit is {SPANS_PER_ATTEMPT} for one attempt."
    names_limit = [limit in (event.message or "") for event in events]
    assert names_limit.count(True) == 1
    assert names_limit.index(True) < len(names_limit) - 1


def test_a_span_with_too_many_attributes_is_kept_with_those_that_were_set_last(
    instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read") as span, otel.span("below"):
            span.set_attributes({f"column {number}": number for number in range(200)})

    spans = run_of(instance, fetch)
    assert paths(spans) == ["fetch > compute > read", "fetch > compute > read > below"]
    assert len(named(spans, "read").attributes or {}) == 128


def test_large_spans_are_cut_and_need_more_events_of_the_log(
    instance: dg.DagsterInstance,
) -> None:
    rows = [f"row {number}" for number in range(20_000)]

    @dg.op
    def fetch(otel: OTelResource) -> None:
        for number in range(10):
            with otel.span(f"read {number}") as span:
                span.set_attributes({f"prompt {each}": str(each) * 100_000 for each in range(20)})
                span.set_attributes({"rows": rows, "count": 10**5_000, "bytes": bytes(10**6), "none": None})

    spans = run_of(instance, fetch)
    assert len(own(spans)) == 10
    events = events_with_spans(instance)
    sizes = [len(json.dumps(stored_in(event))) for event in events]
    assert len(sizes) > 1
    assert max(sizes) < 2 * EVENT_BYTES
    attributes = named(spans, "read 3").attributes or {}
    assert attributes["count"] == "an integer of 16,610 bits"
    assert "none" not in attributes
    assert any(str(cut).startswith("rows: ") for cut in attributes[names.CUT])  # pyright: ignore


# Nothing that goes wrong here fails a step


def test_an_event_log_that_refuses_spans_does_not_fail_the_step(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object, **named_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    @dg.op
    def fetch(otel: OTelResource) -> None:
        monkeypatch.setattr(instance, "report_engine_event", full)
        with otel.span("read"):
            pass

    spans = run_of(instance, fetch)
    assert attempt_span(spans, "fetch").status.status_code is StatusCode.OK
    assert own(spans) == []
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),  # less than one batch
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-5"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "soon"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "nonsense"),
    ],
)
def test_a_variable_with_a_value_that_cannot_be_used_does_not_fail_the_step(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read", rows=1, columns=2):
            pass

    own_settings = OTelResource(endpoint=f"http://{name.lower()}.{value}.example")
    assert paths(run_of(instance, fetch, otel=own_settings)) == ["fetch > compute > read"]


def test_opentelemetry_switched_off_as_a_whole_does_not_fail_the_step(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read") as read, otel.span("parse"):
            assert not read.is_recording()

    spans = run_of(instance, fetch, otel=OTelResource(endpoint="http://off.example"))
    assert attempt_span(spans, "fetch").status.status_code is StatusCode.OK
    assert own(spans) == []
