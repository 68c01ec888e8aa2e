"""Tests the projection of traces where a collector is down or refuses spans."""

import os
import re
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import TargetUnavailableError
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import attributes as names
from ledgerline.traces.deliveries import REQUEST_SPANS
from ledgerline.traces.otlp_responses import ExportFailedError, WrongTargetError
from ledgerline.traces.projection import FIRST_PAUSE_SECONDS, TraceProjection
from ledgerline.traces.telemetry import GRPC, HTTP, Telemetry, otlp_exporter
from tests.observability.collectors import Answer, http_collector, partial_success
from tests.observability.exported_spans import root_of, spans_of
from tests.observability.fake_exporter import BACKFILL, TARGET, Export, FakeExporter, projection_to


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove the settings of the machine, and set a timeout of one second."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    return monkeypatch


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SpanExportResult.FAILURE, "the log has the reason"),
        (ConnectionError("nobody answers"), "nobody answers"),
        (KeyError("endpoint"), "endpoint"),
    ],
    ids=["a failure", "an error", "a bug"],
)
def test_a_refused_batch_names_its_target_and_is_sent_by_the_next_export(
    exporter: FakeExporter,
    history: RunHistory,
    export: Export,
    answer: SpanExportResult | Exception,
    reason: str,
) -> None:
    projection = projection_to(exporter)
    exporter.answers = [answer]
    with pytest.raises(TargetUnavailableError) as caught:
        export(projection, history)
    assert f"{TARGET} does not accept traces" in str(caught.value)
    assert reason in str(caught.value)
    assert exporter.spans == []
    assert export(projection, history) == len(exporter.spans) == len(spans_of(history))


