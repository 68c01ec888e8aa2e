"""Tests that the collector masks secrets, shortens long values, counts spans and samples requests."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from mlflow import MlflowClient
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GRPCExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HTTPExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from benchmarks.stack.files import DOCKER, SAMPLING
from benchmarks.stack.stack import Stack
from benchmarks.stack.traces import Jaeger, MLflowTraces
from ledgerline.testing.ports import HOST
from ledgerline.testing.received_traces import ReceivedSpan
from ledgerline.testing.waiting import wait_until
from tests.integration.stack.exports import EXPORT_SECONDS
from tests.integration.stack.metrics import metrics_of, names_of

OTHER_METRICS = {"up"}  # Prometheus' own


def span(
    name: str = "step",
    attributes: dict[str, AttributeValue] | None = None,
    *,
    seconds: float = 0.01,
    failed: bool = False,
    events: list[Event] | None = None,
) -> ReadableSpan:
    """A trace of one span that has just ended."""
    now = time.time_ns()
    return ReadableSpan(
        name=name,
        context=SpanContext(uuid4().int, uuid4().int >> 65, is_remote=False, trace_flags=TraceFlags(1)),
        resource=Resource({"service.name": "tests"}),
        attributes=attributes or {},
        events=events or [],
        status=Status(StatusCode.ERROR if failed else StatusCode.OK),
        start_time=now - round(seconds * 1e9),
        end_time=now,
    )


def trace_id_of(sent: ReadableSpan) -> str:
    assert sent.context is not None
    return f"{sent.context.trace_id:032x}"


def over_http(stack: Stack) -> SpanExporter:
    return HTTPExporter(f"{stack.machine.url('otel-collector', 4318)}/v1/traces", timeout=5)


def over_grpc(stack: Stack) -> SpanExporter:
    return GRPCExporter(f"{HOST}:{stack.machine.port('otel-collector', 4317)}", insecure=True, timeout=5)


def send(exporter: SpanExporter, *spans: ReadableSpan) -> bool:
    """Return whether the collector has accepted spans."""
    taken = exporter.export(spans) is SpanExportResult.SUCCESS
    exporter.shutdown()
    return taken


def arrived(backend: Jaeger | MLflowTraces, sent: ReadableSpan) -> ReceivedSpan:
    """The same span in Jaeger or MLflow, once it is there."""
    found = wait_until(
        lambda: backend.trace_of(trace_id_of(sent)).spans, f"the span is in {backend}", EXPORT_SECONDS
    )
    return found[0]


@contextmanager
def collector(stack: Stack, *options: Path, **additions: str) -> Iterator[None]:
    """The collector with further compose files and variables, and in the end as it was."""
    stack.stop("otel-collector")
    stack.start("otel-collector", options=options, **additions)
    try:
        yield
    finally:
        stack.stop("otel-collector")
        stack.start("otel-collector")


@pytest.mark.parametrize("way", [over_http, over_grpc])
def test_secrets_reach_neither_jaeger_nor_mlflow(
    way: Callable[[Stack], SpanExporter], stack: Stack, mlflow_traces: MLflowTraces
) -> None:
    exception = {"exception.message": "401 for Bearer abcdefghijklmnop", "exception.type": "HTTPError"}
    sent = span(
        attributes={
            "http.request.header.authorization": ["Bearer abcdefghijklmnop"],
            "db.url": "postgresql://reader:correct-horse@db:5432/flights",
            "api_key": "correct-horse",
            "gen_ai.usage.input_tokens": 12,
            "rows": 3,
        },
        events=[Event("exception", exception)],
    )
    assert send(way(stack), sent)
    for backend in (stack.jaeger, mlflow_traces):
        found = arrived(backend, sent)
        assert "correct-horse" not in repr((found.attributes, found.events))
        assert "abcdefghijklmnop" not in repr((found.attributes, found.events))
        assert found.attributes["gen_ai.usage.input_tokens"] == 12
        assert found.attributes["rows"] == 3
        assert found.events["exception"]["exception.type"] == "HTTPError"


def test_a_value_too_long_for_jaegers_index_is_cut_there_and_whole_in_mlflow(
    stack: Stack, mlflow_traces: MLflowTraces
) -> None:
    sent = span(attributes={"prompt": "x" * 100_000})
    assert send(over_http(stack), sent)
    assert len(str(arrived(stack.jaeger, sent).attributes["prompt"])) == 50_000
    assert len(str(arrived(mlflow_traces, sent).attributes["prompt"])) == 100_000


def test_calls_and_durations_are_counted_for_prometheus(stack: Stack) -> None:
    name = f"counted {uuid4().hex}"
    assert send(over_http(stack), *(span(name) for _ in range(5)))
    page = stack.machine.url("otel-collector", 8889)
    wait_until(lambda: metrics_of(page).get("traces_span_metrics_calls_total", 0) >= 5, "they are counted")


def test_every_alarm_is_about_numbers_that_the_programs_have(stack: Stack) -> None:
    """Those of failures, too, which are there only once there was one."""
    collector_page = stack.machine.url("otel-collector", 8888)
    found = names_of(stack.machine.url("serving", 8080), stack.machine.variables["LEDGERLINE_SERVING_TOKENS"])
    found |= names_of(stack.machine.url("jaeger", 8887))
    with collector(stack, OTELCOL_QUEUE_BYTES="1"):
        assert not send(over_http(stack), span())
        found |= names_of(collector_page)
    dropped = "otelcol_exporter_send_failed_spans"
    # MLflow rejects these spans; Jaeger does not.
    assert send(over_http(stack), span("no\0name"))
    wait_until(lambda: metrics_of(collector_page).get(dropped, 0) > 0, "MLflow refuses it", EXPORT_SECONDS)
    found |= names_of(collector_page)

    groups = yaml.safe_load((DOCKER / "alarms.yaml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        words = re.findall(r"\b[a-z]\w*(?=[\s\[]|$)", re.sub(r"\[\w+\]", "[", rule["expr"]))
        asked = {word for word in words if word not in ("or", "and")}
        assert asked, rule["alert"]
        assert asked <= found | OTHER_METRICS, f"{rule['alert']} asks for what nobody has"


def test_with_the_option_errors_and_slow_traces_are_kept_and_of_the_others_a_share(
    stack: Stack, mlflow_client: MlflowClient
) -> None:
    failed, slow = span("failed", failed=True), span("slow", seconds=2)
    others = [span(f"other {number}") for number in range(20)]
    with collector(
        stack,
        SAMPLING,
        OTELCOL_SAMPLING_PERCENT="0",
        OTELCOL_SAMPLING_SLOW_MS="1000",
        OTELCOL_SAMPLING_WAIT_AFTER_ROOT="1s",
    ):
        assert send(over_http(stack), *others, failed, slow)
        for kept in (failed, slow):
            for backend in (stack.jaeger, MLflowTraces(mlflow_client)):
                arrived(backend, kept)
    assert not [other for other in others if stack.jaeger.trace_of(trace_id_of(other)).spans]
