"""Spans as plain dicts, to be compared as a whole; what differs from run to run has a name for its value."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, StatusCode

from ledgerline.ledger import ids
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.testing.recordings import Recording
from ledgerline.traces import attributes as names
from ledgerline.traces.spans import run_spans

Key = tuple[int, int]

MICROSECOND = 1000  # nanoseconds; the resolution of times in the event log
SECOND = 1_000_000_000  # nanoseconds

PID = "<pid>"
RUN = "<run>"
HASH = "<hash>"
HASHES = re.compile(r"\b[0-9a-f]{64}\b")


def spans_of(
    now: RunHistory,
    before: RunHistory | None = None,
    links: Links | None = None,
    mlflow_page: str | None = None,
) -> list[ReadableSpan]:
    """The spans of a run, or those that are new."""
    return list(run_spans(now, before, Resource.get_empty(), links or Links(), mlflow_page))


def trace_of(recording: Recording) -> list[ReadableSpan]:
    """The trace of its run."""
    trace_id = ids.trace_id(recording.run.run_id)
    return [span for span in spans_of(recording.history_with_reads) if context_of(span).trace_id == trace_id]


def tagged(recording: Recording, **tags: str) -> RunHistory:
    """Return its history with these tags, which are tags of Dagster unless their name is another one."""
    named_tags = {name if name == "traceparent" else f"dagster/{name}": tag for name, tag in tags.items()}
    return replace(recording.history, run=replace(recording.run, tags=named_tags))


def links_of(span: ReadableSpan) -> list[tuple[int, int, object]]:
    return [
        (link.context.trace_id, link.context.span_id, (link.attributes or {})[names.LINK])
        for link in span.links
    ]


def exceptions(span: ReadableSpan) -> list[tuple[object, object]]:
    """Return type and message of the exceptions of a span."""
    told = [event.attributes or {} for event in span.events if event.name == "exception"]
    return [(each["exception.type"], each["exception.message"]) for each in told]


def context_of(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


def key_of(span: ReadableSpan) -> Key:
    """Return the key by which a backend identifies a span."""
    return context_of(span).trace_id, context_of(span).span_id


def times_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def whole(span: ReadableSpan) -> tuple[object, ...]:
    """Return everything in a span, to be compared."""
    return (
        key_of(span),
        span.parent,
        span.name,
        times_of(span),
        span.kind,
        span.status.status_code,
        span.status.description,
        dict(span.attributes or {}),
        [(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events],
        [(link.context, dict(link.attributes or {})) for link in span.links],
    )


def as_dicts(spans: Sequence[ReadableSpan], run_id: str) -> list[dict[str, Any]]:
    """Each span as a dict, without what is empty or OK; the parent and the ends of links by name."""
    known = {key_of(span): span.name for span in spans}
    return [_as_dict(span, known, run_id) for span in spans]


def dicts_of(recording: Recording) -> list[dict[str, Any]]:
    """Return the spans of the recording as dicts, without the phase after the last output.

    On a busy machine, recording an output takes so long that this phase is there.
    """
    spans = [span for span in trace_of(recording) if span.name != "compute #2"]
    return as_dicts(spans, recording.run.run_id)


def named(spans: Iterable[ReadableSpan], name: str) -> ReadableSpan:
    """The only span of a name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def attempt_span(spans: Iterable[ReadableSpan], step: str, number: int = 1) -> ReadableSpan:
    """The span of an attempt at a step."""
    (found,) = [
        span
        for span in spans
        if names.OUTCOME in (attributes := span.attributes or {})
        and (attributes[names.STEP], attributes[names.ATTEMPT]) == (step, number)
    ]
    return found


def root_of(spans: Iterable[ReadableSpan]) -> ReadableSpan:
    (root,) = [span for span in spans if span.parent is None]
    return root


def path_of(span: ReadableSpan, spans: Iterable[ReadableSpan]) -> list[str]:
    """Return the name of a span, after the names of all spans above it."""
    by_key = {key_of(each): each for each in spans}
    path = [span.name]
    while span.parent is not None:
        span = by_key[span.parent.trace_id, span.parent.span_id]
        path.insert(0, span.name)
    return path


def _as_dict(span: ReadableSpan, known: Mapping[Key, str], run_id: str) -> dict[str, Any]:
    described = {
        "name": span.name,
        "parent": known[span.parent.trace_id, span.parent.span_id] if span.parent is not None else None,
        "attributes": _steady(span.attributes or {}, run_id),
        "status": span.status.status_code.name if span.status.status_code is not StatusCode.OK else None,
        "description": span.status.description,
        "events": [_event(event, run_id) for event in span.events],
        "links": [_link(link, known) for link in span.links],
    }
    return {name: value for name, value in described.items() if value}


def _event(event: Event, run_id: str) -> dict[str, Any]:
    attributes = _steady(event.attributes or {}, run_id)
    if "exception.stacktrace" in attributes:
        # The lines of the stack change often; other tests check them.
        attributes["exception.stacktrace"] = "..." if attributes["exception.stacktrace"] else ""
    return {"name": event.name} | attributes


def _link(link: Link, known: Mapping[Key, str]) -> tuple[str, object]:
    context, attributes = link.context, link.attributes or {}
    return known.get((context.trace_id, context.span_id), "elsewhere"), attributes[names.LINK]


def _steady(attributes: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    def steady(value: Any) -> Any:
        if isinstance(value, str):
            return HASHES.sub(HASH, value.replace(run_id, RUN))
        return [steady(each) for each in value] if isinstance(value, tuple | list) else value

    pid = {names.PID: PID} if names.PID in attributes else {}
    return {name: steady(value) for name, value in attributes.items()} | pid
