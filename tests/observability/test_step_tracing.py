"""Tests that spans from inside steps belong to the right step."""

import asyncio
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from ledgerline.dagster.tracing import OTelResource
from ledgerline.traces import attributes as names
from ledgerline.traces.step_tracing import StepTracerProvider
from ledgerline.traces.telemetry import Telemetry
from tests.observability.exported_spans import as_dicts, attempt_span, named, times_of
from tests.observability.step_spans import after, own, paths, run_of, trace_of

pytestmark = pytest.mark.usefixtures("unused_opentelemetry")


def assets_of(instance: dg.DagsterInstance, *assets: Any, **resources: Any) -> list[ReadableSpan]:
    result = dg.materialize(
        assets, instance=instance, resources={"otel": OTelResource()} | resources, raise_on_error=False
    )
    return trace_of(instance, result.run_id)


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
    dicts = as_dicts(spans, run.run_id)
    assert [each for each, span in zip(dicts, spans, strict=True) if span in own(spans)] == [
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


def test_every_attempt_has_separate_spans(instance: dg.DagsterInstance) -> None:
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


def test_mapped_steps_are_distinguished(instance: dg.DagsterInstance) -> None:
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


def test_spans_of_an_io_manager_are_below_its_step(instance: dg.DagsterInstance) -> None:
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

    # Other settings, since a provider is created once for each.
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
    # A tracer outside of any step.
    assert not tracer.start_span("outside").is_recording()


def tracer_of(otel: OTelResource) -> trace.Tracer:
    with otel.span("open the tracer"):
        assert otel._tracer is not None
        return otel._tracer
