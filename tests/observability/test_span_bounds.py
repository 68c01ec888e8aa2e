"""Tests that each exported span is within the bounds, and states what was left out."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from ledgerline.traces import attributes as names
from ledgerline.traces import step_spans
from ledgerline.traces.attribute_bounds import DEPTH, ITEMS, KEY_BYTES, VALUE_BYTES
from ledgerline.traces.span_bounds import CUTS, NAME_BYTES, SPAN_BYTES, STATUS_BYTES, Bounds, bounded_resource

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
RESOURCE = Resource({"service.name": "tests"})
BOUNDS = Bounds()

unsaved = settings(database=None, deadline=None, max_examples=50)


def span_with(attributes: Mapping[str, Any] | None = None, **arguments: Any) -> ReadableSpan:
    """A span with little but what a test is about."""
    usual: dict[str, Any] = {
        "name": "fit",
        "context": SpanContext(TRACE_ID, 1, is_remote=False),
        "resource": RESOURCE,
        "attributes": attributes,
        "start_time": 1,
        "end_time": 2,
    }
    return ReadableSpan(**usual | arguments)


def exported(span: ReadableSpan, bounds: Bounds = BOUNDS) -> trace_pb2.Span:
    """The span as a receiver gets it; it has at most the size that was foretold."""
    bounded, size = bounds.bounded(span)
    ((by_scope,),) = [each.scope_spans for each in encode_spans([bounded]).resource_spans]
    (found,) = by_scope.spans
    assert found.ByteSize() <= size <= SPAN_BYTES
    return trace_pb2.Span.FromString(found.SerializeToString())


def stepped(span: ReadableSpan) -> ReadableSpan:
    """The span after it was in the event log."""
    (found,) = step_spans.decode(step_spans.encode([BOUNDS.bounded(span)[0]]), TRACE_ID, RESOURCE, 0)
    return found


def plain(value: AnyValue) -> Any:
    """A value of OTLP as one of Python."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, kind) if kind is not None else None


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in pairs}


def attribute(value: Any, bounds: Bounds = BOUNDS) -> Any:
    """Return a value as it is exported."""
    return attributes_of(exported(span_with({"key": value}), bounds).attributes).get("key")


def cuts(span: trace_pb2.Span) -> list[str]:
    return attributes_of(span.attributes).get(names.CUT, [])


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from texts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)


def numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from numbers_of(each)


def indexed_size(value: Any) -> int:
    """Bytes of a value in the index of Jaeger, which takes a text as it is, and a list as JSON of Go."""
    if isinstance(value, str):
        return len(value.encode())
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode())


def assert_attributes(pairs: Iterable[KeyValue], most: int) -> None:
    found = attributes_of(pairs)
    assert len(found) <= most + 1  # ledgerline.cut
    assert len(found.get(names.CUT, [])) <= CUTS
    for key, value in found.items():
        assert 0 < len(key.encode()) <= KEY_BYTES
        assert value is not None
        assert indexed_size(value) <= VALUE_BYTES
        assert all(map(math.isfinite, numbers_of(value)))
        assert not any("\0" in text for text in texts_of(value))


def assert_within(span: trace_pb2.Span, bounds: Bounds = BOUNDS) -> None:
    """The span is what every receiver takes."""
    assert len(span.name.encode()) <= NAME_BYTES
    assert len(span.status.message.encode()) <= STATUS_BYTES
    assert "\0" not in span.name + span.status.message
    assert span.end_time_unix_nano < 2**63
    assert_attributes(span.attributes, bounds.attributes)
    assert len(span.events) <= bounds.events
    assert len(span.links) <= bounds.links
    for event in span.events:
        assert len(event.name.encode()) <= NAME_BYTES
        assert "\0" not in event.name
        assert_attributes(event.attributes, bounds.event_attributes)
    for link in span.links:
        assert_attributes(link.attributes, bounds.link_attributes)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


