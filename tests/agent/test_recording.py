"""Tests that recorded content is cut, redacted, valid Unicode, or omitted."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracer, StatusCode

from ledgerline.agent.recording import MAX_CHARACTERS, MAX_NAME_CHARACTERS, Recorder
from ledgerline.cleaning.texts import REDACTED, Cleaner
from tests.agent.spans import Spans, attributes_of, content_of, context_of

SECRET = "correct-horse-battery"


@pytest.fixture
def recorder(spans: Spans) -> Recorder:
    return Recorder(spans.tracer, captures=True, redact=Cleaner.of([SECRET]))


def test_content_that_is_long_is_cut(recorder: Recorder, spans: Spans) -> None:
    with recorder.span("work", {"attribute": "x" * 40_000}) as span:
        span.content({"text": "y" * 40_000, "list": ["z" * 40_000]})
        span.failed("Error", "w" * 40_000)
    attributes = attributes_of(spans.one("work"))
    assert re.fullmatch(r"y+… \(40,000 characters, sha256 [0-9a-f]{16}\)", attributes["text"])
    for name in ("attribute", "text", "list"):
        assert len(attributes[name]) == MAX_CHARACTERS
    assert len(spans.one("work").status.description or "") == MAX_CHARACTERS


def test_a_secret_is_removed_before_the_text_is_cut(recorder: Recorder, spans: Spans) -> None:
    with recorder.span("work") as span:
        span.content({"text": "y" * (MAX_CHARACTERS - 5) + SECRET})
    assert SECRET[:5] not in attributes_of(spans.one("work"))["text"]


def test_a_name_is_cut_and_has_no_secret(recorder: Recorder, spans: Spans) -> None:
    with recorder.span(f"execute_tool {SECRET}{'x' * 1000}"):
        pass
    (span,) = spans.finished
    assert span.name.startswith(f"execute_tool {REDACTED}x")
    assert len(span.name) == MAX_NAME_CHARACTERS


def test_attributes_that_are_none_are_left_out(recorder: Recorder, spans: Spans) -> None:
    with recorder.span("work", {"none": None, "zero": 0}) as span:
        span.set({"other": None, "empty": "", "no": False, "several": (1.5, 2.5), "words": ("a", SECRET)})
    assert attributes_of(spans.one("work")) == {
        "zero": 0,
        "empty": "",
        "no": False,
        "several": (1.5, 2.5),
        "words": ("a", REDACTED),
    }


@pytest.mark.parametrize(
    "content",
    [
        {"key": SECRET},
        {SECRET: 1},
        [[{"deep": [f"a {SECRET} b"]}]],
        f'{{"text": "{SECRET}"}}',
        {"json": json.dumps({"json": json.dumps({"key": SECRET})})},
        {"json": json.dumps({"password": "hunter22, and more"})},
        {"password": "hunter22 hunter22"},
        ({"other": ValueError(SECRET)},),
    ],
)
def test_secrets_are_removed_from_every_kind_of_text(recorder: Recorder, spans: Spans, content: Any) -> None:
    with recorder.span("work") as span:
        span.content({"content": content})
    assert SECRET not in spans.text
    assert "hunter22" not in spans.text
    assert REDACTED in spans.text


def test_content_stays_json_without_its_secrets(recorder: Recorder, spans: Spans) -> None:
    with recorder.span("work") as span:
        span.content({"content": [{"password": 'a "quoted" one', "n": 1, "text": f"{SECRET}, ü"}]})
    assert content_of(spans.one("work"), "content") == [
        {"password": REDACTED, "n": 1, "text": f"{REDACTED}, ü"}
    ]


def test_content_that_is_nested_too_deeply_is_marked(recorder: Recorder, spans: Spans) -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    with recorder.span("work") as span:
        span.content({"content": deep})
    assert attributes_of(spans.one("work"))["content"] == "(RecursionError: the value is nested too deeply)"


def test_content_is_recorded_only_if_it_is_switched_on(spans: Spans) -> None:
    with Recorder(spans.tracer).span("work") as span:
        span.content({"content": "said"})
    assert attributes_of(spans.one("work")) == {}


@pytest.mark.parametrize("text", ["\ud83d", "a\x00b", "\udfff" * 3, "\N{AIRPLANE}", "\ufffe"])
def test_broken_text_does_not_keep_spans_from_being_sent(recorder: Recorder, spans: Spans, text: str) -> None:
    with recorder.span(f"work {text}", {"attribute": text, "several": (text, text)}) as span:
        span.content({"text": text, "list": [text], "names": {text: text}})
        span.failed("Error", text)
    assert b"attribute" in spans.encoded()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_message_can_be_exported(recorder: Recorder, spans: Spans, content: Any) -> None:
    with recorder.span("work", {"attribute": str(content)}) as span:
        span.content({"content": content, "text": str(content)})
    assert spans.encoded()


def test_an_exception_is_the_error_of_a_span_without_its_secrets(recorder: Recorder, spans: Spans) -> None:
    with pytest.raises(ValueError, match=SECRET), recorder.span("outer"), recorder.span("inner"):
        raise ValueError(f"bad {SECRET}")
    for name in ("outer", "inner"):
        span = spans.one(name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == f"bad {REDACTED}"
        assert attributes_of(span) == {"error.type": "ValueError"}
        assert not span.events


def test_a_success_has_the_status_ok(recorder: Recorder, spans: Spans) -> None:
    with recorder.span("work") as span:
        span.succeeded()
    assert spans.one("work").status.status_code is StatusCode.OK


class Counting:
    """Counts its calls."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> str:
        self.texts.append(text)
        return text


@pytest.fixture
def unsampled() -> Iterator[Spans]:
    kept = Spans(ALWAYS_OFF)
    yield kept
    kept.shutdown()


@pytest.mark.parametrize("is_traced", [True, False])
def test_unrecorded_spans_have_no_cost_and_no_ids(unsampled: Spans, is_traced: bool) -> None:
    counting = Counting()
    recorder = Recorder(unsampled.tracer if is_traced else NoOpTracer(), captures=True, redact=counting)
    with recorder.span("work", {"attribute": "x"}) as span:
        span.set({"other": "x"})
        span.content({"content": ["x" * 1_000_000]})
        span.failed("Error", "x")
        assert (span.trace_id, span.span_id) == (0, 0)
    assert counting.texts == ["work"]
    assert unsampled.finished == ()


def test_a_span_has_the_ids_it_is_sent_with(recorder: Recorder, spans: Spans) -> None:
    with recorder.span("outer") as outer, recorder.span("inner") as inner:
        assert outer.trace_id == inner.trace_id != 0
        assert outer.span_id != inner.span_id
    assert context_of(spans.one("outer")) == (outer.trace_id, outer.span_id)
    assert context_of(spans.one("inner")) == (inner.trace_id, inner.span_id)
    parent = spans.one("inner").parent
    assert parent is not None
    assert parent.span_id == outer.span_id
