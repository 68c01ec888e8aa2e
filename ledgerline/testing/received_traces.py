"""A received trace, with queries for tests. The receiver is in otlp_receivers.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ledgerline.traces import attributes as names


@dataclass(frozen=True)
class ReceivedSpan:
    """A span. Ids are hexadecimal, times are nanoseconds since the epoch, links are (trace id, span id)."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    scope: str
    started: int
    ended: int
    failed: bool
    attributes: Mapping[str, object]
    events: Mapping[str, Mapping[str, object]] = field(repr=False)
    links: Sequence[tuple[str, str]] = field(repr=False)

    @property
    def is_attempt(self) -> bool:
        """True if it is the span of an attempt at a step, and not of a part of the attempt."""
        return names.OUTCOME in self.attributes

    @property
    def of(self) -> tuple[object, object]:
        """The step and the number of the attempt that the span belongs to."""
        return self.attributes.get(names.STEP), self.attributes.get(names.ATTEMPT)

    @property
    def problem(self) -> str:
        """The type and the message of its exception event."""
        exception = self.events.get("exception", {})
        return f"{exception.get('exception.type')}: {exception.get('exception.message')}"


@dataclass(frozen=True)
class ReceivedTrace:
    """All spans of one trace, and how often each of them was received."""

    trace_id: str
    spans: Sequence[ReceivedSpan]
    times: Mapping[str, int]

    @property
    def by_id(self) -> Mapping[str, ReceivedSpan]:
        """The spans by their ids."""
        return {span.span_id: span for span in self.spans}

    @property
    def roots(self) -> Sequence[ReceivedSpan]:
        """The spans without a parent."""
        return [span for span in self.spans if span.parent_id is None]

    @property
    def root(self) -> ReceivedSpan:
        """The only span without a parent."""
        (root,) = self.roots
        return root

    @property
    def attempts(self) -> Mapping[tuple[object, object], ReceivedSpan]:
        """The spans of attempts by step and number."""
        return {span.of: span for span in self.spans if span.is_attempt}

    @property
    def repeated(self) -> Sequence[ReceivedSpan]:
        """The spans that were received more than once."""
        return [span for span in self.spans if self.times[span.span_id] > 1]

    def named(self, name: str) -> ReceivedSpan:
        """Return the only span of this name."""
        (span,) = self.all_named(name)
        return span

    def all_named(self, name: str) -> Sequence[ReceivedSpan]:
        """Return all spans of this name."""
        return [span for span in self.spans if span.name == name]

    def above(self, span: ReceivedSpan) -> Sequence[ReceivedSpan]:
        """Return the ancestors of a span, from its parent to the root."""
        path = []
        while span.parent_id is not None:
            span = self.by_id[span.parent_id]
            path.append(span)
        return path
