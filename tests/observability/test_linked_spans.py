"""Tests links of spans to other traces, traces of backfills, and clocks of other processes."""

from dataclasses import replace

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from ledgerline.ledger import ids
from ledgerline.ledger.history import RecordedSpans
from ledgerline.ledger.projection import Backfill
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import attributes as names
from ledgerline.traces import step_spans
from ledgerline.traces.spans import backfill_span, caller_of
from tests.observability.exported_spans import (
    SECOND,
    attempt_span,
    context_of,
    exceptions,
    key_of,
    links_of,
    root_of,
    spans_of,
    tagged,
    times_of,
    trace_of,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


# Links to other traces


def test_a_re_execution_links_to_the_run_before(recorded: Recordings) -> None:
    history, parent_id = recorded["ops"].history, recorded["queued"].run.run_id
    spans = spans_of(replace(history, run=replace(history.run, parent_run_id=parent_id)))
    (link,) = links_of(root_of(spans))
    assert link == (*key_of(root_of(spans_of(recorded["queued"].history))), "parent run")


def test_a_run_of_a_backfill_is_in_both_traces_which_link_to_each_other(recorded: Recordings) -> None:
    history = tagged(recorded["ops"], backfill="abcdefgh", partition="2013-01-01")
    *_, in_backfill, root = spans_of(history)
    assert context_of(in_backfill).trace_id == ids.backfill_trace_id("abcdefgh")
    assert in_backfill.parent is not None
    assert in_backfill.parent.span_id == ids.backfill_span_id("abcdefgh")
    assert in_backfill.parent.trace_id == ids.backfill_trace_id("abcdefgh")
    assert (in_backfill.name, times_of(in_backfill)) == (root.name, times_of(root))
    assert links_of(in_backfill) == [(*key_of(root), "run")]
    assert links_of(root) == [(*key_of(in_backfill), "backfill")]
    said, of_the_run = dict(in_backfill.attributes or {}), dict(root.attributes or {})
    assert said.pop("mlflow.spanType") == "TASK"
    assert said.items() <= of_the_run.items()


def test_a_run_that_failed_has_failed_in_the_trace_of_its_backfill(recorded: Recordings) -> None:
    *_, in_backfill, root = spans_of(tagged(recorded["killed"], backfill="abcdefgh"))
    assert in_backfill.status.status_code is StatusCode.ERROR
    assert exceptions(in_backfill) == exceptions(root)


def test_a_run_links_to_the_span_in_its_trace_context(recorded: Recordings) -> None:
    (link,) = links_of(root_of(spans_of(tagged(recorded["ops"], traceparent=TRACEPARENT))))
    assert link == (int(TRACE, 16), int(SPAN, 16), "caller")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{TRACE}",
        f"00-{TRACE}-{SPAN}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.replace('0', 'x')}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)
def test_an_invalid_trace_context_is_ignored(recorded: Recordings, traceparent: str) -> None:
    assert caller_of(traceparent) is None
    spans = spans_of(tagged(recorded["ops"], traceparent=traceparent))
    assert links_of(root_of(spans)) == []


def test_a_run_without_a_trace_context_has_no_link(recorded: Recordings) -> None:
    assert caller_of(None) is None
    assert links_of(root_of(trace_of(recorded["ops"]))) == []


# Backfills


@pytest.mark.parametrize(("failed", "status"), [(False, StatusCode.OK), (True, StatusCode.ERROR)])
def test_a_backfill_is_the_root_above_its_runs(
    recorded: Recordings, failed: bool, status: StatusCode
) -> None:
    *_, of_a_run, _ = spans_of(tagged(recorded["ops"], backfill="abcdefgh"))
    root = backfill_span(
        Backfill(
            "abcdefgh",
            started=1_357_000_000.25,
            ended=1_357_000_100.5,
            status="COMPLETED_FAILED" if failed else "COMPLETED_SUCCESS",
            title=None,
        ),
        Resource({"service.name": "tests"}),
    )
    assert of_a_run.parent == root.context
    assert root.parent is None
    assert root.name == "backfill abcdefgh"
    assert times_of(root) == (1_357_000_000_250_000_000, 1_357_000_100_500_000_000)
    assert root.attributes == {
        "dagster.backfill.id": "abcdefgh",
        "mlflow.spanType": "WORKFLOW",
        "dagster.backfill.status": "COMPLETED_FAILED" if failed else "COMPLETED_SUCCESS",
    }
    assert root.status.status_code is status
    assert root.resource.attributes["service.name"] == "tests"


def test_a_backfill_that_ended_before_it_started_has_no_duration() -> None:
    backfill = Backfill("abcdefgh", started=20.0, ended=10.0, status="COMPLETED_SUCCESS", title=None)
    root = backfill_span(backfill, Resource.get_empty())
    assert times_of(root) == (20 * SECOND, 20 * SECOND)


# Clocks


def test_spans_of_a_step_whose_clock_is_behind_are_corrected(recorded: Recordings) -> None:
    history = recorded["processes"].history
    behind = [replace(each, clock_behind=30.0 if each.step == "planes" else 0.0) for each in history.attempts]
    start, end = 1_357_000_000 * SECOND, 1_357_000_001 * SECOND
    recorded_spans = tuple(
        RecordedSpans(
            step,
            1,
            step_spans.encode(
                [ReadableSpan("parse", SpanContext(1, span_id, False), start_time=start, end_time=end)]
            ),
        )
        for span_id, step in enumerate(("planes", "fleet"), start=1)
    )
    spans = spans_of(replace(history, attempts=tuple(behind), recorded_spans=recorded_spans))
    late, on_time = [span for span in spans if span.name == "parse"]
    assert times_of(late) == (start + 30 * SECOND, end + 30 * SECOND)
    assert times_of(on_time) == (start, end)
    assert (attempt_span(spans, "planes").attributes or {})[names.CLOCK_BEHIND] == 30.0
    assert names.CLOCK_BEHIND not in (attempt_span(spans, "fleet").attributes or {})
