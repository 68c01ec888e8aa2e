"""Tests what the collector exports: bounded for Jaeger, without secrets, and with an alarm for every stop."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GRPCExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HTTPExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from benchmarks.stack.files import DOCKER
from ledgerline.testing.loopback_servers import Refusal
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.ports import HOST
from ledgerline.testing.received_traces import ReceivedSpan
from ledgerline.testing.waiting import wait_until
from tests.integration.stack.lone_collector import LoneCollector, lone_collector
from tests.integration.stack.metrics import samples_of

INDEX_BYTES = 60_000  # of a key with its value; Jaeger's storage has 65,000 for them and more
IN_FLIGHT = "otelcol_exporter_in_flight_requests"
SECONDS = 60


@pytest.fixture(scope="module")
def collector(
    server_programs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoneCollector]:
    with lone_collector(server_programs["otel-collector"], tmp_path_factory.mktemp("collector")) as collector:
        yield collector


def span(
    attributes: Mapping[str, Any] | None = None,
    *,
    trace_id: int | None = None,
    parent: SpanContext | None = None,
    failed: bool = False,
    seconds: float = 0.01,
    **arguments: Any,
) -> ReadableSpan:
    """Return a span that has just ended, in a new trace unless one is named."""
    now = time.time_ns()
    usual: dict[str, Any] = {
        "name": "step",
        "context": SpanContext(
            trace_id or uuid4().int, uuid4().int >> 65, is_remote=False, trace_flags=TraceFlags(1)
        ),
        "parent": parent,
        "resource": Resource({"service.name": "tests"}),
        "attributes": attributes or {},
        "status": Status(StatusCode.ERROR if failed else StatusCode.OK),
        "start_time": now - round(seconds * 1e9),
        "end_time": now,
    }
    return ReadableSpan(**usual | arguments)


def context_of(sent: ReadableSpan) -> SpanContext:
    assert sent.context is not None
    return sent.context


def send(exporter: SpanExporter, *spans: ReadableSpan) -> None:
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    exporter.shutdown()


def over_http(collector: LoneCollector, name: str = "http") -> SpanExporter:
    return HTTPExporter(f"{collector.url(name)}/v1/traces", timeout=10)


def over_grpc(collector: LoneCollector) -> SpanExporter:
    return GRPCExporter(f"{HOST}:{collector.ports['grpc']}", insecure=True, timeout=10)


def span_in(receiver: Receiver, sent: ReadableSpan) -> ReceivedSpan | None:
    spans = receiver.trace(str(UUID(int=context_of(sent).trace_id))).spans
    return next((each for each in spans if each.span_id == f"{context_of(sent).span_id:016x}"), None)


def arrived(receiver: Receiver, sent: ReadableSpan) -> ReceivedSpan:
    """A span, once it is there."""
    found = wait_until(lambda: span_in(receiver, sent), "the span is there", SECONDS)
    assert found is not None
    return found


def index_size(value: object) -> int:
    """Bytes of a value as Jaeger's storage keeps it."""
    return len((value if isinstance(value, str) else json.dumps(value)).encode())


def assert_bounded(attributes: Mapping[str, object]) -> None:
    assert len(attributes) <= 256
    for key, value in attributes.items():
        assert len(key.encode()) + index_size(value) <= INDEX_BYTES
        assert not isinstance(value, float) or math.isfinite(value)


UNBOUNDED: dict[str, dict[str, Any]] = {
    "a list": {"list": [f"warehouse/{number}" for number in range(10_000)]},
    "a map": {"map": {f"key {number}": {"deep": ["x" * 100]} for number in range(2_000)}},
    "bytes": {"bytes": bytes(200_000)},
    "a text": {"text": "ü" * 100_000},
    "a key": {"k" * 100_000: 1},
    "many attributes": {f"key {number}": number for number in range(5_000)},
    "numbers that are not finite": {
        "loss": math.nan,
        "most": math.inf,
        "least": -math.inf,
        "losses": [math.nan],
    },
    "all of them": {"list": ["y" * 100] * 5_000, "loss": math.nan, "k" * 70_000: {"a": "b" * 70_000}},
}


@pytest.mark.parametrize("way", [over_http, over_grpc])
@pytest.mark.parametrize("attributes", UNBOUNDED.values(), ids=UNBOUNDED)
def test_values_that_jaegers_storage_cannot_hold_are_cut_for_it(
    collector: LoneCollector, way: Any, attributes: dict[str, Any]
) -> None:
    sent = span(
        attributes,
        name="n" * 100_000,
        status=Status(StatusCode.ERROR, "é" * 100_000),
        events=[Event("e" * 100_000, attributes)],
        resource=Resource({"service.name": "tests"} | attributes),
    )
    send(way(collector), sent)
    found = arrived(collector.jaeger, sent)
    assert len(found.name) <= 5_000
    assert_bounded(found.attributes)
    ((event, of_event),) = found.events.items()
    assert len(event) <= 5_000
    assert_bounded(of_event)


