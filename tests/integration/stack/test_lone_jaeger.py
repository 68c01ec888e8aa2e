"""Tests that the storage of a real Jaeger accepts the largest spans within the bounds."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from ledgerline.testing.waiting import wait_until
from ledgerline.traces.deliveries import Delivery
from ledgerline.traces.span_bounds import bounded_resource
from ledgerline.traces.telemetry import Telemetry, otlp_exporter
from tests.integration.stack.lone_jaeger import LoneJaeger, lone_jaeger

SECONDS = 60
NASTY = '\u2028\\"<é\x00\x1f\U0001f6eb'  # what JSON, UTF-8 or the cleaner make longer

LARGE: dict[str, dict[str, Any]] = {
    "asset keys": {"dagster.asset.keys": [f"warehouse/{NASTY}/{number}" for number in range(10_000)]},
    "a text": {"text": NASTY * 50_000},
    "a list of long texts": {"list": [NASTY * 1_000] * 1_000},
    "a map": {"map": {NASTY * 100 + str(number): {"deep": [NASTY]} for number in range(2_000)}},
    "bytes": {"bytes": bytes(range(256)) * 1_000},
    "a key": {NASTY * 10_000: NASTY * 10_000},
    "numbers": {"loss": float("nan"), "losses": [float("inf")] * 2_000, "count": 2**70},
    "much of everything": {f"{number} {NASTY * 50}": NASTY * 2_000 for number in range(150)},
}


@pytest.fixture(scope="module")
def jaeger(
    server_programs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoneJaeger]:
    with lone_jaeger(server_programs["jaeger"], tmp_path_factory.mktemp("jaeger")) as jaeger:
        yield jaeger


@pytest.mark.parametrize("attributes", LARGE.values(), ids=LARGE)
def test_jaeger_stores_the_largest_spans_that_are_sent(
    jaeger: LoneJaeger, attributes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    trace_id, now = uuid4().int, time.time_ns()
    span = ReadableSpan(
        name=NASTY * 10_000,
        context=SpanContext(trace_id, 7, is_remote=False),
        resource=bounded_resource(Resource({"service.name": NASTY * 10_000, **attributes})),
        attributes=attributes,
        events=[Event(NASTY * 10_000, attributes, timestamp=now)] * 150,
        links=[Link(SpanContext(3, 4, is_remote=True), attributes)] * 150,
        status=Status(StatusCode.ERROR, NASTY * 10_000),
        start_time=now,
        end_time=now + 1,
    )
    settings = Telemetry(endpoint=jaeger.endpoint)
    assert Delivery("Jaeger", lambda: otlp_exporter(settings)).send([span]) == 1
    assert not [record for record in caplog.records if record.name.startswith("ledgerline")]
    found = wait_until(
        lambda: jaeger.traces.trace_of(f"{trace_id:032x}").spans, "Jaeger has the span", SECONDS
    )
    assert len(found) == 1
