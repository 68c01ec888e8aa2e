"""Tests which spans the projection of traces exports, and in which batches."""

from dataclasses import replace
from uuid import UUID

import dagster as dg
import pytest

from ledgerline.ledger import ids
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.projection import Projection
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import attributes as names
from ledgerline.traces.deliveries import REQUEST_SPANS
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.telemetry import Telemetry
from tests.observability.exported_spans import context_of, root_of, spans_of, whole
from tests.observability.fake_exporter import BACKFILL, LINKS, TARGET, Export, FakeExporter, projection_to


def test_it_is_a_projection_called_traces(exporter: FakeExporter) -> None:
    projection: Projection = projection_to(exporter)
    assert projection.name == "traces"


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


def test_only_new_spans_are_sent(
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


def test_a_backfill_with_a_failed_run_has_failed_for_any_status_in_dagster(
    exporter: FakeExporter,
) -> None:
    projection_to(exporter).export_backfill(replace(BACKFILL, status="COMPLETED", failed_runs=2))
    (span,) = exporter.spans
    assert not span.status.is_ok
    assert (span.attributes or {})["dagster.backfill.failed_runs"] == 2
