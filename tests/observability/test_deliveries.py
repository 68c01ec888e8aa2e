"""Tests spans sent to real receivers that accept them, refuse some of them, or accept none."""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext

from ledgerline.traces import attributes as names
from ledgerline.traces.deliveries import REQUEST_BYTES, REQUEST_SPANS, Delivery
from ledgerline.traces.otlp_responses import ExportFailedError, SpansRejectedError, WrongTargetError
from ledgerline.traces.telemetry import GRPC, HTTP, Telemetry, otlp_exporter
from tests.observability.collectors import (
    Answer,
    Collector,
    Request,
    grpc_collector,
    http_collector,
    partial_success,
)

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
RESOURCE = Resource({"service.name": "tests"})
PROTOBUF = {"Content-Type": "application/x-protobuf"}
GRPC_LIMIT = 4 * 1024 * 1024  # of a server with default settings


@dataclass(frozen=True)
class Way:
    """A protocol, and a receiver of it."""

    protocol: str
    receiver: Callable[[], AbstractContextManager[Collector]]

    def delivery(self, collector: Collector) -> Delivery:
        path = "/v1/traces" if self.protocol == HTTP else ""
        settings = Telemetry(endpoint=collector.url + path, protocol=self.protocol)
        return Delivery("the receiver", lambda: otlp_exporter(settings))


