"""Keeps the spans of executions in memory, and returns them as trees and as one text."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

Tree = tuple[str, list["Tree"]]


class Spans:
    """A tracer, and the spans that it made."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("test")

    def shutdown(self) -> None:
        self._provider.shutdown()

    @property
    def finished(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name, in the order in which they began."""
        return sorted(
            (span for span in self.finished if span.name == name), key=lambda span: span.start_time or 0
        )

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    @property
    def root(self) -> ReadableSpan:
        (span,) = (span for span in self.finished if span.parent is None)
        return span

    @property
    def tree(self) -> Tree:
        return self._below(self.root)

    def traces(self) -> dict[int, list[ReadableSpan]]:
        """Spans by the trace they belong to."""
        found: dict[int, list[ReadableSpan]] = {}
        for span in self.finished:
            found.setdefault(context_of(span)[0], []).append(span)
        return found

    @property
    def text(self) -> str:
        """Return the content of all spans, as JSON and as texts whose quotes are not escaped."""
        return "\n".join(
            part
            for span in self.finished
            for part in (span.to_json(), *map(str, _texts(content_of_span(span))))
        )

    def encoded(self) -> bytes:
        """All of them as they are sent to a collector."""
        return encode_spans(self.finished).SerializeToString()

    def _below(self, span: ReadableSpan) -> Tree:
        inner = [
            other
            for other in sorted(self.finished, key=lambda other: other.start_time or 0)
            if other.parent is not None and other.parent.span_id == context_of(span)[1]
        ]
        return span.name, [self._below(other) for other in inner]


def context_of(span: ReadableSpan) -> tuple[int, int]:
    """Ids of its trace and of itself."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


def content_of(span: ReadableSpan, name: str) -> Any:
    """An attribute that holds JSON."""
    return json.loads(attributes_of(span)[name])


def content_of_span(span: ReadableSpan) -> list[Any]:
    """Name, attributes, status and events."""
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    return [span.name, attributes_of(span), span.status.description, events]


def _texts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield name
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    else:
        yield value
