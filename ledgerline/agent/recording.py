"""Records an agent's work as spans, without secrets, and with message content only if that is enabled.

The names of spans and attributes are in conventions.py. The tracer decides where spans are exported.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ledgerline.cleaning.texts import Cleaner, cleaned, sendable, shortened

MAX_CHARACTERS = 32_000  # of one attribute, because traces are stored in databases
MAX_NAME_CHARACTERS = 200  # a model may call a tool by any name


class RecordedSpan:
    """A span that has not ended."""

    def __init__(self, span: Span, redact: Callable[[str], str], *, captures: bool) -> None:
        self._span = span
        self._redact = redact
        self._is_kept = span.is_recording()
        self._captures = captures and self._is_kept

    @property
    def trace_id(self) -> int:
        """The id of the trace; 0 if it is not sampled."""
        return self._span.get_span_context().trace_id if self._is_kept else 0

    @property
    def span_id(self) -> int:
        """The id of the span; 0 if the trace is not sampled."""
        return self._span.get_span_context().span_id if self._is_kept else 0

    def set(self, attributes: "Mapping[str, AttributeValue | None]") -> None:
        """Set attributes that are not message content; None values are skipped."""
        if self._span.is_recording():
            for name, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(name, self._kept(value))

    def content(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes with message content, if that is enabled; values that are not texts become JSON."""
        if not self._captures:
            return
        for name, value in attributes.items():
            self._span.set_attribute(name, self._text(value if isinstance(value, str) else self._json(value)))

    def succeeded(self) -> None:
        """Set the status OK; MLflow shows a trace without a status as being in progress."""
        self._span.set_status(Status(StatusCode.OK))

    def failed(self, kind: str, why: str) -> None:
        """Set the status ERROR with the type and the message of the error."""
        if self._span.is_recording():
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, self._text(why)))

    def _kept(self, value: AttributeValue) -> AttributeValue:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Sequence):
            return [self._text(part) if isinstance(part, str) else part for part in value]
        return value

    def _text(self, text: str) -> str:
        return shortened(sendable(self._redact(text)), MAX_CHARACTERS)

    def _json(self, value: Any) -> str:
        """Return JSON; texts are redacted before quoting and escaping change the form of a secret."""
        try:
            return json.dumps(cleaned(value, "", self._redact), default=str)
        except (RecursionError, ValueError) as error:
            return f"({type(error).__name__}: the value is nested too deeply)"


@dataclass(frozen=True)
class Recorder:
    """Creates the spans of an execution.

    Attributes:
        tracer: Tracer of OpenTelemetry.
        captures: True to record message content (OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT).
        redact: Function that removes secrets from each recorded text.
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
        """Open a span under the current one until the end of the block; an exception becomes its error."""
        redacted = shortened(sendable(self.redact(name)), MAX_NAME_CHARACTERS)
        with self.tracer.start_as_current_span(
            redacted, kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            recorded = RecordedSpan(span, self.redact, captures=self.captures)
            recorded.set(attributes)
            try:
                yield recorded
            except BaseException as error:
                # OpenTelemetry would record the message without redacting it.
                recorded.failed(type(error).__qualname__, str(error))
                raise


def replace_invalid_unicode(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode and no server of a model accepts."""
    return text.encode("utf-8", "replace").decode()
