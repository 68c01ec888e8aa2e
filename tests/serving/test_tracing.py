"""Tests spans of requests in the targets of traces: a collector, MLflow, or none."""

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from opentelemetry.trace import SpanKind

from ledgerline.ledger import ids
from ledgerline.serving.tracing import SomePerSecond, Tracing, exporter_for
from ledgerline.settings.shared import TraceVariables
from ledgerline.testing.loopback_servers import listening
from ledgerline.testing.otlp_receivers import Receiver
from ledgerline.testing.ports import HOST
from ledgerline.testing.received_traces import ReceivedSpan
from ledgerline.testing.waiting import wait_until
from ledgerline.traces.exporting import QuietExporter
from ledgerline.traces.telemetry import Telemetry
from tests.serving.conftest import MODEL, Running, Serve, ServedModels, flight_rows, running, serving_settings
from tests.serving.scripted_versions import SCRIPTED, SCRIPTED_SERVING, row_with, scripted_version

SECONDS = 120.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
# The specification calls it false if it is anything else.
TRACED = {"OTEL_SDK_DISABLED": "false", "LEDGERLINE_SERVING_TRACES_PER_SECOND": "1000"}


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with listening(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the log messages about traces so far."""
    caplog.set_level(logging.INFO)
    return lambda: [
        record.getMessage() for record in caplog.records if record.name == "ledgerline.traces.exporting"
    ]


def ask(service: Running, content: object, path: str = "/invocations", **headers: str) -> requests.Response:
    return requests.post(f"{service.url}{path}", json=content, headers=headers, timeout=SECONDS)


def flights(count: int) -> dict[str, object]:
    return {"dataframe_records": json.loads(flight_rows(count).to_json(orient="records"))}


def trace_of(answer: requests.Response) -> str:
    return answer.headers["traceparent"].split("-")[1]


def span_of(collector: Receiver, answer: requests.Response) -> ReceivedSpan:
    """Return the only span of the trace of a response, once it has arrived."""
    trace_id = trace_of(answer)
    wait_until(lambda: trace_id in collector.trace_ids, "the trace arrives")
    (span,) = collector.trace(str(uuid.UUID(trace_id))).spans
    return span


def trained_by_a_run(models: ServedModels) -> tuple[str, str]:
    """Serve a version that names the run that trained it; returns the run and the hash of the version."""
    run_id = str(uuid.uuid4())
    version = models.version()
    models.client.set_model_version_tag(MODEL, str(version.number), "dagster.run_id", run_id)
    models.serve(version)
    return run_id, version.tags["sha256"]


# Attributes


def test_a_span_has_the_request_the_version_and_its_training_run(
    served_models: ServedModels, serve: Serve, collector: Receiver
) -> None:
    run_id, sha256 = trained_by_a_run(served_models)
    with serve(**TRACED, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        answer = ask(service, flights(3))
        span = span_of(collector, answer)

    assert answer.status_code == 200
    assert answer.headers["traceparent"].split("-")[2] == span.span_id
    assert (span.name, span.parent_id, span.failed) == ("POST /invocations", None, False)
    assert 0 < span.ended - span.started < SECONDS * 1e9
    timed = {"ml.answer.waited_seconds", "ml.answer.predict_seconds"}
    for name in timed:
        seconds = span.attributes[name]
        assert isinstance(seconds, float)
        assert 0 <= seconds < SECONDS
    assert {name: value for name, value in span.attributes.items() if name not in timed} == {
        "http.request.header.x-request-id": answer.headers["X-Request-Id"],
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/invocations",
        "url.path": "/invocations",
        "url.scheme": "http",
        "ml.model.name": MODEL,
        "ml.model.version": 1,
        "ml.model.alias": "production",
        "ml.model.sha256": sha256,
        "ml.model.training_run_id": run_id,
        "ml.answer.rows": 3,
        "ml.answer.batch_rows": 3,
        "mlflow.spanType": "TASK",
    }
    assert span.links == [(uuid.UUID(run_id).hex, f"{ids.run_span_id(run_id):016x}")]


def test_spans_of_refusals_and_failures_have_the_status_of_their_cause(
    served_models: ServedModels, serve: Serve, collector: Receiver
) -> None:
    served_models.serve(scripted_version(served_models))
    with serve(**SCRIPTED_SERVING, **TRACED, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        refused = span_of(collector, ask(service, row_with("fail")))
        failed = span_of(collector, ask(service, row_with("unsayable")))
        unknown = span_of(collector, ask(service, {}, "/nowhere/s3cret?query=1"))

    assert (refused.failed, refused.attributes["http.response.status_code"]) == (False, 400)
    assert "error.type" not in refused.attributes
    assert (failed.failed, failed.attributes["http.response.status_code"]) == (True, 500)
    assert failed.attributes["error.type"] == "500"
    # A name for each requested path would be too many names.
    assert (unknown.name, unknown.attributes["url.path"]) == ("POST", "/nowhere/s3cret")
    assert "http.route" not in unknown.attributes
    assert (unknown.links, "ml.model.name" in unknown.attributes) == ([], False)
    # The author of this version is not recorded.
    assert refused.links == []
    assert refused.attributes["ml.model.name"] == SCRIPTED


def test_a_caller_decides_whether_its_trace_is_kept(
    served_models: ServedModels, serve: Serve, collector: Receiver
) -> None:
    served_models.serve(served_models.version())
    never = TRACED | {"LEDGERLINE_SERVING_TRACES_PER_SECOND": "0"}
    other = "1" * 32
    with serve(**never, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        kept = ask(service, flights(1), **CALLER)
        dropped = ask(service, flights(1), traceparent=f"00-{other}-{PARENT}-00")
        own = ask(service, flights(1))
        span = span_of(collector, kept)

    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert kept.headers["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert dropped.headers["traceparent"].startswith(f"00-{other}-")
    assert dropped.headers["traceparent"].endswith("-00")
    # The end of the service sends what is left: there was nothing.
    assert collector.trace_ids == {TRACE}
    assert trace_of(own) not in collector.trace_ids


def test_spans_of_the_last_requests_arrive(
    served_models: ServedModels, serve: Serve, collector: Receiver
) -> None:
    with serve(**TRACED, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        answers = [ask(service, flights(1)) for _ in range(5)]

    assert {trace_of(answer) for answer in answers} == collector.trace_ids
    assert all(answer.status_code == 503 for answer in answers)


# Exporters


def test_without_a_collector_traces_go_to_mlflow(mlflow_server: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    models = ServedModels(mlflow_server, None)
    name = f"traced-{uuid.uuid4().hex}"
    version = models.version(name)
    models.serve(version)
    settings = serving_settings(tmp_path, mlflow_server, **TRACED, LEDGERLINE_SERVING_MODELS=name)
    with running(settings) as service:
        answer = ask(service, flights(2))

    assert answer.status_code == 200
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("serving")
    assert experiment is not None
    trace = client.get_trace(f"tr-{trace_of(answer)}")
    assert trace.info.experiment_id == experiment.experiment_id
    assert trace.info.state == "OK"
    (span,) = trace.data.spans
    assert span.name == "POST /invocations"
    assert span.attributes["ml.model.name"] == name
    assert span.attributes["ml.answer.rows"] == 2


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_no_traces_are_made_where_opentelemetry_is_off(
    serve: Serve, collector: Receiver, off: dict[str, str]
) -> None:
    with serve(**TRACED | off, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        requests.get(f"{service.url}/ping", timeout=SECONDS)
        requests.get(f"{service.url}/ping", headers=CALLER, timeout=SECONDS)

    assert collector.requests == 0


def test_a_share_of_traces_is_the_share_that_steps_keep_too(serve: Serve, collector: Receiver) -> None:
    half = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    settings = {**TRACED, **half, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with serve(**settings) as service, requests.Session() as session:
        # No version is active yet: that is traced, too.
        answers = [session.post(f"{service.url}/invocations", timeout=SECONDS) for _ in range(40)]

    traces = {trace_of(answer) for answer in answers}
    assert collector.trace_ids == {trace for trace in traces if ids.is_sampled(int(trace, 16), 0.5)}


# An unavailable collector


def test_an_outage_of_the_collector_delays_no_response_and_is_logged_once(
    served_models: ServedModels,
    serve: Serve,
    logged: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")  # how long it tries again for
    served_models.serve(served_models.version())
    collector = Receiver()
    collector.start()
    collector.stop()
    with serve(**TRACED, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        lost = ask(service, flights(1))
        wait_until(logged, "the outage is logged")
        also_lost = [ask(service, flights(1)) for _ in range(3)]
        with listening(collector):

            def sent() -> bool:
                ask(service, flights(1))
                return "Traces are sent again." in logged()

            wait_until(sent, "traces are exported again")
            kept = ask(service, flights(1))
            span_of(collector, kept)

    assert [answer.status_code for answer in (lost, *also_lost, kept)] == [200] * 5
    assert logged() == [
        "Traces cannot be sent: it does not respond; the log has the reason",
        "Traces are sent again.",
    ]
    assert trace_of(lost) not in collector.trace_ids


def test_an_end_does_not_wait_until_a_collector_is_back() -> None:
    """The exporter waits for a response until its timeout, which here is infinite."""
    with socket.create_server((HOST, 0)) as silent:
        endpoint = f"http://{HOST}:{silent.getsockname()[1]}"
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "86400"}
        telemetry = Telemetry.of(TraceVariables.from_environment(variables))
        before = set(threading.enumerate())
        tracing = Tracing(exporter_for(telemetry, ""), telemetry.keeps, 1000)
        tracing.begin("POST", {}).end()
        tracing.stop()
        # It was sent, and is still without an answer.
        connection, _ = silent.accept()
        connection.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(SECONDS)  # it reports that the span was not accepted, which is not for the next test


def test_an_exporter_that_cannot_be_created_is_tried_again(logged: Callable[[], list[str]]) -> None:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    attempts: list[int] = []
    memory = InMemorySpanExporter()

    def third_time_lucky() -> SpanExporter:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("nobody is there")
        return memory

    exporter = QuietExporter(third_time_lucky)
    results = [exporter.export([ReadableSpan("span")]) for _ in range(4)]
    exporter.shutdown()
    exporter.shutdown()

    failure, success = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    assert results == [failure, failure, success, success]
    assert len(attempts) == 3
    assert logged() == ["Traces cannot be sent: nobody is there", "Traces are sent again."]
    assert exporter.export([ReadableSpan("span")]) is failure


# How many


QUESTION = {"http.request.method": "POST"}


def kept_of(sampler: SomePerSecond, count: int) -> int:
    decisions = [
        sampler.should_sample(None, number, "POST", SpanKind.SERVER, QUESTION) for number in range(count)
    ]
    return sum(decision.decision.is_sampled() for decision in decisions)


def test_a_few_of_many_requests_in_a_second_are_sampled() -> None:
    started = time.monotonic()
    kept = kept_of(SomePerSecond(lambda _: True, 5), 1000)
    taken = time.monotonic() - started

    assert 5 <= kept <= 5 + 5 * taken


def test_health_checks_do_not_use_up_the_sampling_limit() -> None:
    sampler = SomePerSecond(lambda _: True, 1)

    watched = [sampler.should_sample(None, number, "GET", SpanKind.SERVER, {"http.request.method": "GET"})
               for number in range(10)]  # fmt: skip

    assert not any(decision.decision.is_sampled() for decision in watched)
    assert kept_of(sampler, 1) == 1


def test_the_next_second_has_new_traces() -> None:
    sampler = SomePerSecond(lambda _: True, 200)
    kept_of(sampler, 1000)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > 0.1, "a tenth of a second has passed")

    assert kept_of(sampler, 1000) >= 20


def test_after_a_quiet_time_no_more_are_kept_than_otherwise() -> None:
    sampler = SomePerSecond(lambda _: True, 10)
    sampler._at -= 3600

    assert kept_of(sampler, 1000) <= 11


@pytest.mark.parametrize(("per_second", "kept"), [(0.0, 0), (0.001, 1), (0.5, 1)])
def test_a_rate_below_one_samples_some_traces_and_zero_samples_none(per_second: float, kept: int) -> None:
    sampler = SomePerSecond(lambda _: True, per_second)
    sampler._at -= 3600  # long ago

    assert kept_of(sampler, 1000) == kept


def test_traces_that_are_not_kept_by_their_id_take_nobodys_place() -> None:
    odd = SomePerSecond(lambda trace: trace % 2 == 1, 3)

    decisions = [odd.should_sample(None, number, "POST", SpanKind.SERVER, QUESTION) for number in range(6)]

    assert [decision.decision.is_sampled() for decision in decisions] == [False, True] * 3