any_text = st.text(st.characters(), max_size=40)  # with NUL and half surrogate pairs
long_texts = st.builds(lambda text, times: text * times, any_text, st.integers(0, 6_000))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**63, 2**80),
    st.builds(lambda: 10**5_000),
    st.floats(),
    any_text,
    long_texts,
    st.binary(max_size=100),
    st.just(bytes(200_000)),
    st.builds(object),
    st.builds(Unspeakable),
)
any_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(any_text, inner, max_size=5),
        st.builds(lambda value, times: [value] * times, inner, st.integers(0, 3_000)),
    ),
    max_leaves=10,
)
any_attributes = st.dictionaries(st.one_of(any_text, long_texts), any_values, max_size=5)
any_times = st.one_of(st.integers(), st.floats(), st.none())
any_spans = st.builds(
    span_with,
    any_attributes,
    name=st.one_of(any_text, long_texts),
    status=st.builds(Status, st.just(StatusCode.ERROR), st.none() | any_text | long_texts),
    events=st.lists(st.builds(Event, long_texts, any_attributes, st.integers()), max_size=3),
    links=st.lists(
        st.builds(
            Link,
            st.builds(SpanContext, st.integers(0, 2**130), st.integers(0, 2**70), st.just(True)),
            any_attributes,
        ),
        max_size=3,
    ),
    instrumentation_scope=st.builds(InstrumentationScope, long_texts, st.none() | long_texts),
    start_time=any_times,
    end_time=any_times,
)


@unsaved
@given(any_spans)
@example(span_with({"rows": [f"flights/{number}" for number in range(10_000)]}))
@example(span_with({"deep": json.loads("[" * 500 + "]" * 500)}))
@example(span_with({f"key {number}": "x" * 49_000 for number in range(128)}))
@example(span_with(events=[Event("x" * 10_000, {"a": "\0" * 60_000}, timestamp=1)] * 500))
@example(
    span_with(
        {f"key {number}": 1 for number in range(10_000)},
        events=[Event("e", {f"key {number}": "y" * 300 for number in range(128)}, timestamp=1)] * 128,
    )
)
def test_any_span_is_within_the_bounds_and_bounding_is_idempotent(span: ReadableSpan) -> None:
    found = exported(span)
    assert_within(found)
    again, _ = BOUNDS.bounded(BOUNDS.bounded(span)[0])
    assert exported(again).SerializeToString() == found.SerializeToString()


@unsaved
@given(any_spans)
def test_any_span_of_a_step_is_read_from_the_event_log_within_the_bounds(span: ReadableSpan) -> None:
    assert_within(exported(stepped(span)))


@unsaved
@given(any_spans, st.integers(0, 5), st.integers(40, 100))
def test_the_limits_of_opentelemetrys_variables_are_applied(
    span: ReadableSpan, count: int, length: int
) -> None:
    bounds = Bounds(count, count, count, count, count, length)
    found = exported(span, bounds)
    assert_within(found, bounds)
    of_all = [found.attributes, *(each.attributes for each in [*found.events, *found.links])]
    texts = [
        text
        for attributes in of_all
        for key, value in attributes_of(attributes).items()
        if key != names.CUT
        for text in values_of(value)
    ]
    assert all(len(text) <= length or text.startswith("(") for text in texts)


