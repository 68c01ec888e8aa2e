"""Tests traces of processes that are not steps: sent at the end of the work, or given up in time."""

import logging
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Tracer

from ledgerline.testing.ports import HOST
from ledgerline.traces.exporting import QuietExporter, tracer_until_sent
from ledgerline.traces.telemetry import Telemetry, otlp_exporter
from tests.observability.collectors import Answer, Collector, grpc_collector, http_collector

if TYPE_CHECKING:
    from mlflow import MlflowClient

# An export of a span takes milliseconds; a dead target must not cost much more than its own limits.


def no_mlflow() -> "tuple[MlflowClient, str]":
    raise AssertionError("Nothing is to be sent to MLflow.")


def work(tracer: Tracer) -> None:
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        pass


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ledgerline.traces.exporting"]


@pytest.fixture
def http() -> Iterator[Collector]:
    with http_collector() as collector:
        yield collector


def to(collector: Collector) -> Telemetry:
    return Telemetry(endpoint=f"{collector.url}/v1/traces")


def test_spans_have_arrived_when_the_work_is_over(http: Collector) -> None:
    with tracer_until_sent(to(http), no_mlflow, "ledgerline.test") as tracer:
        work(tracer)
        assert http.requests == []
    inner, outer = http.spans
    assert (inner.name, outer.name) == ("inner", "outer")
    assert inner.parent_span_id == outer.span_id
    assert http.request.resource["service.name"] == "ledgerline"


def test_spans_arrive_over_grpc_as_well() -> None:
    with grpc_collector() as collector:
        settings = Telemetry(endpoint=collector.url, protocol="grpc")
        with tracer_until_sent(settings, no_mlflow, "ledgerline.test") as tracer:
            work(tracer)
        assert [span.name for span in collector.spans] == ["inner", "outer"]


def test_work_that_fails_is_sent_and_fails_as_it_would_have(http: Collector) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracer_until_sent(to(http), no_mlflow, "ledgerline.test") as tracer,
        tracer.start_as_current_span("outer"),
    ):
        raise ZeroDivisionError
    assert [span.name for span in http.spans] == ["outer"]


def test_without_spans_no_exporter_is_opened() -> None:
    with (
        tracer_until_sent(Telemetry(disabled=True), no_mlflow, "ledgerline.test") as tracer,
        tracer.start_as_current_span("outer") as span,
    ):
        assert not span.is_recording()


def test_a_trace_that_is_not_kept_is_not_sent(http: Collector) -> None:
    settings = Telemetry(endpoint=f"{http.url}/v1/traces", ratio=0.0)
    with tracer_until_sent(settings, no_mlflow, "ledgerline.test") as tracer:
        work(tracer)
    assert http.requests == []


def test_half_of_all_traces_are_kept_whole(http: Collector) -> None:
    settings = Telemetry(endpoint=f"{http.url}/v1/traces", ratio=0.5)
    with tracer_until_sent(settings, no_mlflow, "ledgerline.test") as tracer:
        for _ in range(100):
            work(tracer)
    traces = [span.trace_id for span in http.spans]
    assert 0 < len(set(traces)) < 100
    assert len(traces) == 2 * len(set(traces))


def test_an_unavailable_collector_is_reported_once(
    free_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    gone = Telemetry(endpoint=f"http://{HOST}:{free_port}/v1/traces")
    with tracer_until_sent(gone, no_mlflow, "ledgerline.test") as tracer:
        work(tracer)
    assert [message.partition(":")[0] for message in messages(caplog)] == ["Traces cannot be sent"]


def test_a_collector_that_does_not_respond_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.create_server((HOST, 0)) as silent:
        endpoint = f"http://{HOST}:{silent.getsockname()[1]}/v1/traces"
        with tracer_until_sent(Telemetry(endpoint=endpoint), no_mlflow, "ledgerline.test") as tracer:
            work(tracer)
        assert [message.partition(":")[0] for message in messages(caplog)] == ["Traces cannot be sent"]


def test_an_mlflow_that_cannot_be_opened_is_reported_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refusing() -> "tuple[MlflowClient, str]":
        raise PermissionError("not yours")

    with tracer_until_sent(Telemetry(), refusing, "ledgerline.test") as tracer:
        work(tracer)
    assert messages(caplog) == ["Traces cannot be sent: not yours"]


class Moody(SpanExporter):
    """Accepts spans, or raises an error."""

    def __init__(self) -> None:
        self.fails = False
        self.taken = 0
        self.shut_down = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.fails:
            raise OSError("out of order")
        self.taken += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.shut_down += 1


CONTEXT = SpanContext(7, 8, is_remote=False)
SPAN = ReadableSpan("span", CONTEXT, start_time=1, end_time=2)


def test_an_outage_and_its_end_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    moody = Moody()
    exporter = QuietExporter(lambda: moody)
    for fails in (False, True, True, False, False):
        moody.fails = fails
        exporter.export([SPAN])
    assert moody.taken == 3
    assert messages(caplog) == ["Traces cannot be sent: out of order", "Traces are sent again."]


def test_an_ended_exporter_accepts_no_spans_and_ends_once() -> None:
    moody = Moody()
    exporter = QuietExporter(lambda: moody)
    exporter.export([SPAN])
    for _ in range(2):
        exporter.shutdown()
    assert exporter.export([SPAN]) is SpanExportResult.FAILURE
    assert (moody.taken, moody.shut_down) == (1, 1)


def test_a_login_page_is_reported_once_and_a_too_large_span_is_sent_without_its_attributes(
    http: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    page = Answer(headers={"Content-Type": "text/html"}, body=b"<html>Sign in")
    http.answers = lambda request: page
    exporter = QuietExporter(lambda: otlp_exporter(to(http)))
    for _ in range(3):
        assert exporter.export([SPAN]) is SpanExportResult.FAILURE
    (once,) = messages(caplog)
    assert once.startswith("Traces cannot be sent: it responds with status 200 and an HTML page")
    http.answers = lambda request: Answer(413) if request.message.ByteSize() > 10_000 else None
    large = ReadableSpan("large", CONTEXT, attributes={"prompt": "x" * 40_000}, start_time=1, end_time=2)
    assert exporter.export([large]) is SpanExportResult.SUCCESS
    assert [span.name for span in http.spans] == ["large"]
    assert messages(caplog) == [once, "Traces are sent again."]


def test_spans_of_agents_and_servers_are_bounded_as_well(http: Collector) -> None:
    with (
        tracer_until_sent(to(http), no_mlflow, "ledgerline.test") as tracer,
        tracer.start_as_current_span("ask") as span,
    ):
        span.set_attribute("prompt", "x" * 1_000_000)
        span.set_attribute("tokens", 2**70)
        span.add_event("e" * 1_000_000)
    (found,) = http.spans
    assert found.ByteSize() < 100_000
    assert {each.key for each in found.attributes} == {"prompt", "tokens"}
