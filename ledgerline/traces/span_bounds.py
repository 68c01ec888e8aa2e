"""Bounds spans to what every receiver takes: Jaeger's index, MLflow's columns, gRPC's messages of 4 MB.

A span says what was left out of it: how many attributes, events and links, in the fields that OTLP has for
them; lists and maps in `ledgerline.cut`; a text at its own end. One value: attribute_bounds.py.
"""

from collections.abc import Mapping, Sequence
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

NAME_BYTES = 1_000  # of a span, an event, a scope
STATUS_BYTES = 10_000
SPAN_BYTES = 1_000_000
CUTS = 50  # named in one span
TYPE_BYTES = 250  # MLflow keeps it in a column of its own
LAST_TIME = 2**63 - 1  # nanoseconds; PostgreSQL's integers end there
RESOURCE_BYTES = 4_000  # of a value: MLflow keeps each as a tag of the trace
RESOURCE_ATTRIBUTES = 64

# Ids, times and the frame of each part, rather more than less.
SPAN_OVERHEAD, PART_OVERHEAD = 200, 60


@dataclass(frozen=True)
class Bounds:
    """The limits of a span's parts.

    Attributes:
        attributes: Of the span.
        events: Of the span, each with `event_attributes` at most.
        links: Of the span, each with `link_attributes` at most.
        length: Characters of a text; None: `size` alone counts.
        size: Bytes of a value.
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
        """Return the bounds that OpenTelemetry's variables set; the defaults where they set none."""

        def limit(value: int | None, default: int) -> int:
            return default if value is None else value

        return cls(
            attributes=limit(limits.max_span_attributes, cls.attributes),
            events=limit(limits.max_events, cls.events),
            links=limit(limits.max_links, cls.links),
            event_attributes=limit(limits.max_event_attributes, cls.event_attributes),
            link_attributes=limit(limits.max_link_attributes, cls.link_attributes),
            length=limits.max_span_attribute_length,
        )

    def bounded(self, span: ReadableSpan) -> tuple[ReadableSpan, int]:
        """Return the span within these bounds, and its bytes in OTLP, estimated rather high than low."""
        size = self._size_of_plain(span)
        if size is not None and size <= SPAN_BYTES:
            return span, size
        bounds = self
        found, size = bounds._cut(span)
        while size > SPAN_BYTES:
            bounds = bounds._tighter()
            found, size = bounds._cut(span)
        return found, size

    def _tighter(self) -> Self:
        """Shorter values at first, then fewer of them."""
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
        """Return the bytes of a span that is plainly within all bounds, as nearly all are; else None."""
        if self.length is not None or not _is_plain(span):
            return None
        size = self._size_of_attributes(span.attributes, self.attributes)
        events, links = span.events, span.links
        if size is not None and events:
            size = self._with_parts(size, events, self.events, self.event_attributes)
        if size is not None and links:
            size = self._with_parts(size, links, self.links, self.link_attributes)
        if size is None:
            return None
        return size + SPAN_OVERHEAD + len(span.name) + len(span.status.description or "")

    def _with_parts(self, size: int, parts: Sequence[Event | Link], most: int, each: int) -> int | None:
        """Add the bytes of plain events or links; None if one is not plain, or there are too many."""
        if len(parts) > most or not all(map(_is_plain_part, parts)):
            return None
        for part in parts:
            found = self._size_of_attributes(part.attributes, each)
            if found is None:
                return None
            size += found + (len(part.name) if isinstance(part, Event) else 0)
        return size

    def _size_of_attributes(self, attributes: Mapping[str, Any] | None, most: int) -> int | None:
        if not attributes:
            return PART_OVERHEAD
        found = _size_of_plain(attributes) if len(attributes) <= most else None
        return found + PART_OVERHEAD if found is not None else None

    def _cut(self, span: ReadableSpan) -> tuple[ReadableSpan, int]:
        attributes, size = self._attributes(span.attributes or {}, self.attributes, span.dropped_attributes)
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

    def _attributes(self, given: Mapping[str, Any], most: int, dropped: int) -> tuple[Mapping[str, Any], int]:
        bound = ValueBounds(self.size, self.length)
        found: dict[str, Any] = {}
        cuts: list[str] = []
        size = PART_OVERHEAD
        for key, value in given.items():
            kept = bounded_key(str(key))
            if key == names.CUT and isinstance(value, list | tuple):
                cuts += [str(each) for each in value]
            elif value is None or not kept or kept in found or len(found) >= most:
                dropped += 1
            else:
                found[kept] = bound(value)
                size += _size(kept) + _size(found[kept])
                if bound.cut is not None:
                    cuts.append(f"{kept}: {bound.cut}")
            if size > SPAN_BYTES:
                break  # tighter bounds come next
        if names.SPAN_TYPE in found:
            found[names.SPAN_TYPE] = bounded_text(str(found[names.SPAN_TYPE]), TYPE_BYTES)
        if cuts:
            found[names.CUT] = [bounded_text(each, NAME_BYTES) for each in cuts[:CUTS]]
            size += _size(names.CUT) + _size(found[names.CUT])
        return attributes_without(found, dropped), size

    def _events(self, given: Sequence[Event], dropped: int) -> tuple[Sequence[Event], int]:
        found, size = [], 0
        for event in given[: self.events]:
            attributes, more = self._attributes(
                event.attributes or {}, self.event_attributes, event.dropped_attributes
            )
            name = bounded_text(event.name, NAME_BYTES)
            found.append(Event(name, attributes, timestamp=_time(event.timestamp)))
            size += more + _size(name)
            if size > SPAN_BYTES:
                break
        return parts_without(found, dropped + len(given) - len(found)), size

    def _links(self, given: Sequence[Link], dropped: int) -> tuple[Sequence[Link], int]:
        found, size = [], 0
        for link in given:
            if len(found) < self.links and _is_sendable(link.context):
                attributes, more = self._attributes(
                    link.attributes or {}, self.link_attributes, link.dropped_attributes
                )
                found.append(Link(link.context, attributes))
                size += more
                if size > SPAN_BYTES:
                    break
        return parts_without(found, dropped + len(given) - len(found)), size