def test_ordinary_values_keep_their_kinds(collector: LoneCollector) -> None:
    attributes = {
        "text": "x " * 20_000,
        "number": 3,
        "rate": 0.5,
        "yes": True,
        "list": ["a", "b"],
        "map": {"a": {"b": 1}},
        "gen_ai.usage.input_tokens": 12,
    }
    sent = span(attributes)
    send(over_http(collector), sent)
    for receiver in (collector.jaeger, collector.mlflow):
        assert arrived(receiver, sent).attributes == attributes


def test_a_long_text_leaves_the_numbers_beside_it_alone(collector: LoneCollector) -> None:
    sent = span({"prompt": 'a "quoted":[text] ' * 5_000, "number": 3})
    send(over_http(collector), sent)
    assert arrived(collector.jaeger, sent).attributes["number"] == 3


SECRET = "correct-horse"


@pytest.mark.parametrize(
    "value",
    [
        {"password": SECRET},
        {"db": {"connection": {"api_key": SECRET}}},
        [{"Authorization": SECRET}],
        {"headers": {"set-cookie": [SECRET, SECRET]}},
        {"secrets": {"first": {"second": SECRET}}},
        {"csrf_token": SECRET, "rows": 3},
        {"token": SECRET},
        json.dumps({"messages": [{"content": {"private_key": f'"{SECRET}"'}}]}),
    ],
    ids=repr,
)
def test_a_secret_below_a_key_inside_of_a_map_reaches_neither(collector: LoneCollector, value: Any) -> None:
    sent = span({"config": value, "rows": 3}, events=[Event("configured", {"config": value})])
    send(over_http(collector), sent)
    for receiver in (collector.jaeger, collector.mlflow):
        found = arrived(receiver, sent)
        assert SECRET not in repr((found.attributes, found.events))
        assert found.attributes["rows"] == 3


def test_names_that_are_only_similar_to_secrets_stay(collector: LoneCollector) -> None:
    sent = span({"usage": {"input_tokens": 12, "signature_columns": ["a"]}, "keys": ["primary_key"]})
    send(over_http(collector), sent)
    assert arrived(collector.jaeger, sent).attributes["usage"] == {
        "input_tokens": 12,
        "signature_columns": ["a"],
    }


def test_a_batch_that_is_retried_for_ever_is_reported_although_the_queue_is_short(
    collector: LoneCollector,
) -> None:
    """The alarm QueueStuck asks for the requests under way, which then are never none."""
    stuck = span({"stuck": True})
    collector.jaeger.refuses = lambda batch: (
        Refusal(503) if any(each.attributes.get("stuck") for each in batch) else None
    )
    under_way = {"exporter": "otlp_http/jaeger"}
    page = collector.url("metrics")
    wait_until(lambda: sum(samples_of(page, IN_FLIGHT, under_way)) == 0, "nothing is under way", SECONDS)
    before = collector.jaeger.requests
    send(over_http(collector), stuck)
    wait_until(lambda: collector.jaeger.requests > before + 1, "it was tried twice", SECONDS)
    for _ in range(3):
        other = span()
        send(over_http(collector), other)
        arrived(collector.jaeger, other)
        wait_until(lambda: sum(samples_of(page, IN_FLIGHT, under_way)) == 1, "only one is under way", SECONDS)
    (rule,) = [
        rule
        for group in yaml.safe_load((DOCKER / "alarms.yaml").read_text())["groups"]
        for rule in group["rules"]
        if rule["alert"] == "QueueStuck"
    ]
    assert re.fullmatch(rf"min_over_time\({IN_FLIGHT}\[\d+m\]\) > 0", rule["expr"])
    collector.jaeger.refuses = lambda batch: None
    arrived(collector.jaeger, stuck)
    wait_until(lambda: sum(samples_of(page, IN_FLIGHT, under_way)) == 0, "nothing is under way", SECONDS)


def test_with_the_option_runs_are_decided_on_by_the_observer_and_requests_by_the_collector(
    server_programs: Mapping[str, Path], tmp_path: Path
) -> None:
    variables = {
        "OTELCOL_SAMPLING_PERCENT": "0",
        "OTELCOL_SAMPLING_SLOW_MS": "1000",
        "OTELCOL_SAMPLING_WAIT": "3s",
        "OTELCOL_SAMPLING_WAIT_AFTER_ROOT": "1s",
    }
    program = server_programs["otel-collector"]
    with lone_collector(program, tmp_path, "otel-collector-sampling.yaml", **variables) as collector:
        # A request that a step of a run made was dropped long before the run ended.
        run_id = uuid4().int
        parent = SpanContext(run_id, 7, is_remote=True)
        request = span(trace_id=run_id, parent=parent)
        failed, slow, other = span(failed=True), span(seconds=2), span()
        send(over_http(collector), request, failed, slow, other)
        for receiver in (collector.jaeger, collector.mlflow):
            for kept in (failed, slow):
                arrived(receiver, kept)
        # The observer sends these when the run has ended, hours later as far as the collector knows.
        step, root = span(trace_id=run_id, parent=parent), span(trace_id=run_id)
        send(over_http(collector, "decided"), step, root)
        for receiver in (collector.jaeger, collector.mlflow):
            for kept in (step, root):
                arrived(receiver, kept)
            assert span_in(receiver, other) is None
            assert span_in(receiver, request) is None
