"""Spans from inside steps belong to the right step, are written to the event log, and never harm the step."""

import asyncio
import contextvars
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode
from opentelemetry.util._once import Once

from ledgerline.dagster.tracing import TRACER, OTelResource
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import ATTEMPT_METADATA, SPANS_METADATA, read_history
from ledgerline.traces import attributes as names
from ledgerline.traces.step_tracing import EVENT_BYTES, SPANS_AT_ONCE, SPANS_PER_ATTEMPT, StepTracerProvider
from ledgerline.traces.telemetry import Telemetry
from tests.observability.exported_spans import (
    as_dicts,
    attempt_span,
    context_of,
    key_of,
    named,
    path_of,
    spans_of,
    times_of,
)

MANY = 2 * SPANS_PER_ATTEMPT
WAIT_SECONDS = 120


@pytest.fixture(autouse=True)
def unused_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry as it is in a process that has no tracer provider yet; each process can set it once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


def run_of(instance: dg.DagsterInstance, *ops: dg.OpDefinition, **resources: Any) -> list[ReadableSpan]:
    """The trace of a run of these ops, one after the other, in this process."""

    @dg.job(resource_defs={"otel": OTelResource()} | resources, executor_def=dg.in_process_executor)
    def tracing() -> None:
        done = None
        for op in ops:
            done = op() if done is None else op(start=done)

    return trace_of(instance, tracing.execute_in_process(instance=instance, raise_on_error=False).run_id)


def assets_of(instance: dg.DagsterInstance, *assets: Any, **resources: Any) -> list[ReadableSpan]:
    result = dg.materialize(
        assets, instance=instance, resources={"otel": OTelResource()} | resources, raise_on_error=False
    )
    return trace_of(instance, result.run_id)


def trace_of(instance: dg.DagsterInstance, run_id: str) -> list[ReadableSpan]:
    history = read_history(instance, run_id)
    assert history is not None
    return spans_of(history)


def own(spans: list[ReadableSpan], scope: str = TRACER) -> list[ReadableSpan]:
    """Return the spans from inside the steps."""
    return [
        span
        for span in spans
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == scope
    ]


def paths(spans: list[ReadableSpan], scope: str = TRACER) -> list[str]:
    """Those spans, each below its step."""
    return sorted(" > ".join(path_of(span, spans)[1:]) for span in own(spans, scope))


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


after = {"start": dg.In(dg.Nothing)}


# Parents of spans


