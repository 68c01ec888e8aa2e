"""Limits spans to sizes that every receiver accepts: Jaeger's index, MLflow's columns, gRPC messages of 4 MB.

A span records what was left out: OTLP has fields for the numbers of dropped attributes, events and links,
`ledgerline.cut` names shortened lists and maps, and a shortened text ends in its length.
attribute_bounds.py limits single values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status

from ledgerline.traces import attributes as names
from ledgerline.traces.attribute_bounds import (
    ITEMS,
    SHORT,
    VALUE_BYTES,
    ValueBounds,
    bounded_key,
    bounded_text,
    is_plain,
)
from ledgerline.traces.dropped_parts import attributes_without, parts_without

NAME_BYTES = 1_000  # maximum number of attributes of a span, an event or a scope
STATUS_BYTES = 10_000
SPAN_BYTES = 1_000_000
CUTS = 50  # maximum number of shortened values that a span names
TYPE_BYTES = 250  # the width of MLflow's column for the type of a span
LAST_TIME = 2**63 - 1  # nanoseconds; the largest integer in PostgreSQL
RESOURCE_BYTES = 4_000  # maximum bytes of a value, which MLflow stores as a tag of the trace
RESOURCE_ATTRIBUTES = 64

# Upper estimates of the bytes for ids, times and framing.
SPAN_OVERHEAD, PART_OVERHEAD = 200, 60


@dataclass(frozen=True)
class Bounds:
    """The maximum numbers of a span's parts, and the limits of its values.

    Attributes:
        length: Maximum number of characters of a text; None if only `size` applies.
        size: Maximum number of bytes of a value.
    """

    attributes: int = 128
    events: int = 128
    links: int = 128
    event_attributes: int = 128
    link_attributes: int = 128
    length: int | None = None
    size: int = VALUE_BYTES

    @classmethod
    def of(cls, limits: SpanLimits) -> Self:
        """Return the bounds from OpenTelemetry's settings, with the defaults for those that are not set."""
        given = {
            "attributes": limits.max_span_attributes,
            "events": limits.max_events,
            "links": limits.max_links,
            "event_attributes": limits.max_event_attributes,
            "link_attributes": limits.max_link_attributes,
        }
        numbers = {name: limit for name, limit in given.items() if limit is not None}
        return cls(**numbers, length=limits.max_span_attribute_length)

    def bounded(self, span: ReadableSpan) -> tuple[ReadableSpan, int]:
        """Return the span within these bounds, and an upper estimate of its bytes in OTLP."""
        size = self._size_of_plain(span)
        if size is not None and size <= SPAN_BYTES:
            return span, size
        bounds = self
        bounded, size = bounds._cut(span)
        while size > SPAN_BYTES:
            bounds = bounds._tighter()
            bounded, size = bounds._cut(span)
        return bounded, size

    def portions(
        self, spans: Iterable[ReadableSpan], *, max_bytes: int, max_spans: int
    ) -> Iterator[list[ReadableSpan]]:
        """Yield batches of limited size with the spans within these bounds."""
        portion: list[ReadableSpan] = []
        left = max_bytes
        for span in spans:
            bounded, size = self.bounded(span)
            if portion and (size > left or len(portion) == max_spans):
                yield portion
                portion, left = [], max_bytes
            portion.append(bounded)
            left -= size
        if portion:
            yield portion

    def _tighter(self) -> Self:
        """Return tighter bounds, first with shorter values and then with fewer of them."""
        if self.size > SHORT:
            return replace(self, size=self.size // 4)
        return replace(
            self,
            attributes=max(1, self.attributes // 2),
            events=self.events // 2,
            links=self.links // 2,
            event_attributes=self.event_attributes // 2,
            link_attributes=self.link_attributes // 2,
        )

    def _size_of_plain(self, span: ReadableSpan) -> int | None:
        """Return the bytes of a span that is within all bounds, as nearly all spans are; None for others."""
        if self.length is not None or not _is_plain(span):
            return None
        size = SPAN_OVERHEAD + len(span.name) + len(span.status.description or "")
        parts: list[tuple[ReadableSpan | Event | Link, int]] = [(span, self.attributes)]
        if events := span.events:
            if len(events) > self.events or not all(_is_plain_name(event.name) for event in events):
                return None
            parts += [(event, self.event_attributes) for event in events]
            size += sum(len(event.name) for event in events)
        if links := span.links:
            if len(links) > self.links or not all(_is_sendable(link.context) for link in links):
                return None
            parts += [(link, self.link_attributes) for link in links]
        for part, most in parts:
            given = part.attributes or {}
            if len(given) > most or (more := _size_of_plain(given)) is None:
                return None
            size += more + PART_OVERHEAD
        return size

    def _cut(self, span: ReadableSpan) -> tuple[ReadableSpan, int]:
        attributes, size = self._attributes(span, self.attributes)
        events, of_events = self._events(span.events, span.dropped_events)
        links, of_links = self._links(span.links, span.dropped_links)
        name = bounded_text(span.name, NAME_BYTES)
        status = span.status
        if status.description is not None:
            status = Status(status.status_code, bounded_text(status.description, STATUS_BYTES))
        size += of_events + of_links + SPAN_OVERHEAD + 4 * (len(name) + len(status.description or ""))
        return (
            ReadableSpan(
                name=name,
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                attributes=attributes,
                events=events,
                links=links,
                kind=span.kind,
                status=status,
                start_time=_time(span.start_time),
                end_time=_time(span.end_time),
                instrumentation_scope=_scope(span.instrumentation_scope),
            ),
            size,
        )

    def _attributes(self, part: ReadableSpan | Event | Link, most: int) -> tuple[Mapping[str, Any], int]:
        dropped = part.dropped_attributes
        bound = ValueBounds(self.size, self.length)
        kept_attributes: dict[str, Any] = {}
        cuts: list[str] = []
        size = PART_OVERHEAD
        for key, value in (part.attributes or {}).items():
            kept = bounded_key(str(key))
            if key == names.CUT and isinstance(value, list | tuple):
                cuts += [str(each) for each in value]
            elif value is None or not kept or kept in kept_attributes or len(kept_attributes) >= most:
                dropped += 1
            else:
                kept_attributes[kept] = bound(value)
                size += _size(kept) + _size(kept_attributes[kept])
                if bound.cut is not None:
                    cuts.append(f"{kept}: {bound.cut}")
            if size > SPAN_BYTES:
                break  # The caller retries with tighter bounds.
        if names.SPAN_TYPE in kept_attributes:
            kept_attributes[names.SPAN_TYPE] = bounded_text(str(kept_attributes[names.SPAN_TYPE]), TYPE_BYTES)
        if cuts:
            kept_attributes[names.CUT] = [bounded_text(each, NAME_BYTES) for each in cuts[:CUTS]]
            size += _size(names.CUT) + _size(kept_attributes[names.CUT])
        return attributes_without(kept_attributes, dropped), size

    def _events(self, given: Sequence[Event], dropped: int) -> tuple[Sequence[Event], int]:
        kept_events, size = [], 0
        for event in given[: self.events]:
            attributes, more = self._attributes(event, self.event_attributes)
            name = bounded_text(event.name, NAME_BYTES)
            kept_events.append(Event(name, attributes, timestamp=_time(event.timestamp)))
            size += more + _size(name)
            if size > SPAN_BYTES:
                break
        return parts_without(kept_events, dropped + len(given) - len(kept_events)), size

    def _links(self, given: Sequence[Link], dropped: int) -> tuple[Sequence[Link], int]:
        kept_links, size = [], 0
        for link in given:
            if len(kept_links) < self.links and _is_sendable(link.context):
                attributes, more = self._attributes(link, self.link_attributes)
                kept_links.append(Link(link.context, attributes))
                size += more
                if size > SPAN_BYTES:
                    break
        return parts_without(kept_links, dropped + len(given) - len(kept_links)), size


def bounded_resource(resource: Resource) -> Resource:
    """Return a resource with attributes that MLflow can store as tags of a trace."""
    bound = ValueBounds(RESOURCE_BYTES)
    kept = list(resource.attributes.items())[:RESOURCE_ATTRIBUTES]
    return Resource({bounded_key(key): bound(value) for key, value in kept}, resource.schema_url)


def _is_plain(span: ReadableSpan) -> bool:
    """Return whether a span needs no change, apart from its attributes, events and links."""
    scope, status = span.instrumentation_scope, span.status.description
    start, end = span.start_time, span.end_time
    return (
        type(start) is int
        and type(end) is int
        and 0 <= start <= LAST_TIME
        and 0 <= end <= LAST_TIME
        and _is_plain_name(span.name)
        and (status is None or is_plain(status))
        and (scope is None or (_is_plain_name(scope.name) and not scope.attributes))
        and not (span.dropped_attributes or span.dropped_events or span.dropped_links)
    )


def _is_plain_name(name: str) -> bool:
    return len(name) <= NAME_BYTES and name.isascii() and "\0" not in name


def _size_of_plain(attributes: Mapping[str, Any]) -> int | None:
    """Return the bytes of attributes that need no change; None if one of them may need one."""
    size = 0
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            longest = TYPE_BYTES if key == names.SPAN_TYPE else SHORT
            if len(value) > longest or not value.isascii() or "\0" in value:
                return None
            size += len(value)
        elif kind is tuple or kind is list:
            if len(value) > ITEMS or not all(type(each) is str for each in value):
                return None
            text = "".join(value)
            if len(text) > 2 * SHORT or not (text.isascii() and text.isprintable()):
                return None
            size += len(text) + 10 * len(value)
        elif not is_plain(value):
            return None
        if len(key) > 50 or not key or not is_plain(key):
            return None
        size += len(key) + 20
    return size


def _size(value: Any) -> int:
    """Return an upper estimate of the bytes of a value in OTLP."""
    if isinstance(value, str):
        return len(value.encode()) + 8
    if isinstance(value, Mapping):
        return 8 + sum(_size(key) + _size(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return 8 + sum(map(_size, value))
    return 14


def _scope(scope: InstrumentationScope | None) -> InstrumentationScope | None:
    if scope is None:
        return None
    version = bounded_text(scope.version, NAME_BYTES) if scope.version else scope.version
    return InstrumentationScope(bounded_text(scope.name, NAME_BYTES), version)


def _time(value: Any) -> int:
    """Return a time in nanoseconds that every receiver accepts, even if a step set an invalid one."""
    try:
        return min(max(int(value), 0), LAST_TIME)
    except (TypeError, ValueError, OverflowError):
        return 0


def _is_sendable(context: SpanContext) -> bool:
    """Return whether the ids of a context have the sizes that OTLP requires."""
    return 0 < context.trace_id < 2**128 and 0 < context.span_id < 2**64
