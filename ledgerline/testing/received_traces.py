"""A trace as it was received, to be asked what people look for. Received in otlp_receivers.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ledgerline.traces import attributes as names


@dataclass(frozen=True)
class ReceivedSpan:
    """A span; ids in hex digits, times in nanoseconds since the epoch, links as (trace id, span id)."""

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
        """Whether it is about an attempt at a step, and not about a part of one."""
        return names.OUTCOME in self.attributes

    @property
    def of(self) -> tuple[object, object]:
        """The step and the number of the attempt that it belongs to."""
        return self.attributes.get(names.STEP), self.attributes.get(names.ATTEMPT)

    @property
    def problem(self) -> str:
        """Type and message of the exception that it tells of."""
        exception = self.events.get("exception", {})
        return f"{exception.get('exception.type')}: {exception.get('exception.message')}"


@dataclass(frozen=True)
class ReceivedTrace:
    """All spans of one trace, and how often each of them came."""

    trace_id: str
    spans: Sequence[ReceivedSpan]
    times: Mapping[str, int]

    @property
    def by_id(self) -> Mapping[str, ReceivedSpan]:
        """Return the spans by their ids."""
        return {span.span_id: span for span in self.spans}

    @property
    def roots(self) -> Sequence[ReceivedSpan]:
        """Return the spans without a parent."""
        return [span for span in self.spans if span.parent_id is None]

    @property
    def root(self) -> ReceivedSpan:
        """Return the only span without a parent."""
        (root,) = self.roots
        return root

    @property
    def attempts(self) -> Mapping[tuple[object, object], ReceivedSpan]:
        """Return the spans of attempts by step and number."""
        return {span.of: span for span in self.spans if span.is_attempt}

    @property
    def repeated(self) -> Sequence[ReceivedSpan]:
        """Return the spans that came more than once."""
        return [span for span in self.spans if self.times[span.span_id] > 1]

    def named(self, name: str) -> ReceivedSpan:
        """Return the only span of this name."""
        (span,) = self.all_named(name)
        return span

    def all_named(self, name: str) -> Sequence[ReceivedSpan]:
        """Return all spans of this name."""
        return [span for span in self.spans if span.name == name]

    def above(self, span: ReceivedSpan) -> Sequence[ReceivedSpan]:
        """Return its parent, the parent of that, and so on up to the root."""
        path = []
        while span.parent_id is not None:
            span = self.by_id[span.parent_id]
            path.append(span)
        return path