WAYS = {"http": Way(HTTP, http_collector), "grpc": Way(GRPC, grpc_collector)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def collector(way: Way) -> Iterator[Collector]:
    with way.receiver() as collector:
        yield collector


@pytest.fixture
def http() -> Iterator[Collector]:
    with http_collector() as collector:
        yield collector


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's own settings, and leave a busy machine time for its responses."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")


def span(number: int, **attributes: object) -> ReadableSpan:
    return ReadableSpan(
        name=f"span {number}",
        context=SpanContext(TRACE_ID, number + 1, is_remote=False),
        parent=SpanContext(TRACE_ID, 1, is_remote=False),
        resource=RESOURCE,
        attributes=attributes,  # pyright: ignore[reportArgumentType]  (a step gives what it likes)
        events=[Event("event", {"number": number}, timestamp=1)],
        start_time=1_000,
        end_time=2_000,
    )


def retry_after(seconds: int) -> dict[str, bytes]:
    """Return trailers that mean what Retry-After means over HTTP.

    The library waits so long, or fails at once if its time ends before.
    """
    delay = RetryInfo(retry_delay=Duration(seconds=seconds))
    return {"google.rpc.retryinfo-bin": delay.SerializeToString()}


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ledgerline.traces.deliveries"]


def received(collector: Collector) -> dict[str, list[str]]:
    """Return the received spans with the keys of their attributes; the last one of an id counts."""
    return {found.name: [each.key for each in found.attributes] for found in collector.spans}


def has(request: Request, key: str) -> bool:
    return any(each.key == key for found in request.spans for each in found.attributes)


def refusing(
    way: Way, refuses: Callable[[Request], bool], body: bytes = b"too much"
) -> Callable[[Request], Answer | None]:
    """A receiver that answers 400, or INVALID_ARGUMENT, to some requests."""
    answer = Answer(400, grpc.StatusCode.INVALID_ARGUMENT, body=body)
    return lambda request: answer if refuses(request) else None


# Spans that are refused for their content


def test_a_refused_span_is_exported_without_its_attributes_and_all_others_whole(
    way: Way, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.answers = refusing(way, lambda request: has(request, "poison"))
    spans = [span(number, **({"poison": 1} if number == 37 else {"rows": 1})) for number in range(100)]
    delivery = way.delivery(collector)
    for _ in range(2):
        assert delivery.send(spans) == 100
    found = received(collector)
    assert found.pop("span 37") == [names.CUT]
    assert len(found) == 99
    assert all(keys == ["rows"] for keys in found.values())
    (bare,) = [each for each in collector.spans[:100] if each.name == "span 37"]
    assert not bare.events
    assert (bare.parent_span_id.hex(), bare.start_time_unix_nano) == ("0000000000000001", 1_000)
    (once,) = logged_warnings(caplog)
    assert once.startswith("the receiver does not accept the span 'span 37' of the trace 0af76519")
    assert "too much" in once


def test_a_request_that_is_too_large_for_the_receiver_is_sent_in_smaller_ones(
    way: Way, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    details = b"grpc: received message larger than max (99 vs. 9)"
    too_large = Answer(413, grpc.StatusCode.RESOURCE_EXHAUSTED, body=details)
    collector.answers = lambda request: too_large if request.message.ByteSize() > 20_000 else None
    assert way.delivery(collector).send([span(number, text="x" * 1_000) for number in range(100)]) == 100
    assert len(received(collector)) == 100
    assert all(keys == ["text"] for keys in received(collector).values())
    assert logged_warnings(caplog) == []


def test_requests_are_small_enough_for_a_receiver_with_default_limits(way: Way, collector: Collector) -> None:
    spans = [span(number, text="é" * 20_000, more=["y" * 100] * 100) for number in range(500)]
    assert way.delivery(collector).send(spans) == 500
    assert not collector.refused
    assert len(collector.spans) == 500
    sizes = [request.message.ByteSize() for request in collector.requests]
    assert max(sizes) <= REQUEST_BYTES < GRPC_LIMIT
    assert sum(sizes) > 5 * GRPC_LIMIT
    assert min(sizes[:-1]) > REQUEST_BYTES / 2


def test_requests_have_as_many_spans_as_those_of_opentelemetry(way: Way, collector: Collector) -> None:
    assert (
        way.delivery(collector).send(span(number) for number in range(REQUEST_SPANS + 1)) == REQUEST_SPANS + 1
    )
    assert [len(request.spans) for request in collector.requests] == [REQUEST_SPANS, 1]


def test_a_receiver_that_was_out_of_order_for_a_moment_gets_the_whole_span(
    way: Way, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [Answer(500, grpc.StatusCode.INTERNAL)]
    collector.answers = lambda request: answers.pop() if answers else None
    way.delivery(collector).send([span(0, rows=1)])
    assert received(collector) == {"span 0": ["rows"]}
    assert logged_warnings(caplog) == []


# Spans that are rejected in an answer of success


def test_spans_that_an_answer_of_success_rejects_do_not_count_as_taken(
    way: Way, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    answer = Answer(headers=PROTOBUF, body=partial_success(1, "no poison").SerializeToString())
    collector.answers = lambda request: answer if has(request, "poison") else None
    spans = [span(number, **({"poison": 1} if number == 3 else {"rows": 1})) for number in range(8)]
    assert way.delivery(collector).send(spans) == 8
    assert received(collector)["span 3"] == [names.CUT]
    assert [keys for name, keys in received(collector).items() if name != "span 3"] == [["rows"]] * 7
    (once,) = logged_warnings(caplog)
    assert "it rejects 1 spans (partial success): no poison" in once


def test_a_receiver_that_rejects_all_spans_has_accepted_none(way: Way, collector: Collector) -> None:
    def rejects(request: Request) -> Answer:
        message = partial_success(len(request.spans), "quota exceeded")
        return Answer(headers=PROTOBUF, body=message.SerializeToString())

    collector.answers = rejects
    with pytest.raises(WrongTargetError, match=r"rejects 1 spans \(partial success\): quota exceeded"):
        way.delivery(collector).send([span(number) for number in range(4)])
    assert collector.requests == []


def test_a_warning_in_an_answer_of_success_is_a_success(way: Way, collector: Collector) -> None:
    answer = Answer(
        headers=PROTOBUF, body=partial_success(0, "you are using an old version").SerializeToString()
    )
    collector.answers = lambda request: answer
    assert way.delivery(collector).send([span(0)]) == 1
    assert len(collector.refused) == 1


@pytest.mark.parametrize("rejected", ["2", 2])
@pytest.mark.parametrize(
    "style", [("partialSuccess", "rejectedSpans"), ("partial_success", "rejected_spans")]
)
def test_json_rejects_spans_as_well(http: Collector, rejected: object, style: tuple[str, str]) -> None:
    outer, inner = style
    body = json.dumps({outer: {inner: rejected, "errorMessage": "not today"}}).encode()
    http.answers = lambda request: Answer(headers={"Content-Type": "application/json"}, body=body)
    with pytest.raises(WrongTargetError, match="rejects 2 spans"):
        WAYS["http"].delivery(http).send([span(0)])


# Responses that no receiver of spans sends


PAGE = b"<!DOCTYPE html><title>Sign in</title>"
NO_RECEIVERS = {
    "a redirect": (
        Answer(302, headers={"Location": "https://login.example/?next=secret"}),
        r"to https://login.example/\.",
    ),
    "a lasting redirect": (Answer(308, headers={"Location": "/v2/traces"}), "308"),
    "a redirect to nowhere": (Answer(303), "nowhere"),
    "an answer from a cache": (Answer(304), "304"),
    "a login page": (Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body=PAGE), "an HTML page"),
    "a page without a type": (Answer(body=b"\n <html>"), "an HTML page"),
    "no protobuf": (Answer(headers=PROTOBUF, body=b"\xff\xff"), "a body that is not OTLP"),
    "broken JSON": (Answer(headers={"Content-Type": "application/json"}, body=b"{"), "invalid JSON"),
    "no login": (Answer(401), "401"),
    "no permission": (Answer(403, body=b"key expired"), "403 Forbidden: key expired"),
    "another address": (Answer(404, headers={"Content-Type": "text/html"}, body=PAGE), "404 Not Found$"),
    "another method": (Answer(405), "405"),
    "another format": (Answer(415), "415"),
    "everything is wrong": (Answer(400, body=b"plain HTTP was sent to an HTTPS port"), "HTTPS port"),
    "everything fails": (Answer(500), "500"),
    "an error in JSON": (Answer(headers={"Content-Type": "application/json"}, body=b'{"error": "no"}'), "no"),
}


@pytest.mark.parametrize(("answer", "why"), NO_RECEIVERS.values(), ids=NO_RECEIVERS)
def test_a_server_that_is_not_a_receiver_over_http_has_accepted_none(
    http: Collector, answer: Answer, why: str
) -> None:
    http.answers = lambda request: answer
    with pytest.raises(WrongTargetError, match=why) as caught:
        WAYS["http"].delivery(http).send([span(number, rows=1) for number in range(300)])
    assert "secret" not in str(caught.value)
    assert len(http.refused) < 12  # not one for every span


@pytest.mark.parametrize(
    "code",
    ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL"],
)
def test_a_server_that_is_not_a_receiver_over_grpc_has_accepted_none(code: str) -> None:
    with grpc_collector() as collector:
        collector.answers = lambda request: Answer(code=grpc.StatusCode[code], body=b"because")
        with pytest.raises(WrongTargetError, match=f"it responds with status {code}: because"):
            WAYS["grpc"].delivery(collector).send([span(number) for number in range(300)])
        assert len(collector.refused) < 12


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"status": "ok"}', b'{"partialSuccess": {}}'])
def test_short_responses_of_success_are_successes(http: Collector, body: bytes) -> None:
    http.answers = lambda request: Answer(headers={"Content-Type": "application/json"}, body=body)
    assert WAYS["http"].delivery(http).send([span(0)]) == 1


def test_an_answer_in_plain_text_is_a_success(http: Collector) -> None:
    http.answers = lambda request: Answer(202, headers={"Content-Type": "text/plain"}, body=b"accepted")
    assert WAYS["http"].delivery(http).send([span(0)]) == 1


# Outages


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_an_outage_over_http_is_distinguished_from_a_refusal(http: Collector, status: int) -> None:
    body = RpcStatus(message="queue is full").SerializeToString()
    http.answers = lambda request: Answer(status, headers={**PROTOBUF, "Retry-After": "60"}, body=body)
    with pytest.raises(ExportFailedError, match=f"{status} .*: queue is full") as caught:
        WAYS["http"].delivery(http).send([span(number) for number in range(300)])
    assert type(caught.value) is ExportFailedError
    assert len(http.refused) == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_an_outage_over_grpc_is_distinguished_from_a_refusal(code: str) -> None:
    with grpc_collector() as collector:
        collector.answers = lambda request: Answer(
            code=grpc.StatusCode[code], body=b"quota used up", trailers=retry_after(60)
        )
        with pytest.raises(ExportFailedError, match="quota used up") as caught:
            WAYS["grpc"].delivery(collector).send([span(number) for number in range(300)])
        assert type(caught.value) is ExportFailedError
        assert all(len(request.spans) == 300 for request in collector.refused)


def test_the_reason_is_the_response_and_not_the_timeout_of_the_next_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    full = Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, body=b"quota used up", trailers=retry_after(0))
    ended = threading.Event()

    def answers(request: Request) -> Answer:
        if collector.refused:
            ended.wait()
        return full

    with grpc_collector() as collector:
        collector.answers = answers
        try:
            with pytest.raises(ExportFailedError, match="RESOURCE_EXHAUSTED: quota used up"):
                WAYS["grpc"].delivery(collector).send([span(0)])
        finally:
            ended.set()


def test_an_outage_in_the_middle_of_the_pieces_is_an_outage(way: Way, collector: Collector) -> None:
    answers = [
        Answer(413, grpc.StatusCode.INVALID_ARGUMENT),
        None,
    ]
    away = Answer(503, grpc.StatusCode.UNAVAILABLE, headers={"Retry-After": "60"}, trailers=retry_after(60))
    collector.answers = lambda request: answers.pop(0) if answers else away
    with pytest.raises(ExportFailedError) as caught:
        way.delivery(collector).send([span(0), span(1)])
    assert not isinstance(caught.value, SpansRejectedError | WrongTargetError)
    assert list(received(collector)) == ["span 0"]


def test_the_log_of_the_library_has_no_tracebacks(
    way: Way, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="opentelemetry")
    collector.answers = refusing(way, lambda request: has(request, "poison"))
    spans = [span(0, poison=1), span(1, count=2**63, ratio=float("nan"), nothing=None)]
    assert way.delivery(collector).send(spans) == 2
    assert not [record for record in caplog.records if record.exc_info]
