"""Tests that every difference between a backend and the event log is reported."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace
from tests.integration.stack.differences import differences

ROOT = ReceivedSpan(
    name="run",
    trace_id="1" * 32,
    span_id="a" * 16,
    parent_id=None,
    scope="ledgerline",
    started=1,
    ended=9,
    failed=False,
    attributes={"rows": 3, "assets": ("flights", "weather")},
    events={"asset check": {"passed": True}},
    links=[("2" * 32, "c" * 16)],
)
STEP = replace(ROOT, name="step", span_id="b" * 16, parent_id=ROOT.span_id, links=[])


def differences_of(*spans: ReceivedSpan, times: int = 1) -> list[str]:
    trace = ReceivedTrace(ROOT.trace_id, spans, {span.span_id: times for span in spans})
    return differences(trace, [ROOT, STEP])


def test_the_same_is_the_same_also_where_lists_are_texts() -> None:
    as_text = replace(ROOT, attributes={"rows": 3, "assets": '["flights","weather"]'}, scope="")
    assert differences_of(as_text, STEP) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda span: replace(span, name="other"),
        lambda span: replace(span, parent_id="c" * 16),
        lambda span: replace(span, ended=8),
        lambda span: replace(span, failed=True),
        lambda span: replace(span, attributes={"rows": 3}),
        lambda span: replace(span, attributes={**span.attributes, "rows": 4}),
        lambda span: replace(span, attributes={**span.attributes, "assets": '["weather","flights"]'}),
        lambda span: replace(span, attributes={**span.attributes, "more": 1}),
        lambda span: replace(span, events={}),
        lambda span: replace(span, links=[]),
    ],
)
def test_a_span_that_differs_in_one_thing_is_named(
    change: Callable[[ReceivedSpan], ReceivedSpan],
) -> None:
    (lines,) = differences_of(change(ROOT), STEP)
    assert lines.startswith("run: ")


def test_spans_that_are_missing_too_much_or_twice_are_named() -> None:
    assert differences_of(ROOT) == ["step is missing"]
    assert differences_of(ROOT, STEP, replace(STEP, span_id="d" * 16, name="more")) == ["more is too much"]
    assert differences_of(ROOT, STEP, times=2) == ["run is there 2 times", "step is there 2 times"]
