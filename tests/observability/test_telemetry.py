"""Tests OpenTelemetry's variables: no value raises an error, and spans are sent where they say."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.ledger import ids
from ledgerline.settings.shared import TraceVariables
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import telemetry
from ledgerline.traces.otlp_grpc import GrpcExporter
from ledgerline.traces.otlp_http import HttpExporter
from ledgerline.traces.otlp_responses import SpansRejectedError
from ledgerline.traces.telemetry import GRPC, HTTP, Telemetry, otlp_exporter
from tests.observability.collectors import Collector, grpc_collector, http_collector
from tests.observability.exported_spans import key_of, spans_of

VARIABLES = (
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)
VALUES = ["true", "none", "otlp", GRPC, HTTP, "always_off", "traceidratio", "0.5", "nan", "inf", "1e-9", "-1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove the settings of the machine."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the warnings so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Settings


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Telemetry()),
        (dict.fromkeys(VARIABLES, ""), Telemetry()),
        ({"OTEL_SDK_DISABLED": "true"}, Telemetry(disabled=True)),
        ({"OTEL_SDK_DISABLED": " TRUE "}, Telemetry(disabled=True)),
        ({"OTEL_SDK_DISABLED": "false"}, Telemetry()),
        ({"OTEL_TRACES_EXPORTER": "none"}, Telemetry(disabled=True)),
        ({"OTEL_TRACES_EXPORTER": " None"}, Telemetry(disabled=True)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, Telemetry()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318"}, Telemetry(endpoint="http://all:4318/v1/traces")),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4318/in",
            },
            Telemetry(endpoint="http://traces:4318/in"),
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Telemetry(protocol=GRPC)),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, Telemetry(protocol=HTTP)),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            Telemetry(protocol=GRPC),
        ),
        ({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, Telemetry(ratio=1.0)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Telemetry(ratio=0.0)),
        ({"LEDGERLINE_KEEP_FAILED_RUNS": "true"}, Telemetry(keeps_failed_runs=True)),
        ({"LEDGERLINE_KEEP_FAILED_RUNS": "false"}, Telemetry()),
        ({"LEDGERLINE_KEEP_RUNS_OVER_SECONDS": "0.5"}, Telemetry(slow_run_seconds=0.5)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Telemetry(ratio=0.0)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, Telemetry(ratio=1.0)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, Telemetry(ratio=0.25)),
        (
            {"OTEL_TRACES_SAMPLER": " ParentBased_TraceIdRatio ", "OTEL_TRACES_SAMPLER_ARG": " 0.25 "},
            Telemetry(ratio=0.25),
        ),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, Telemetry(ratio=1.0)),
    ],
)
def test_the_variables_are_read_as_opentelemetry_defines_them(
    variables: dict[str, str], expected: Telemetry, warnings: Callable[[], list[str]]
) -> None:
    assert Telemetry.of(TraceVariables.from_environment(variables)) == expected
    assert warnings() == []


@pytest.mark.parametrize(
    ("variables", "expected", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, Telemetry(), ("OTEL_TRACES_EXPORTER", "'zipkin'")),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, Telemetry(), ("OTEL_TRACES_EXPORTER", "'otlp,console'")),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, Telemetry(), ("PROTOCOL", "'http/json'", HTTP)),
        (
            {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
            Telemetry(),
            ("OTEL_TRACES_SAMPLER", "'jaeger_remote'", "all"),
        ),
        *(
            (
                {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument},
                Telemetry(),
                ("OTEL_TRACES_SAMPLER_ARG", repr(argument), "all"),
            )
            for argument in ("half", "-0.1", "1.1", "nan", "inf", "50%")
        ),
        *(
            (
                {"LEDGERLINE_KEEP_RUNS_OVER_SECONDS": argument},
                Telemetry(),
                ("LEDGERLINE_KEEP_RUNS_OVER_SECONDS", repr(argument)),
            )
            for argument in ("an hour", "nan", "-1", "10m")
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_passed_over_with_a_warning_that_names_it(
    variables: dict[str, str],
    expected: Telemetry,
    named: tuple[str, ...],
    warnings: Callable[[], list[str]],
) -> None:
    assert Telemetry.of(TraceVariables.from_environment(variables)) == expected
    (warning,) = warnings()
    assert all(part in warning for part in named)


@settings(database=None, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(VARIABLES), st.one_of(st.text(max_size=10), st.sampled_from(VALUES)), max_size=8
    )
)
def test_no_value_of_any_variable_raises(variables: dict[str, str]) -> None:
    read = Telemetry.of(TraceVariables.from_environment(variables))
    assert 0.0 <= read.ratio <= 1.0
    assert read.protocol in (HTTP, GRPC)
    assert read.endpoint is None or read.endpoint
    assert isinstance(read.keeps(1), bool)


def test_a_disabled_sdk_samples_no_trace() -> None:
    traces = [ids.trace_id(str(uuid4())) for _ in range(200)]
    assert all(Telemetry().keeps(trace) for trace in traces)
    assert not any(Telemetry(disabled=True).keeps(trace) for trace in traces)
    assert not any(Telemetry(ratio=0.0).keeps(trace) for trace in traces)
    half = Telemetry(ratio=0.5)
    assert [half.keeps(trace) for trace in traces] == [ids.is_sampled(trace, 0.5) for trace in traces]
    assert 0 < sum(half.keeps(trace) for trace in traces) < 200


# Resources


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"service.name": "ledgerline"}),
        ({"OTEL_SERVICE_NAME": "flights"}, {"service.name": "flights"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging,team=delays"},
            {"service.name": "ledgerline", "deployment.environment.name": "staging", "team": "delays"},
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=flights"}, {"service.name": "flights"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=flights", "OTEL_SERVICE_NAME": "delays"},
            {"service.name": "delays"},
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "nonsense"}, {"service.name": "ledgerline"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "=x,a=%zz,,team=delays"},
            {"service.name": "ledgerline", "team": "delays"},
        ),
        ({"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "nonsense"}, {"service.name": "ledgerline"}),
    ],
)
def test_spans_have_the_service_in_the_variables(
    environment: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, str]
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert expected.items() <= dict(telemetry.resource().attributes).items()


# Targets


def exporter_of(environment: pytest.MonkeyPatch, **variables: str) -> SpanExporter:
    """Return an exporter with the settings of a deployment; names are without OTEL_EXPORTER_OTLP."""
    for name, value in variables.items():
        environment.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    return otlp_exporter(Telemetry.of(TraceVariables.from_environment(os.environ)))


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"ENDPOINT": "http://collector.example:4318"}, "http://collector.example:4318/v1/traces"),
        ({"ENDPOINT": "http://collector.example/otlp/"}, "http://collector.example/otlp/v1/traces"),
        ({"TRACES_ENDPOINT": "http://collector.example/in"}, "http://collector.example/in"),
        (
            {"ENDPOINT": "http://all.example", "TRACES_ENDPOINT": "https://traces.example/in"},
            "https://traces.example/in",
        ),
    ],
)
def test_http_sends_to_the_endpoint_of_the_variables(
    environment: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str
) -> None:
    exporter = exporter_of(environment, **variables)
    assert isinstance(exporter, HttpExporter)
    assert exporter._endpoint == endpoint
    exporter.shutdown()


@pytest.mark.parametrize(
    ("variables", "endpoint", "insecure"),
    [
        ({}, "localhost:4317", True),
        ({"ENDPOINT": "http://collector.example:4317"}, "collector.example:4317", True),
        ({"ENDPOINT": "https://collector.example:4317"}, "collector.example:4317", False),
        (
            {"ENDPOINT": "http://all.example:1", "TRACES_ENDPOINT": "http://traces.example:2"},
            "traces.example:2",
            True,
        ),
    ],
)
def test_grpc_sends_to_the_endpoint_of_the_variables(
    environment: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str, insecure: bool
) -> None:
    exporter = exporter_of(environment, PROTOCOL=GRPC, **variables)
    assert isinstance(exporter, GrpcExporter)
    assert (exporter._endpoint, exporter._insecure) == (endpoint, insecure)
    exporter.shutdown()


@pytest.fixture(
    params=[(http_collector, HTTP), (grpc_collector, GRPC)], ids=lambda kind: kind[1].partition("/")[0]
)
def collector(request: pytest.FixtureRequest, environment: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A real one, to which the variables point."""
    open_collector: Callable[[], AbstractContextManager[Collector]]
    open_collector, protocol = request.param
    with open_collector() as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        yield collector