def values_of(value: Any) -> Iterator[str]:
    """The texts of a value, without the keys of maps."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from values_of(each)
    else:
        yield from texts_of(value)


def test_the_variables_are_those_of_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "7",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "6",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "5",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "4",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "3",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "20",
    }.items():
        monkeypatch.setenv(name, value)
    assert Bounds.of(SpanLimits()) == Bounds(6, 4, 3, 5, 7, 20)
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10")
    assert Bounds.of(SpanLimits()).length == 10


# Bounded values of each kind, and the notes about them


def test_values_that_every_receiver_accepts_stay_unchanged() -> None:
    values = {
        "text": "fünf\nZeilen",
        "number": -(2**63),
        "rate": 0.1,
        "yes": True,
        "list": ["a", "b"],
        "numbers": [1, 2.5],
        "map": {"a": {"b": [1, "two", None, True]}},
        "empty": "",
        "none of them": [],
    }
    found = exported(span_with(values))
    assert attributes_of(found.attributes) == values
    assert found.dropped_attributes_count == 0


def test_a_long_text_ends_in_its_length_and_its_hash() -> None:
    text = attribute("é" * 100_000)
    assert text.startswith("é" * 20_000)
    assert text.endswith("… (100,000 characters, sha256 " + text[-17:])
    other = attribute("é" * 99_999 + "e")
    assert other != text


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (10**5_000, "an integer of 16,610 bits"),
        (HTTPStatus.OK, 200),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ([1, 2**64, math.nan], [1, "18446744073709551616", "NaN"]),
        ({"loss": math.nan}, {"loss": "NaN"}),
        (b"\x00abc", "b'\\\\x00abc'"),
        ([b"a", None], ["b'a'", None]),
        (None, None),
        (Unspeakable(), "(Unspeakable without text)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_otlp_or_jaeger_has_no_place_for_become_text(value: object, kept: object) -> None:
    assert attribute(value) == (kept.replace("\\\\", "\\") if isinstance(kept, str) else kept)


def test_everything_left_out_is_counted() -> None:
    found = exported(
        span_with({"a": 1, "none": None, "": 2, **{f"key {number}": 1 for number in range(200)}})
    )
    assert len(found.attributes) == BOUNDS.attributes
    assert found.attributes[0].key == "a"
    assert found.dropped_attributes_count == 203 - BOUNDS.attributes


def test_a_list_is_cut_by_its_number_of_items_and_by_its_bytes() -> None:
    many = exported(span_with({"many": list(range(10_000))}))
    assert attributes_of(many.attributes)["many"] == list(range(ITEMS))
    assert cuts(many) == ["many: 1,000 kept, 9,000 left out"]
    large = exported(span_with({"large": ["x" * 1_000] * 100}))
    kept = len(attributes_of(large.attributes)["large"])
    assert 40 < kept < 50
    assert cuts(large) == [f"large: {kept} kept, {100 - kept} left out"]


def test_a_map_is_cut_as_a_list_is_and_keeps_what_is_before() -> None:
    found = exported(
        span_with({"config": {"first": 1, "second": {str(n): n for n in range(5_000)}, "third": 3}})
    )
    config = attributes_of(found.attributes)["config"]
    assert config["first"] == 1
    assert len(config["second"]) == ITEMS - 1
    assert "third" not in config
    assert cuts(found) == ["config: 999 kept, 4,001 left out"] or len(cuts(found)) == 1


def test_values_that_are_nested_too_deeply_are_marked() -> None:
    value: Any = "bottom"
    for _ in range(DEPTH + 1):
        value = [value]
    found = attribute(value)
    for _ in range(DEPTH):
        (found,) = found
    assert found == f"(list nested deeper than {DEPTH})"


def test_long_keys_stay_apart() -> None:
    found = exported(span_with({"k" * 1_000 + "a": 1, "k" * 1_000 + "b": 2, "with\0nul": 3}))
    assert sorted(attributes_of(found.attributes).values()) == [1, 2, 3]
    assert found.dropped_attributes_count == 0


def test_too_many_events_and_links_are_counted_in_the_fields_of_otlp() -> None:
    elsewhere = Link(SpanContext(7, 8, is_remote=True), {"why": "retry"})
    impossible = Link(SpanContext(2**128, 8, is_remote=True))
    events = [Event("epoch", {"number": number}, timestamp=number) for number in range(1_000)]
    found = exported(span_with(events=events, links=[impossible, *[elsewhere] * 200]))
    assert (len(found.events), found.dropped_events_count) == (128, 872)
    assert (len(found.links), found.dropped_links_count) == (128, 73)


def test_counts_of_a_steps_dropped_attributes_are_kept_in_the_event_log() -> None:
    span = span_with(
        {str(number): number for number in range(130)},
        events=[Event("epoch", {str(number): number for number in range(130)}, timestamp=1)] * 130,
        links=[Link(SpanContext(7, 8, is_remote=True), {str(number): number for number in range(129)})] * 131,
    )
    found = exported(stepped(span))
    assert (found.dropped_attributes_count, found.dropped_events_count, found.dropped_links_count) == (
        2,
        2,
        3,
    )
    assert {event.dropped_attributes_count for event in found.events} == {2}
    assert {link.dropped_attributes_count for link in found.links} == {1}


def test_a_span_with_much_of_everything_has_shorter_values_rather_than_none() -> None:
    found = exported(span_with({f"prompt {number}": "x" * 50_000 for number in range(100)}))
    assert len(found.attributes) == 100
    assert found.ByteSize() > SPAN_BYTES / 10


def test_the_type_of_a_span_fits_into_mlflows_column() -> None:
    found = attributes_of(exported(span_with({names.SPAN_TYPE: "T" * 3_000})).attributes)
    assert len(found[names.SPAN_TYPE]) <= 250


def test_a_resource_fits_into_the_tags_of_mlflows_traces() -> None:
    found = bounded_resource(Resource({"k" * 300: "v" * 10_000, **{str(number): 1 for number in range(100)}}))
    assert len(found.attributes) <= 64
    assert max(map(len, found.attributes)) <= 250
    assert len(str(found.attributes[next(iter(found.attributes))])) <= 8_000


def test_an_ordinary_span_is_handed_on_as_it_is() -> None:
    span = span_with(
        {"rows": 3, "rate": 0.5, "assets": ("a", "b")},
        events=[Event("read", {"rows": 1}, timestamp=1)],
        links=[Link(SpanContext(7, 8, is_remote=True), {"why": "retry"})],
    )
    assert BOUNDS.bounded(span)[0] is span
