"""Records what an agent does as spans: never a secret, and what was said only if a switch says so.

What the spans are called and hold: conventions.py. Where they go is the tracer's affair.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ledgerline.cleaning.texts import Cleaner, cleaned, sendable, shortened

MAX_CHARACTERS = 32_000  # of one attribute: traces are kept in databases
LONGEST_NAME = 200  # characters; a model may ask for a tool of any name


class RecordedSpan:
    """A span that is open."""

    def __init__(self, span: Span, redact: Callable[[str], str], *, captures: bool) -> None:
        self._span = span
        self._redact = redact
        self._is_kept = span.is_recording()
        self._captures = captures and self._is_kept

    @property
    def trace_id(self) -> int:
        """Of its trace; 0 if that is not kept."""
        return self._span.get_span_context().trace_id if self._is_kept else 0

    @property
    def span_id(self) -> int:
        """Its own; 0 if its trace is not kept."""
        return self._span.get_span_context().span_id if self._is_kept else 0

    def set(self, attributes: "Mapping[str, AttributeValue | None]") -> None:
        """Say something of it that is not what anybody said; what is None is left out."""
        if self._span.is_recording():
            for name, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(name, self._kept(value))

    def content(self, attributes: Mapping[str, Any]) -> None:
        """Say what was said, if that is to be recorded; what is no text becomes JSON."""
        if not self._captures:
            return
        for name, value in attributes.items():
            text = value if isinstance(value, str) else _json(value, self._redact)
            self._span.set_attribute(name, _recordable(text, self._redact))

    def succeeded(self) -> None:
        """Say that it went well: a trace without a status is shown as being in progress by MLflow."""
        self._span.set_status(Status(StatusCode.OK))

    def failed(self, kind: str, why: str) -> None:
        """Say that it went wrong."""
        if self._span.is_recording():
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, _recordable(why, self._redact)))

    def _kept(self, value: AttributeValue) -> AttributeValue:
        if isinstance(value, str):
            return _recordable(value, self._redact)
        if isinstance(value, Sequence):
            return [_recordable(part, self._redact) if isinstance(part, str) else part for part in value]
        return value


@dataclass(frozen=True)
class Recorder:
    """Makes the spans of an execution.

    Attributes:
        tracer: Where they go.
        captures: Whether what was said is recorded (OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT).
        redact: Takes secrets out of whatever is recorded.
    """

    tracer: Tracer = field(default_factory=NoOpTracer)
    captures: bool = False
    redact: Callable[[str], str] = field(default_factory=Cleaner)

    @contextmanager
    def span(
        self,
        name: str,
        attributes: "Mapping[str, AttributeValue | None]" = {},  # noqa: B006 (never changed)
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[RecordedSpan]:
        """Open a span under the one that is open, until the end of the block; an exception is its error."""
        shown = shortened(sendable(self.redact(name)), LONGEST_NAME)
        with self.tracer.start_as_current_span(
            shown, kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            recorded = RecordedSpan(span, self.redact, captures=self.captures)
            recorded.set(attributes)
            try:
                yield recorded
            except BaseException as error:
                # Not OpenTelemetry's own way, which writes down the message as it is.
                recorded.failed(type(error).__qualname__, str(error))
                raise


def readable(text: str) -> str:
    """Return the text in what UTF-8 can say: no server of a model takes half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def _json(value: Any, redact: Callable[[str], str]) -> str:
    """JSON of it with every text redacted, before quotes and escapes hide a secret's form."""
    try:
        return json.dumps(cleaned(value, "", redact), default=str)
    except (RecursionError, ValueError) as error:
        return f"({type(error).__name__}: too deep to be written down)"


def _recordable(text: str, redact: Callable[[str], str]) -> str:
    return shortened(sendable(redact(text)), MAX_CHARACTERS)