def test_spans_arrive_with_the_headers_of_the_variables(
    collector: Collector, environment: pytest.MonkeyPatch, recorded: Recordings
) -> None:
    exporter = exporter_of(environment, HEADERS="Authorization=Bearer%20secret,x-tenant=flights")
    spans = spans_of(recorded["retries"].history)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    exporter.shutdown()

    request = collector.request
    assert request.path in ("/v1/traces", "Export")
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["x-tenant"] == "flights"
    arrived = {
        (int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big")): span
        for span in request.spans
    }
    assert arrived.keys() == {key_of(span) for span in spans}
    for span in spans:
        other = arrived[key_of(span)]
        assert (other.name, other.start_time_unix_nano, other.end_time_unix_nano) == (
            span.name,
            span.start_time,
            span.end_time,
        )
        assert other.status.code == span.status.status_code.value
        assert len(other.attributes) == len(span.attributes or {})
        assert [event.name for event in other.events] == [event.name for event in span.events]
        assert [int.from_bytes(link.span_id, "big") for link in other.links] == [
            link.context.span_id for link in span.links
        ]


def test_spans_are_compressed_if_the_variables_request_it(
    collector: Collector, environment: pytest.MonkeyPatch, recorded: Recordings
) -> None:
    exporter = exporter_of(environment, COMPRESSION="gzip")
    spans = spans_of(recorded["ops"].history)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert len(collector.request.spans) == len(spans)


def test_a_collector_that_refuses_is_not_a_success(
    collector: Collector, environment: pytest.MonkeyPatch, recorded: Recordings
) -> None:
    collector.refuses = [400]
    exporter = exporter_of(environment)
    with pytest.raises(SpansRejectedError):
        exporter.export(spans_of(recorded["ops"].history))
    exporter.shutdown()
    assert collector.requests == []