def test_spans_are_below_the_computation_of_their_step(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read", **{"file.name": "planes.csv"}) as read:
            with otel.span("parse", rows=3_322):
                pass
            read.add_event("read", {"bytes": 12})

    @dg.op(ins=after)
    def count(otel: OTelResource) -> None:
        with otel.span("add up"):
            pass

    spans = run_of(instance, fetch, count)
    (run,) = instance.get_runs()
    of_fetch = {"dagster.run.id": "<run>", "dagster.step.key": "fetch", "dagster.step.attempt": 1}
    told = as_dicts(spans, run.run_id)
    assert [each for each, span in zip(told, spans, strict=True) if span in own(spans)] == [
        {
            "name": "parse",
            "parent": "read",
            "attributes": {"rows": 3_322} | of_fetch,
            "status": "UNSET",
        },
        {
            "name": "read",
            "parent": "compute",
            "attributes": {"file.name": "planes.csv"} | of_fetch,
            "status": "UNSET",
            "events": [{"name": "read", "bytes": 12}],
        },
        {
            "name": "add up",
            "parent": "compute",
            "attributes": of_fetch | {"dagster.step.key": "count"},
            "status": "UNSET",
        },
    ]
    assert paths(spans) == [
        "count > compute > add up",
        "fetch > compute > read",
        "fetch > compute > read > parse",
    ]
    for span in own(spans):
        start, end = times_of(attempt_span(spans, str((span.attributes or {})[names.STEP])))
        assert start <= times_of(span)[0] <= times_of(span)[1] <= end


def test_every_attempt_has_its_own(instance: dg.DagsterInstance) -> None:
    @dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
    def fetch(context: dg.OpExecutionContext, otel: OTelResource) -> None:
        with otel.span("read", try_=context.retry_number + 1):
            if context.retry_number < 2:
                raise ConnectionError("nobody answers")

    spans = run_of(instance, fetch)
    for number in (1, 2, 3):
        (compute,) = [
            span
            for span in spans
            if span.name == "compute" and span.parent == attempt_span(spans, "fetch", number).context
        ]
        (read,) = [span for span in own(spans) if span.parent == compute.context]
        assert ((read.attributes or {})["try_"], (read.attributes or {})[names.ATTEMPT]) == (number, number)
        failed = number < 3
        assert (read.status.status_code is StatusCode.ERROR) == failed
        assert len(read.events) == failed


def test_an_exception_is_recorded_where_it_was_raised_and_passed_on(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"), otel.span("parse"):
            raise ValueError("row 7 has no plane")

    spans = run_of(instance, fetch)
    for span in (named(spans, "read"), named(spans, "parse")):
        assert span.status.description == "ValueError: row 7 has no plane"
        (event,) = span.events
        attributes = event.attributes or {}
        assert attributes["exception.type"] == "ValueError"
        assert attributes["exception.message"] == "row 7 has no plane"
        assert "in fetch" in str(attributes["exception.stacktrace"])
    assert attempt_span(spans, "fetch").status.description == "row 7 has no plane"


def test_mapped_steps_are_told_apart(instance: dg.DagsterInstance) -> None:
    @dg.op(out=dg.DynamicOut(str))
    def split() -> Iterator[dg.DynamicOutput[str]]:
        yield from (dg.DynamicOutput(name, mapping_key=name) for name in ("east", "west"))

    @dg.op
    def read(otel: OTelResource, coast: str) -> None:
        with otel.span(f"read {coast}"):
            pass

    @dg.job(resource_defs={"otel": OTelResource()}, executor_def=dg.in_process_executor)
    def mapping() -> None:
        split().map(read)

    spans = trace_of(instance, mapping.execute_in_process(instance=instance).run_id)
    assert paths(spans) == ["read[east] > compute > read east", "read[west] > compute > read west"]


def test_an_asset_and_its_check_are_steps_like_any_other(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def planes(context: dg.AssetExecutionContext, otel: OTelResource) -> None:
        with otel.span("write"):
            pass

    @dg.asset_check(asset=planes)
    def has_rows(context: dg.AssetCheckExecutionContext, otel: OTelResource) -> dg.AssetCheckResult:
        with otel.span("look"):
            return dg.AssetCheckResult(passed=True)

    spans = assets_of(instance, planes, has_rows)
    assert paths(spans) == ["planes > compute > write", "planes_has_rows > compute > look"]


def test_the_body_of_a_generator_is_traced_while_it_runs(instance: dg.DagsterInstance) -> None:
    @dg.multi_asset(specs=[dg.AssetSpec("departures"), dg.AssetSpec("arrivals")])
    def movements(otel: OTelResource) -> Iterator[dg.MaterializeResult]:
        with otel.span("all"):
            for name in ("departures", "arrivals"):
                with otel.span(name):
                    yield dg.MaterializeResult(asset_key=name)
        with otel.span("afterwards"):
            pass

    assert paths(assets_of(instance, movements)) == [
        "movements > compute > afterwards",
        "movements > compute > all",
        "movements > compute > all > arrivals",
        "movements > compute > all > departures",
    ]


def test_an_async_op_keeps_its_tasks_apart(instance: dg.DagsterInstance) -> None:
    @dg.op
    async def fetch(otel: OTelResource) -> None:
        async def read(name: str) -> None:
            with otel.span(name):
                await asyncio.sleep(0)
                with otel.span(f"parse {name}"):
                    await asyncio.sleep(0)

        with otel.span("gather"):
            await asyncio.gather(read("planes"), read("airlines"))

    assert paths(run_of(instance, fetch)) == [
        "fetch > compute > gather",
        "fetch > compute > gather > airlines",
        "fetch > compute > gather > airlines > parse airlines",
        "fetch > compute > gather > planes",
        "fetch > compute > gather > planes > parse planes",
    ]


def test_what_an_io_manager_traces_is_below_the_step_it_works_for(instance: dg.DagsterInstance) -> None:
    class Traced(dg.IOManager):
        def handle_output(self, context: dg.OutputContext, obj: object) -> None:
            with context.resources.otel.span("write"):
                pass

        def load_input(self, context: dg.InputContext) -> int:
            with context.resources.otel.span("read"):
                return 1

    @dg.io_manager(required_resource_keys={"otel"})
    def traced() -> Traced:
        return Traced()

    @dg.asset
    def planes() -> int:
        return 1

    @dg.asset
    def fleet(planes: int) -> int:
        return planes

    spans = assets_of(instance, planes, fleet, io_manager=traced)
    assert paths(spans) == [
        "fleet > compute > read",
        "fleet > compute > write",
        "planes > compute > write",
    ]


def test_a_library_that_traces_itself_nests_too(instance: dg.DagsterInstance) -> None:
    tracer = trace.get_tracer("library", "1.0")  # as libraries do, when they are imported

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"), tracer.start_as_current_span("GET", kind=SpanKind.CLIENT):
            pass
        with tracer.start_as_current_span("POST"), otel.span("write"):
            pass

    # Settings of its own, since a provider is made once for each.
    spans = run_of(instance, fetch, otel=OTelResource(endpoint="http://library.example"))
    assert paths(spans, "library") == ["fetch > compute > POST", "fetch > compute > read > GET"]
    assert paths(spans) == ["fetch > compute > POST > write", "fetch > compute > read"]
    get = named(spans, "GET")
    assert get.kind is SpanKind.CLIENT
    assert get.instrumentation_scope is not None
    assert get.instrumentation_scope.version == "1.0"


def test_a_tracer_provider_that_is_there_already_stays(instance: dg.DagsterInstance) -> None:
    provider = TracerProvider()
    trace.set_tracer_provider(provider)

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"):
            pass

    spans = run_of(instance, fetch, otel=OTelResource(endpoint="http://present.example"))
    assert trace.get_tracer_provider() is provider
    assert paths(spans) == ["fetch > compute > read"]


def test_everything_else_that_opentelemetry_offers_is_passed_on(instance: dg.DagsterInstance) -> None:
    tracer = StepTracerProvider(Telemetry()).get_tracer("tests")
    elsewhere = SpanContext(7, 8, is_remote=True)

    @dg.op
    def fetch(otel: OTelResource) -> None:
        own = tracer_of(otel)
        span = own.start_span("send", kind=SpanKind.PRODUCER, links=[Link(elsewhere)], start_time=1_000)
        span.end(2_000)
        with (
            pytest.raises(ValueError, match="no plane"),
            own.start_as_current_span("quiet", record_exception=False, set_status_on_exception=False),
        ):
            raise ValueError("no plane")

    spans = run_of(instance, fetch)
    send, quiet = named(spans, "send"), named(spans, "quiet")
    assert (send.kind, times_of(send)) == (SpanKind.PRODUCER, (1_000, 2_000))
    assert [(link.context.trace_id, link.context.span_id) for link in send.links] == [(7, 8)]
    assert (quiet.status.status_code, len(quiet.events)) == (StatusCode.UNSET, 0)
    # A tracer that belongs to nobody's step.
    assert not tracer.start_span("outside").is_recording()


def tracer_of(otel: OTelResource) -> trace.Tracer:
    with otel.span("open the tracer"):
        assert otel._tracer is not None
        return otel._tracer


# One process, several runs


def test_runs_in_one_process_have_traces_of_their_own(instance: dg.DagsterInstance) -> None:
    left_open: list[AbstractContextManager[object]] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"):
            pass
        # Never closed, as by a generator that nobody exhausts.
        leaked = otel.span("leaked")
        leaked.__enter__()
        left_open.append(leaked)

    first, second = run_of(instance, fetch), run_of(instance, fetch)
    assert paths(first) == paths(second) == ["fetch > compute > read"]
    assert {context_of(span).trace_id for span in first}.isdisjoint(
        context_of(span).trace_id for span in second
    )
    close(left_open)


def test_a_span_that_a_step_left_open_is_not_around_the_next_step(instance: dg.DagsterInstance) -> None:
    left_open: list[AbstractContextManager[object]] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        leaked = otel.span("leaked")
        leaked.__enter__()
        left_open.append(leaked)

    @dg.op(ins=after)
    def count(otel: OTelResource) -> None:
        with otel.span("add up"):
            pass

    assert paths(run_of(instance, fetch, count)) == ["count > compute > add up"]
    close(left_open)


def close(left_open: list[AbstractContextManager[object]]) -> None:
    """Leave nothing behind for the next test."""
    for span in reversed(left_open):
        span.__exit__(None, None, None)
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_whoever_starts_a_run_in_a_span_of_his_own_is_not_its_parent(instance: dg.DagsterInstance) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read"):
            pass

    with provider.get_tracer("caller").start_as_current_span("call") as call:
        spans = run_of(instance, fetch)
        assert trace.get_current_span() is call
    assert paths(spans) == ["fetch > compute > read"]
    assert [span.name for span in exporter.get_finished_spans()] == ["call"]


# Threads


def in_a_thread(target: Callable[[], None]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


def test_a_thread_with_all_of_the_context_nests(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read() -> None:
            with otel.span("read"):
                pass

        with otel.span("hand on"):
            context = contextvars.copy_context()
            in_a_thread(lambda: context.run(read))

    assert paths(run_of(instance, fetch)) == ["fetch > compute > hand on", "fetch > compute > hand on > read"]


def test_a_thread_with_opentelemetrys_context_nests(instance: dg.DagsterInstance) -> None:
    environments: list[Mapping[str, str]] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read(context: otel_context.Context) -> None:
            token = otel_context.attach(context)
            with otel.span("read"), otel.span("parse"):
                environments.append(otel.environment())
            otel_context.detach(token)

        with otel.span("hand on"):
            context = otel_context.get_current()
            in_a_thread(lambda: read(context))

    spans = run_of(instance, fetch)
    assert paths(spans) == [
        "fetch > compute > hand on",
        "fetch > compute > hand on > read",
        "fetch > compute > hand on > read > parse",
    ]
    trace_id, span_id = key_of(named(spans, "parse"))
    assert environments == [{"TRACEPARENT": f"00-{trace_id:032x}-{span_id:016x}-01"}]


def test_a_thread_without_a_context_records_nothing(instance: dg.DagsterInstance) -> None:
    recorded: list[bool] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read() -> None:
            with otel.span("read") as span:
                recorded.append(span.is_recording())
            assert otel.environment() == {}

        with otel.span("hand on"):
            in_a_thread(read)

    assert paths(run_of(instance, fetch)) == ["fetch > compute > hand on"]
    assert recorded == [False]


def test_a_thread_that_outlives_its_run_harms_nobody(instance: dg.DagsterInstance) -> None:
    over = threading.Event()
    threads: list[threading.Thread] = []

    @dg.op
    def fetch(otel: OTelResource) -> None:
        def read() -> None:
            with otel.span("too late"):
                assert over.wait(WAIT_SECONDS)

        context = contextvars.copy_context()
        threads.append(threading.Thread(target=context.run, args=(read,)))
        threads[0].start()

    assert paths(run_of(instance, fetch)) == []
    over.set()
    threads[0].join()

    @dg.op
    def count(otel: OTelResource) -> None:
        with otel.span("add up"):
            pass

    assert paths(run_of(instance, count)) == ["count > compute > add up"]


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
    said = [limit in (event.message or "") for event in events]
    assert said.count(True) == 1
    assert said.index(True) < len(said) - 1


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


def test_spans_with_much_in_them_are_cut_and_take_more_events_of_the_log(
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


def test_an_event_log_that_takes_no_spans_does_not_fail_the_step(
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