def test_a_refused_batch_in_the_middle_holds_back_the_following_ones(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["ops"].history
    steps = tuple(replace(history.attempts[0], step=f"fetch {number}") for number in range(REQUEST_SPANS))
    exporter.answers = [SpanExportResult.SUCCESS, SpanExportResult.FAILURE]
    with pytest.raises(TargetUnavailableError):
        export(projection_to(exporter), replace(history, attempts=steps))
    assert len(exporter.spans) == REQUEST_SPANS
    assert all(span.parent is not None for span in exporter.spans)


def test_a_refused_backfill_is_reported_too(exporter: FakeExporter) -> None:
    exporter.answers = [SpanExportResult.FAILURE]
    with pytest.raises(TargetUnavailableError, match=TARGET):
        projection_to(exporter).export_backfill(BACKFILL)


def test_an_exporter_that_cannot_be_opened_is_opened_again(history: RunHistory, export: Export) -> None:
    working = FakeExporter()
    broken: list[Exception] = [FileNotFoundError("ca.pem"), ValueError("no port")]

    def open_exporter() -> SpanExporter:
        if broken:
            raise broken.pop(0)
        return working

    projection = TraceProjection(TARGET, open_exporter, Telemetry())
    for reason in ("ca.pem", "no port"):
        with pytest.raises(TargetUnavailableError, match=reason):
            export(projection, history)
    assert export(projection, history) == len(working.spans)


def test_an_exporter_that_raised_is_not_used_again(
    exporter: FakeExporter, history: RunHistory, export: Export
) -> None:
    projection = projection_to(exporter)
    exporter.answers = [ConnectionError("nobody answers"), SpanExportResult.SUCCESS]
    with pytest.raises(TargetUnavailableError):
        export(projection, history)
    export(projection, history)
    assert exporter.opened == 2


def test_no_message_contains_a_password(exporter: FakeExporter, history: RunHistory, export: Export) -> None:
    # MLflow's client repeats the URL in its errors.
    exporter.answers = [
        ConnectionError("API request to http://user:pa55word@mlflow.example/v1/traces failed")
    ]
    with pytest.raises(TargetUnavailableError) as caught:
        export(projection_to(exporter), history)
    assert "pa55word" not in str(caught.value)
    assert "http://user:[redacted]@mlflow.example/v1/traces failed" in str(caught.value)


@pytest.fixture
def stopped_collector() -> str:
    """Return the URL of a collector that has stopped."""
    with http_collector() as collector:
        return collector.url


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_collector_that_is_down_is_an_unavailable_target(
    environment: pytest.MonkeyPatch,
    stopped_collector: str,
    protocol: str,
    history: RunHistory,
    export: Export,
) -> None:
    assert_unavailable(environment, stopped_collector, protocol, history, export)


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
@pytest.mark.parametrize("endpoint", ["nonsense", "http://[::1", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_an_invalid_endpoint_is_an_unavailable_target(
    environment: pytest.MonkeyPatch, endpoint: str, protocol: str, history: RunHistory, export: Export
) -> None:
    assert_unavailable(environment, endpoint, protocol, history, export)


@pytest.mark.parametrize(("name", "value"), [("COMPRESSION", "zip"), ("TIMEOUT", "soon")])
def test_a_setting_that_grpc_refuses_is_an_unavailable_target(
    environment: pytest.MonkeyPatch, name: str, value: str, history: RunHistory, export: Export
) -> None:
    environment.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    error = assert_unavailable(environment, TARGET, GRPC, history, export)
    assert value in str(error)


def assert_unavailable(
    environment: pytest.MonkeyPatch, endpoint: str, protocol: str, history: RunHistory, export: Export
) -> TargetUnavailableError:
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    telemetry = Telemetry(endpoint=endpoint, protocol=protocol)
    projection = TraceProjection(endpoint, lambda: otlp_exporter(telemetry), telemetry)
    with pytest.raises(TargetUnavailableError) as caught:
        export(projection, history)
    assert str(caught.value).startswith(f"{endpoint} does not accept traces")
    return caught.value


def test_a_collector_receives_everything_after_an_outage(
    environment: pytest.MonkeyPatch, history: RunHistory, export: Export
) -> None:
    with http_collector() as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        telemetry = Telemetry(endpoint=collector.url)
        projection = TraceProjection(collector.url, lambda: otlp_exporter(telemetry), telemetry)
        collector.refuses = [408]
        with pytest.raises(TargetUnavailableError, match="408 Request Timeout"):
            export(projection, history)
        assert export(projection, history) == len(collector.spans)
        assert collector.request.resource["service.name"] == "ledgerline"
        assert collector.spans[-1].parent_span_id == b""


def test_a_target_that_accepts_no_spans_is_tried_less_and_less_often(
    exporter: FakeExporter, history: RunHistory, export: Export
) -> None:
    now = 0.0
    projection = TraceProjection(TARGET, exporter.open, Telemetry(), clock=lambda: now)
    for pause in (5, 10, 20, 40, 80, 160, 300, 300):
        exporter.answers = [WrongTargetError("it redirects (302) to https://login.example/")]
        with pytest.raises(TargetUnavailableError, match="redirects"):
            export(projection, history)
        now += pause - 1
        with pytest.raises(TargetUnavailableError, match=r"login\.example"):
            export(projection, history)
        assert exporter.answers == []
        now += 1
    assert export(projection, history) == len(exporter.spans)
    exporter.answers = [WrongTargetError("no"), ExportFailedError("away")]
    for _ in range(2):
        with pytest.raises(TargetUnavailableError):
            export(projection, history)
        now += 5
    # An outage is not waited for.
    assert export(projection, history) > 0


def test_a_trace_without_accepted_spans_waits_alone_until_the_target_refuses_another(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    now = 0.0
    refused, other, third = (recorded[name].history for name in ("processes", "errors", "canceled"))
    projection = TraceProjection(TARGET, exporter.open, Telemetry(), clock=lambda: now)

    def is_tried(history: RunHistory) -> bool:
        exporter.answers = [WrongTargetError("400")]
        with pytest.raises(TargetUnavailableError, match="400"):
            export(projection, history)
        return not exporter.answers

    assert is_tried(refused)
    assert not is_tried(refused)
    exporter.answers = []
    assert export(projection, other) == len(exporter.spans)
    # Two are refused and none is taken between them: it is not the traces, and a third is not tried.
    now += FIRST_PAUSE_SECONDS
    assert [is_tried(refused), is_tried(other), is_tried(third), is_tried(refused)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_run_of_very_many_assets_has_spans_that_every_receiver_accepts(
    exporter: FakeExporter, history: RunHistory, export: Export
) -> None:
    (attempt, *_) = [each for each in history.attempts if each.materialisations]
    (written, *_) = attempt.materialisations
    many = tuple(
        replace(written, asset=f"warehouse/{'schema' * 20}/{number}", data_version="f" * 64)
        for number in range(10_000)
    )
    export(projection_to(exporter), replace(history, attempts=(replace(attempt, materialisations=many),)))
    for span in exporter.spans:
        assert sum(len(repr(value)) for value in (span.attributes or {}).values()) < 200_000
        for value in (span.attributes or {}).values():
            assert len(repr(value)) <= 51_000
    root = root_of(exporter.spans).attributes or {}
    assert re.search("dagster.asset.keys: [0-9]+ kept, [0-9,]+ left out", repr(root[names.CUT]))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(307, headers={"Location": "/elsewhere"}),
        Answer(headers={"Content-Type": "text/html"}, body=b"<html>"),
        Answer(
            headers={"Content-Type": "application/x-protobuf"},
            body=partial_success(1, "no").SerializeToString(),
        ),
    ],
    ids=["redirect", "login page", "partial success"],
)
def test_a_trace_that_was_not_accepted_is_sent_when_the_receiver_works_again(
    history: RunHistory, export: Export, answer: Answer
) -> None:
    now = 0.0
    with http_collector() as collector:
        telemetry = Telemetry(endpoint=f"{collector.url}/v1/traces")
        projection = TraceProjection(
            collector.url, lambda: otlp_exporter(telemetry), telemetry, clock=lambda: now
        )
        collector.answers = lambda request: answer
        with pytest.raises(TargetUnavailableError):
            export(projection, history)
        collector.answers = lambda request: None
        now += FIRST_PAUSE_SECONDS
        assert export(projection, history) == len(collector.spans) == len(spans_of(history))