def bounded_resource(resource: Resource) -> Resource:
    """Return a resource with attributes that MLflow can keep as tags of a trace."""
    bound = ValueBounds(RESOURCE_BYTES)
    kept = list(resource.attributes.items())[:RESOURCE_ATTRIBUTES]
    return Resource({bounded_key(key): bound(value) for key, value in kept}, resource.schema_url)


def _is_plain(span: ReadableSpan) -> bool:
    """Return whether a span is sent unchanged, but for its attributes, events and links."""
    scope, status, start, end = (
        span.instrumentation_scope,
        span.status.description,
        span.start_time,
        span.end_time,
    )
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


def _is_plain_part(part: Event | Link) -> bool:
    return _is_sendable(part.context) if isinstance(part, Link) else _is_plain_name(part.name)


def _size_of_plain(attributes: Mapping[str, Any]) -> int | None:
    """Return the bytes of attributes that are all sent unchanged; None if one is not, or may not be."""
    size = 0
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            most = TYPE_BYTES if key == names.SPAN_TYPE else SHORT
            if len(value) > most or not value.isascii() or "\0" in value:
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
    """Bytes in OTLP, rather too many than too few."""
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
    """Nanoseconds that every receiver takes, whatever a step gave as a time."""
    try:
        return min(max(int(value), 0), LAST_TIME)
    except (TypeError, ValueError, OverflowError):
        return 0


def _is_sendable(context: SpanContext) -> bool:
    """Return whether the ids of a context have the sizes that OTLP prescribes."""
    return 0 < context.trace_id < 2**128 and 0 < context.span_id < 2**64
