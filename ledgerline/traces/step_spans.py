"""Encodes spans from inside a step for the event log, and decodes them. step_tracing.py writes them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ledgerline.cleaning.texts import clean, cleaned
from ledgerline.traces.dropped_parts import attributes_without, parts_without

SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def encode(spans: Sequence[ReadableSpan]) -> list[dict[str, Any]]:
    """Return the spans of one attempt as JSON values; times are nanoseconds since the epoch."""
    # Encoding and decoding the text converts tuples to lists, and replaces values that JSON or UTF-8 cannot
    # represent, such as NaN and undecodable file names.
    text = json.dumps([_encoded(span) for span in spans], default=str, ensure_ascii=False)
    return json.loads(text.encode(errors="replace"), parse_constant=str)


def decode(
    encoded: Iterable[Mapping[str, Any]], trace_id: int, resource: Resource, later: int
) -> Iterator[ReadableSpan]:
    """Yield the spans that were encoded, without secrets.

    `later` nanoseconds are added to all times, because the clock of the process was behind.
    """
    for span in encoded:
        scope, version = span["scope"]
        code, description = span["status"]
        of_span, of_events, of_links = span.get("dropped", (0, 0, 0))
        yield ReadableSpan(
            name=clean(span["name"]),
            context=span_context(trace_id, int(span["id"], 16)),
            parent=span_context(trace_id, int(span["parent"], 16)) if span["parent"] else None,
            resource=resource,
            attributes=attributes_without(cleaned(span["attributes"]), of_span),
            events=parts_without(
                [
                    Event(
                        clean(name), attributes_without(cleaned(attributes), *dropped), timestamp=time + later
                    )
                    for name, time, attributes, *dropped in span["events"]
                ],
                of_events,
            ),
            links=parts_without(
                [
                    Link(
                        span_context(int(trace, 16), int(span_id, 16)),
                        attributes_without(cleaned(attributes), *dropped),
                    )
                    for trace, span_id, attributes, *dropped in span["links"]
                ],
                of_links,
            ),
            kind=SpanKind[span["kind"]],
            instrumentation_scope=InstrumentationScope(scope, version),
            status=Status(StatusCode[code], clean(description) if description else description),
            start_time=span["start"] + later,
            end_time=span["end"] + later,
        )


def _encoded(span: ReadableSpan) -> dict[str, Any]:
    scope = span.instrumentation_scope
    dropped = [span.dropped_attributes, span.dropped_events, span.dropped_links]
    return {
        "name": span.name,
        "id": f"{span.context.span_id:016x}",  # pyright: ignore[reportOptionalMemberAccess]  (an ended span has one)
        "parent": f"{span.parent.span_id:016x}" if span.parent is not None else None,
        "start": span.start_time,
        "end": span.end_time,
        "kind": span.kind.name,
        "status": [span.status.status_code.name, span.status.description],
        "scope": [scope.name, scope.version] if scope is not None else ["", None],
        "attributes": dict(span.attributes or {}),
        "events": [[event.name, event.timestamp, *_described(event)] for event in span.events],
        "links": [
            [f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}", *_described(link)]
            for link in span.links
        ],
        **({"dropped": dropped} if any(dropped) else {}),
    }


def _described(part: Event | Link) -> list[Any]:
    """Return the attributes of an event or a link, and the number of dropped ones if there are any."""
    attributes = dict(part.attributes or {})
    return [attributes, part.dropped_attributes] if part.dropped_attributes else [attributes]


def span_context(trace_id: int, span_id: int) -> SpanContext:
    """Return the context of a sampled span of this process."""
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=SAMPLED)
