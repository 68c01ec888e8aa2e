"""Tests spans of steps to JSON and back: nothing is lost, and any value becomes standard JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from ledgerline.traces import step_spans
from ledgerline.traces.step_spans import decode, encode

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
RESOURCE = Resource({"service.name": "tests"})
NOW = 1_357_000_000_000_000_000

unsaved = settings(database=None, deadline=None)

characters = st.characters(codec="utf-8", exclude_categories=["Cc"])  # which are written out
texts = st.text(characters, max_size=20)
names = st.text(characters, min_size=1, max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(
    st.booleans(),
    texts,
    integers,
    numbers,
    *(st.lists(each, max_size=3).map(tuple) for each in (st.booleans(), texts, integers, numbers)),
)
attribute_maps = st.dictionaries(names, values, max_size=4)
times = st.integers(0, 2**63 - 1)
span_ids = st.integers(1, 2**64 - 1)
trace_ids = st.integers(1, 2**128 - 1)
contexts = st.builds(SpanContext, st.just(TRACE_ID), span_ids, st.just(False))
statuses = st.one_of(
    st.builds(Status, st.sampled_from([StatusCode.OK, StatusCode.UNSET])),
    st.builds(Status, st.just(StatusCode.ERROR), st.none() | texts),
)
spans = st.builds(
    ReadableSpan,
    name=names,
    context=contexts,
    parent=st.none() | contexts,
    attributes=attribute_maps,
    events=st.lists(st.builds(Event, names, attribute_maps, times), max_size=3),
    links=st.lists(
        st.builds(
            Link,
            st.builds(SpanContext, trace_ids, span_ids, st.just(True)),
            attribute_maps,
        ),
        max_size=3,
    ),
    kind=st.sampled_from(SpanKind),
    status=statuses,
    instrumentation_scope=st.builds(InstrumentationScope, names, st.none() | names),
    start_time=times,
    end_time=times,
)


def span_with(**arguments: Any) -> ReadableSpan:
    """A span with little but what a test is about."""
    context = SpanContext(TRACE_ID, 1, is_remote=False)
    return ReadableSpan(**{"name": "parse", "context": context, "start_time": 1, "end_time": 2} | arguments)


def decoded(span: ReadableSpan, later: int = 0) -> ReadableSpan:
    """Return the span after encoding and decoding."""
    (found,) = decode(encode([span]), TRACE_ID, RESOURCE, later)
    return found


def without_tuples(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the attributes with lists instead of tuples, as in JSON and OTLP."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in (attributes or {}).items()
    }


def described(span: ReadableSpan) -> dict[str, Any]:
    """Return everything in a span."""
    scope = span.instrumentation_scope
    assert span.context is not None
    return {
        "name": span.name,
        "id": (span.context.trace_id, span.context.span_id),
        "parent": (span.parent.trace_id, span.parent.span_id) if span.parent is not None else None,
        "times": (span.start_time, span.end_time),
        "kind": span.kind,
        "status": (span.status.status_code, span.status.description),
        "scope": (scope.name, scope.version) if scope is not None else None,
        "attributes": without_tuples(span.attributes),
        "events": [(event.name, event.timestamp, without_tuples(event.attributes)) for event in span.events],
        "links": [
            (link.context.trace_id, link.context.span_id, without_tuples(link.attributes))
            for link in span.links
        ],
    }


@unsaved
@given(spans)
def test_a_stored_span_is_read_unchanged(span: ReadableSpan) -> None:
    assert described(decoded(span)) == described(span)


@unsaved
@given(st.lists(spans, max_size=4))
def test_stored_spans_are_read_in_their_order_with_the_given_resource(
    several: Sequence[ReadableSpan],
) -> None:
    found = list(decode(encode(several), TRACE_ID, RESOURCE, 0))
    assert [span.name for span in found] == [span.name for span in several]
    assert all(span.resource is RESOURCE for span in found)
    assert all(span.context is not None and span.context.trace_flags.sampled for span in found)


@unsaved
@given(spans, st.integers(0, 10**12))
def test_all_times_are_later_where_a_clock_was_behind(span: ReadableSpan, later: int) -> None:
    found = decoded(span, later)
    assert span.start_time is not None
    assert span.end_time is not None
    assert (found.start_time, found.end_time) == (span.start_time + later, span.end_time + later)
    assert [event.timestamp for event in found.events] == [event.timestamp + later for event in span.events]


@unsaved
@given(st.lists(spans, max_size=3))
def test_stored_spans_are_json_in_utf_8(several: Sequence[ReadableSpan]) -> None:
    encoded = encode(several)
    text = json.dumps(encoded, ensure_ascii=False, allow_nan=False)
    assert json.loads(text.encode()) == encoded


def test_nan_is_stored_as_text() -> None:
    losses = (0.5, math.nan, math.inf, -math.inf)
    span = span_with(attributes={"loss": math.nan, "losses": losses})
    json.dumps(encode([span]), allow_nan=False)
    assert decoded(span).attributes == {"loss": "NaN", "losses": [0.5, "NaN", "Infinity", "-Infinity"]}


def test_the_name_of_an_old_file_is_stored_without_invalid_characters() -> None:
    old = "caf\udce9.csv"  # as Python has a Latin-1 name on a UTF-8 disk
    found = decoded(
        span_with(
            name=old,
            attributes={"file": old},
            events=[Event("read", {"file": old}, timestamp=1)],
            status=Status(StatusCode.ERROR, old),
        )
    )
    assert (found.name, found.attributes) == ("caf?.csv", {"file": "caf?.csv"})
    assert found.events[0].attributes == {"file": "caf?.csv"}
    assert found.status.description == "caf?.csv"


def test_values_that_json_does_not_have_are_stored_as_text() -> None:
    found = decoded(span_with(attributes={"digest": b"\x00\xff", "path": (b"a", b"b")}))
    assert found.attributes == {"digest": "b'\\x00\\xff'", "path": ["b'a'", "b'b'"]}


def test_an_exception_is_kept_with_its_stack() -> None:
    event = Event(
        "exception", {"exception.type": "ValueError", "exception.stacktrace": "Traceback\n  …"}, timestamp=NOW
    )
    (found,) = decoded(span_with(events=[event])).events
    assert (found.name, found.timestamp, found.attributes) == ("exception", NOW, event.attributes)


def test_a_span_of_no_library_has_a_scope_without_a_name() -> None:
    scope = decoded(span_with(instrumentation_scope=None)).instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("", None)


def test_a_stored_span_is_read_into_the_given_trace_and_its_links_are_not() -> None:
    elsewhere = SpanContext(7, 8, is_remote=True)
    span = span_with(parent=SpanContext(TRACE_ID, 9, is_remote=True), links=[Link(elsewhere)])
    (found,) = decode(encode([span]), 5, RESOURCE, 0)
    assert found.context is not None
    assert found.parent is not None
    assert (found.context.trace_id, found.parent.trace_id) == (5, 5)
    assert [link.context.trace_id for link in found.links] == [7]


def test_how_a_span_is_stored_is_the_same_in_every_version() -> None:
    span = span_with(
        parent=SpanContext(TRACE_ID, 2, is_remote=False),
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR, "gone"),
        attributes={"rows": 3, "days": ("monday", "tuesday")},
        events=[Event("read", {"rows": 1}, timestamp=NOW)],
        links=[Link(SpanContext(7, 8, is_remote=True), {"why": "retry"})],
        instrumentation_scope=InstrumentationScope("requests", "2"),
        start_time=NOW,
        end_time=NOW + 1,
    )
    # Event logs are kept for years: what was written must be read.
    assert encode([span]) == [
        {
            "name": "parse",
            "id": "0000000000000001",
            "parent": "0000000000000002",
            "start": NOW,
            "end": NOW + 1,
            "kind": "CLIENT",
            "status": ["ERROR", "gone"],
            "scope": ["requests", "2"],
            "attributes": {"rows": 3, "days": ["monday", "tuesday"]},
            "events": [["read", NOW, {"rows": 1}]],
            "links": [[f"{7:032x}", f"{8:016x}", {"why": "retry"}]],
        }
    ]


def test_an_empty_text_has_no_spans() -> None:
    assert step_spans.encode([]) == []
    assert list(decode([], TRACE_ID, RESOURCE, 0)) == []


def test_no_secret_that_a_step_put_into_its_spans_leaves_the_event_log() -> None:
    secret = {
        "note": "postgresql://me:hunter2-hunter2@db/x",
        "config": {"db": {"password": "hunter2-hunter2"}},
    }
    span = span_with(
        name="connect to postgresql://me:hunter2-hunter2@db/x",
        attributes={"api_key": "hunter2-hunter2", "rows": 3, **secret},
        events=[Event("failed: password=hunter2-hunter2", secret, timestamp=1)],
        links=[Link(SpanContext(7, 8, is_remote=True), secret)],
        status=Status(StatusCode.ERROR, "password=hunter2-hunter2 was refused"),
    )
    found = described(decoded(span))
    assert "hunter2" not in repr(found)
    assert found["attributes"]["rows"] == 3
    assert found["attributes"]["config"] == {"db": {"password": "[redacted]"}}
    assert found["status"][1].endswith("was refused")
