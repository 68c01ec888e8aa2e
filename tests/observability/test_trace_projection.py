"""Runs sent as traces: in batches, those that are kept, and what is said when they are not taken."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import dagster as dg
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.ledger import ids
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill, Projection, TargetUnavailableError
from ledgerline.testing.recordings import Recording, Recordings
from ledgerline.traces import attributes as names
from ledgerline.traces.deliveries import REQUEST_SPANS
from ledgerline.traces.otlp_responses import ExportFailedError, WrongTargetError
from ledgerline.traces.projection import FIRST_PAUSE_SECONDS, TraceProjection
from ledgerline.traces.telemetry import GRPC, HTTP, Telemetry, otlp_exporter
from tests.observability.collectors import Answer, http_collector, partial_success
from tests.observability.exported_spans import context_of, root_of, spans_of, whole

TARGET = "http://collector.example:4318"
LINKS = Links(dagster="http://dagster.example")
BACKFILL = Backfill("abcdefgh", 1_357_000_000.0, 1_357_000_100.0, "COMPLETED_SUCCESS", "all of January")


@dataclass
class FakeExporter(SpanExporter):
    """Takes spans, unless it is told to answer something else.

    Attributes:
        answers: What it says or raises to the next batches.
        batches: What it took.
    """

    answers: list[SpanExportResult | Exception] = field(default_factory=list)
    batches: list[Sequence[ReadableSpan]] = field(default_factory=list)
    opened: int = 0

    def open(self) -> "FakeExporter":
        self.opened += 1
        return self

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        if answer is SpanExportResult.SUCCESS:
            self.batches.append(list(spans))
        return answer

    @property
    def spans(self) -> list[ReadableSpan]:
        return [span for batch in self.batches for span in batch]


@pytest.fixture
def exporter() -> FakeExporter:
    return FakeExporter()


@pytest.fixture
def history(recorded: Recordings) -> RunHistory:
    return recorded["processes"].history


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of a person's own settings; and an answer within a second."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    return monkeypatch


def projection_to(exporter: FakeExporter, telemetry: Telemetry | None = None) -> TraceProjection:
    return TraceProjection(
        TARGET,
        exporter.open,
        telemetry or Telemetry(),
        LINKS,
        lambda run_id: f"http://mlflow.example/{run_id}",
    )


@pytest.fixture
def export(
    instance_of_runs: dg.DagsterInstance,
) -> Callable[[TraceProjection, RunHistory], int]:
    """Show all of a run."""
    return lambda projection, history: projection.export(instance_of_runs, history, None)


Export = Callable[[TraceProjection, RunHistory], int]


def test_it_is_a_projection_called_traces(exporter: FakeExporter) -> None:
    projection: Projection = projection_to(exporter)
    assert projection.name == "traces"


# Exported spans


def test_all_spans_of_a_run_are_sent_and_counted(
    exporter: FakeExporter, history: RunHistory, export: Export
) -> None:
    page = f"http://mlflow.example/{history.run.run_id}"
    expected = spans_of(history, links=LINKS, mlflow_page=page)
    assert export(projection_to(exporter), history) == len(expected)
    assert [whole(span) for span in exporter.spans] == [whole(span) for span in expected]
    root = root_of(exporter.spans).attributes or {}
    assert root[names.RUN_URL] == f"http://dagster.example/runs/{history.run.run_id}"
    assert root[names.MLFLOW_URL] == page
    assert all(span.resource.attributes["service.name"] == "ledgerline" for span in exporter.spans)


def test_only_what_is_new_is_sent(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    recording, projection = recorded["ops"], projection_to(exporter)
    before, sent = None, []
    for end in range(1, len(recording.records) + 1):
        now = recording.history_of(recording.records[:end])
        sent.append(projection.export(instance_of_runs, now, before))
        before = now
    assert sum(sent) == len(exporter.spans) == len(spans_of(recording.history))
    assert sent.count(0) > len(sent) / 2
    assert exporter.opened == 1


def test_nothing_new_opens_no_exporter(
    exporter: FakeExporter, history: RunHistory, instance_of_runs: dg.DagsterInstance
) -> None:
    assert projection_to(exporter).export(instance_of_runs, history, history) == 0
    assert exporter.opened == 0


def test_a_run_that_goes_on_does_not_wait_for_the_page_of_mlflow(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    recording = recorded["ops"]
    (going_on,) = [
        end
        for end in range(len(recording.records))
        if recording.history_of(recording.records[:end]).attempts
        and not recording.history_of(recording.records[: end - 1]).attempts
    ]

    def unexpected(run_id: str) -> str:
        raise AssertionError("asked too early")

    projection = TraceProjection(TARGET, exporter.open, Telemetry(), LINKS, unexpected)
    export(projection, recording.history_of(recording.records[:going_on]))
    with pytest.raises(AssertionError, match="asked too early"):
        export(projection, recording.history)


def test_spans_are_sent_in_batches_and_the_root_in_the_last(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["ops"].history
    (fetch, _) = history.attempts
    per_attempt = 1 + len(fetch.phases)
    steps = tuple(
        replace(fetch, step=f"fetch {number}") for number in range(2 * REQUEST_SPANS // per_attempt)
    )
    sent = export(projection_to(exporter), replace(history, attempts=steps))
    sizes = [len(batch) for batch in exporter.batches]
    assert sum(sizes) == sent == len(steps) * per_attempt + 3  # launch, resources, root
    assert sizes == [REQUEST_SPANS, REQUEST_SPANS, sent - 2 * REQUEST_SPANS]
    assert exporter.batches[-1][-1].parent is None
    assert len({context_of(span).span_id for span in exporter.spans}) == sent


@pytest.mark.parametrize(
    "telemetry",
    [Telemetry(ratio=0.0), Telemetry(disabled=True)],
    ids=["none are kept", "switched off"],
)
def test_a_trace_that_is_not_kept_is_not_sent(
    exporter: FakeExporter, history: RunHistory, export: Export, telemetry: Telemetry
) -> None:
    projection = projection_to(exporter, telemetry)
    assert export(projection, history) == 0
    assert projection.export_backfill(BACKFILL) == 0
    assert exporter.opened == 0


def test_each_trace_is_kept_or_not_as_a_whole(
    exporter: FakeExporter, history: RunHistory, export: Export
) -> None:
    telemetry = Telemetry(ratio=0.5)
    projection = projection_to(exporter, telemetry)
    sent = {}
    for number in range(32):
        run_id = str(UUID(int=number << 51, version=4))
        tags = {"dagster/backfill": "abcdefgh"}
        sent[run_id] = export(
            projection, replace(history, run=replace(history.run, run_id=run_id, tags=tags))
        )
    in_backfill = telemetry.keeps(ids.backfill_trace_id("abcdefgh"))
    whole_trace = len(spans_of(history))
    assert sent == {
        run_id: whole_trace * telemetry.keeps(ids.trace_id(run_id)) + in_backfill for run_id in sent
    }
    assert len(set(sent.values())) == 2


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        ("COMPLETED_SUCCESS", False),
        ("COMPLETED", False),
        ("COMPLETED_FAILED", True),
        ("FAILED", True),
        ("CANCELED", True),
    ],
)
def test_a_backfill_that_is_over_is_one_span(exporter: FakeExporter, status: str, failed: bool) -> None:
    assert projection_to(exporter).export_backfill(replace(BACKFILL, status=status)) == 1
    (span,) = exporter.spans
    assert context_of(span).trace_id == ids.backfill_trace_id("abcdefgh")
    assert span.attributes == {
        "dagster.backfill.id": "abcdefgh",
        "mlflow.spanType": "WORKFLOW",
        "dagster.backfill.status": status,
        "dagster.title": "all of January",
    }
    assert (span.status.is_ok, span.parent) == (not failed, None)
    assert (span.start_time, span.end_time) == (1_357_000_000_000_000_000, 1_357_000_100_000_000_000)


def test_a_backfill_of_which_a_run_failed_has_failed_whatever_dagster_calls_it(
    exporter: FakeExporter,
) -> None:
    projection_to(exporter).export_backfill(replace(BACKFILL, status="COMPLETED", failed_runs=2))
    (span,) = exporter.spans
    assert not span.status.is_ok
    assert (span.attributes or {})["dagster.backfill.failed_runs"] == 2


# When it is not taken


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SpanExportResult.FAILURE, "the log has the reason"),
        (ConnectionError("nobody answers"), "nobody answers"),
        (KeyError("endpoint"), "endpoint"),
    ],
    ids=["a failure", "an error", "a bug"],
)
def test_what_is_not_taken_names_its_target_and_is_sent_when_asked_again(
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


def test_a_batch_in_the_middle_that_is_not_taken_holds_back_what_follows(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["ops"].history
    steps = tuple(replace(history.attempts[0], step=f"fetch {number}") for number in range(REQUEST_SPANS))
    exporter.answers = [SpanExportResult.SUCCESS, SpanExportResult.FAILURE]
    with pytest.raises(TargetUnavailableError):
        export(projection_to(exporter), replace(history, attempts=steps))
    assert len(exporter.spans) == REQUEST_SPANS
    assert all(span.parent is not None for span in exporter.spans)


def test_a_backfill_that_is_not_taken_says_so_too(exporter: FakeExporter) -> None:
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


def test_no_password_is_in_what_is_said(exporter: FakeExporter, history: RunHistory, export: Export) -> None:
    # MLflow's client repeats the URL in its errors.
    exporter.answers = [
        ConnectionError("API request to http://user:pa55word@mlflow.example/v1/traces failed")
    ]
    with pytest.raises(TargetUnavailableError) as caught:
        export(projection_to(exporter), history)
    assert "pa55word" not in str(caught.value)
    assert "http://user:[redacted]@mlflow.example/v1/traces failed" in str(caught.value)


@pytest.fixture
def nobody() -> str:
    """The URL of a collector that has stopped."""
    with http_collector() as collector:
        return collector.url


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_collector_that_is_down_is_an_unavailable_target(
    environment: pytest.MonkeyPatch, nobody: str, protocol: str, history: RunHistory, export: Export
) -> None:
    assert_unavailable(environment, nobody, protocol, history, export)


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
@pytest.mark.parametrize("endpoint", ["nonsense", "http://[::1", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_none_is_an_unavailable_target(
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


def test_a_collector_that_is_back_gets_all_of_it(
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


def test_a_target_that_takes_no_spans_at_all_is_left_alone_for_ever_longer(
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


def test_a_trace_that_a_target_takes_no_span_of_waits_alone_until_the_target_refuses_another(
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


def test_a_run_of_very_many_assets_has_spans_that_every_receiver_takes(
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
def test_a_trace_that_a_success_has_not_taken_comes_when_the_receiver_is_mended(
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


# Traces that are kept for how their runs ended


NONE_IN_THE_SHARE = Telemetry(ratio=0.0, keeps_failed_runs=True, slow_run_seconds=600.0)


def sent_step_by_step(
    projection: TraceProjection, recording: Recording, instance: dg.DagsterInstance
) -> list[int]:
    """Return how many spans were sent after each record of a run."""
    before, sent = None, []
    for end in range(1, len(recording.records) + 1):
        now = recording.history_of(recording.records[:end])
        sent.append(projection.export(instance, now, before))
        before = now
    return sent


@pytest.mark.parametrize("kind", ["errors", "canceled", "killed"])
def test_a_failed_run_that_is_in_no_share_is_sent_as_a_whole_when_it_has_ended(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance, kind: str
) -> None:
    recording = recorded[kind]
    sent = sent_step_by_step(projection_to(exporter, NONE_IN_THE_SHARE), recording, instance_of_runs)
    going_on = [not recording.history_of(recording.records[: end + 1]).finished for end in range(len(sent))]
    assert not any(number for number, goes_on in zip(sent, going_on, strict=True) if goes_on)
    expected = spans_of(recording.history)
    assert {context_of(span).span_id for span in exporter.spans} == {
        context_of(span).span_id for span in expected
    }


def test_a_run_that_took_long_is_kept_and_a_short_one_is_not(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["ops"].history
    assert history.ended is not None
    assert export(projection_to(exporter, NONE_IN_THE_SHARE), history) == 0
    # Days after its first span: the decision needs no memory.
    late = replace(history, ended=history.ended + 3 * 86_400)
    assert export(projection_to(exporter, NONE_IN_THE_SHARE), late) == len(spans_of(late))


def test_after_the_end_of_a_run_that_is_kept_for_it_only_what_is_new_is_sent(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    history = recorded["errors"].history
    projection = projection_to(exporter, NONE_IN_THE_SHARE)
    assert projection.export(instance_of_runs, history, None) > 0
    assert projection.export(instance_of_runs, history, history) == 0


def test_a_run_in_the_share_is_sent_while_it_goes_on(
    exporter: FakeExporter, recorded: Recordings, instance_of_runs: dg.DagsterInstance
) -> None:
    sent = sent_step_by_step(
        projection_to(exporter, replace(NONE_IN_THE_SHARE, ratio=1.0)), recorded["errors"], instance_of_runs
    )
    assert sum(number > 0 for number in sent) > 1


def test_a_failed_run_is_in_the_trace_of_its_backfill_whose_root_is_kept_as_well(
    exporter: FakeExporter, recorded: Recordings, export: Export
) -> None:
    history = recorded["errors"].history
    run = replace(history.run, tags={"dagster/backfill": "abcdefgh"})
    projection = projection_to(exporter, NONE_IN_THE_SHARE)
    export(projection, replace(history, run=run))
    traces = {context_of(span).trace_id for span in exporter.spans}
    assert traces == {ids.trace_id(run.run_id), ids.backfill_trace_id("abcdefgh")}
    assert projection.export_backfill(replace(BACKFILL, status="COMPLETED_FAILED")) == 1
    assert projection.export_backfill(BACKFILL) == 0


def test_steps_record_all_that_may_be_kept() -> None:
    trace_id = 0
    assert not Telemetry(ratio=0.5).may_keep(trace_id)
    assert Telemetry(ratio=0.5, keeps_failed_runs=True).may_keep(trace_id)
    assert Telemetry(ratio=0.5, slow_run_seconds=60.0).may_keep(trace_id)
    assert not Telemetry(disabled=True, keeps_failed_runs=True, slow_run_seconds=0.0).may_keep(trace_id)
