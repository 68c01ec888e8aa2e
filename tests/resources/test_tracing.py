"""Tests the OpenTelemetry resource: spans of steps, and no effect where tracing is off."""

from collections.abc import Mapping
from uuid import UUID

import dagster as dg
import pytest
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import ProxyTracerProvider
from opentelemetry.util._once import Once

from ledgerline.dagster.tracing import OTelResource
from ledgerline.ledger import ids
from ledgerline.ledger.event_log import SPANS_METADATA, read_history
from ledgerline.ledger.history import COMPUTE
from ledgerline.traces.step_tracing import StepTracerProvider
from ledgerline.traces.telemetry import GRPC, Telemetry
from tests.observability.exported_spans import key_of, named, spans_of

# The low 56 bits decide whether a trace is kept: none of them set, and all of them.
LOW = str(UUID(int=4 << 76 | 2 << 62))
HIGH = str(UUID(int=4 << 76 | 2 << 62 | (1 << 56) - 1))


@pytest.fixture(autouse=True)
def unused_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry as it is in a process that has no tracer provider yet; each process can set it once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


class Seen:
    """The observations of a step."""

    def __init__(self) -> None:
        self.recording: list[bool] = []
        self.environments: list[Mapping[str, str]] = []
        self.contexts: list[Mapping[str, str]] = []


def trace_a_step(
    instance: dg.DagsterInstance, otel: OTelResource, run_id: str | None = None
) -> tuple[str, Seen]:
    """A run whose step traces a span within a span."""
    seen = Seen()

    @dg.op
    def fetch(otel: OTelResource) -> None:
        seen.environments.append(otel.environment())
        with otel.span("read") as read:
            seen.environments.append(otel.environment())
            with otel.span("parse", rows=1) as parse:
                seen.environments.append(otel.environment())
                seen.contexts.append(otel.trace_context())
                seen.recording += [read.is_recording(), parse.is_recording()]
        seen.environments.append(otel.environment())

    @dg.job(resource_defs={"otel": otel}, executor_def=dg.in_process_executor)
    def tracing() -> None:
        fetch()

    result = tracing.execute_in_process(instance=instance, run_id=run_id)
    assert result.success
    return result.run_id, seen


def has_spans(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether the event log has spans from inside steps."""
    return any(
        entry.dagster_event is not None
        and entry.dagster_event.is_engine_event
        and SPANS_METADATA in entry.dagster_event.engine_event_data.metadata
        for entry in instance.all_logs(run_id)
    )


# Inside of a step


def test_a_process_that_a_step_starts_inherits_the_open_span(instance: dg.DagsterInstance) -> None:
    run_id, seen = trace_a_step(instance, OTelResource())
    history = read_history(instance, run_id)
    assert history is not None
    spans = spans_of(history)
    compute = ids.trace_id(run_id), ids.phase_span_id(run_id, "fetch", 1, COMPUTE)
    around = [compute, key_of(named(spans, "read")), key_of(named(spans, "parse")), compute]
    assert key_of(named(spans, COMPUTE)) == compute
    assert seen.environments == [
        {"TRACEPARENT": f"00-{trace_id:032x}-{span_id:016x}-01"} for trace_id, span_id in around
    ]


def test_headers_carry_the_same_span(instance: dg.DagsterInstance) -> None:
    run_id, seen = trace_a_step(instance, OTelResource())
    (context,) = seen.contexts
    assert context == {"traceparent": seen.environments[2]["TRACEPARENT"]}
    # Return the history as another process reads it.
    parent = trace.get_current_span(extract(context)).get_span_context()
    assert (parent.trace_id, parent.is_remote, parent.trace_flags.sampled) == (
        ids.trace_id(run_id),
        True,
        True,
    )


def test_attributes_may_have_any_name(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None:
        with otel.span("read", name="planes", self="x", **{"http.request.method": "GET"}):
            pass

    @dg.job(resource_defs={"otel": OTelResource()}, executor_def=dg.in_process_executor)
    def tracing() -> None:
        fetch()

    history = read_history(instance, tracing.execute_in_process(instance=instance).run_id)
    assert history is not None
    attributes = named(spans_of(history), "read").attributes or {}
    assert {name: attributes[name] for name in ("name", "self", "http.request.method")} == {
        "name": "planes",
        "self": "x",
        "http.request.method": "GET",
    }


def test_libraries_find_the_tracer_of_the_step(instance: dg.DagsterInstance) -> None:
    trace_a_step(instance, OTelResource(endpoint="http://found.example"))
    assert isinstance(trace.get_tracer_provider(), StepTracerProvider)


# Disabled tracing


@pytest.mark.parametrize(
    "otel",
    [OTelResource(disabled=True), OTelResource(ratio=0.0), OTelResource(disabled=True, ratio=0.5)],
    ids=["disabled", "none are kept", "both"],
)
def test_a_trace_that_is_not_sampled_leaves_nothing_in_the_event_log(
    instance: dg.DagsterInstance, otel: OTelResource
) -> None:
    run_id, seen = trace_a_step(instance, otel)
    assert seen.recording == [False, False]
    assert seen.environments == [{}] * 4
    assert seen.contexts == [{}]
    assert not has_spans(instance, run_id)


@pytest.mark.parametrize(("run_id", "kept"), [(LOW, False), (HIGH, True)])
def test_the_run_decides_whether_its_trace_is_kept(
    instance: dg.DagsterInstance, run_id: str, kept: bool
) -> None:
    otel = OTelResource(ratio=0.5)
    assert otel.telemetry.keeps(ids.trace_id(run_id)) == kept
    _, seen = trace_a_step(instance, otel, run_id)
    assert seen.recording == [kept, kept]
    assert has_spans(instance, run_id) == kept
    assert all(bool(environment) == kept for environment in seen.environments)


def test_switched_off_it_does_not_touch_opentelemetry(instance: dg.DagsterInstance) -> None:
    @dg.op
    def fetch(otel: OTelResource) -> None: ...

    @dg.job(resource_defs={"otel": OTelResource(disabled=True)}, executor_def=dg.in_process_executor)
    def tracing() -> None:
        fetch()

    tracing.execute_in_process(instance=instance)
    assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def test_outside_of_a_run_nothing_is_recorded() -> None:
    otel = OTelResource()
    with otel.span("read", rows=1) as span:
        span.set_attribute("more", 2)
        span.add_event("read")
        assert not span.is_recording()
        assert otel.environment() == {}
        assert otel.trace_context() == {}


def test_an_exception_outside_of_a_run_is_passed_on() -> None:
    with pytest.raises(ValueError, match="no plane"), OTelResource().span("read"):
        raise ValueError("no plane")


def test_outside_of_a_run_it_does_not_hide_the_span_around() -> None:
    tracer = TracerProvider().get_tracer("a server")
    with tracer.start_as_current_span("request") as request, OTelResource().span("read") as read:
        assert not read.is_recording()
        assert trace.get_current_span().get_span_context() == request.get_span_context()
        with tracer.start_as_current_span("query") as query:
            assert query.get_span_context().trace_id == request.get_span_context().trace_id


def test_it_can_be_set_up_outside_of_a_run() -> None:
    with OTelResource().process_config_and_initialize_cm() as otel, otel.span("read") as span:
        assert not span.is_recording()


# Settings


def test_its_settings_are_those_of_the_modules_below() -> None:
    assert OTelResource().telemetry == Telemetry()
    otel = OTelResource(disabled=True, endpoint="http://collector.example:4317", protocol=GRPC, ratio=0.25)
    assert otel.telemetry == Telemetry(True, "http://collector.example:4317", GRPC, 0.25)
