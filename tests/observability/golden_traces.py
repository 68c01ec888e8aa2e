"""Renders complete exported traces as text, with names instead of ids and with deterministic times.

The events of a run get logical times: one event every 10 ms, without engine events. The spans that are made
from these events then have exact times. Spans from inside a step were timed by the step, and are rendered
without times.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg
from dagster import DagsterEventType, EventLogRecord
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from ledgerline.ledger import ids
from ledgerline.ledger.event_log import HistoryReader
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill
from ledgerline.ledger.upstreams import Upstreams
from ledgerline.testing.recordings import Recording
from ledgerline.traces import attributes as names
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.spans import SCOPE
from ledgerline.traces.telemetry import Telemetry
from tests.observability.exported_spans import Key, context_of, key_of, times_of

CREATED = 1_000.0  # seconds since the epoch
TICK = 0.01
LINKS = Links(dagster="http://dagster.example")
DIGESTS = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Rerun:
    """A recording with logical times: event number n of the run is at CREATED + n * TICK.

    Engine events are not counted, because a slow step writes its spans in more of them.
    """

    recording: Recording

    def histories(self) -> Iterator[RunHistory]:
        """Yield the history after each event of the run; the last one is that of the ended run."""
        instance = self.recording.instance
        assert instance is not None
        reader = HistoryReader(replace(self.recording.run, created=CREATED))
        upstreams = Upstreams(instance)
        for record in self._records():
            reader.feed([record])
            yield upstreams.resolve(reader.history())

    def _records(self) -> Iterator[EventLogRecord]:
        number = 0
        for record in self.recording.records:
            event = record.event_log_entry.dagster_event
            number += event is not None and event.event_type is not DagsterEventType.ENGINE_EVENT
            entry = record.event_log_entry._replace(timestamp=CREATED + number * TICK)
            yield record._replace(event_log_entry=entry)


class Exporting:
    """A projection to traces whose exported spans stay in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._projection = TraceProjection(
            "memory",
            lambda: self._exporter,
            Telemetry(),
            LINKS,
            lambda run_id: f"http://mlflow.example/{run_id}",
        )

    def export(self, instance: dg.DagsterInstance, histories: Sequence[RunHistory]) -> None:
        """Export each of these histories of a run after the one before."""
        before: RunHistory | None = None
        for now in histories:
            self._projection.export(instance, now, before)
            before = now

    def export_backfill(self, backfill: Backfill) -> None:
        """Export a backfill."""
        self._projection.export_backfill(backfill)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The last version of each exported span."""
        return list({key_of(span): span for span in self._exporter.get_finished_spans()}.values())


def exported(recording: Recording, *, while_in_progress: bool = False) -> Sequence[ReadableSpan]:
    """Return the exported spans of a run, which is exported once at its end or after each of its events."""
    histories = list(Rerun(recording).histories())
    exporting = Exporting()
    assert recording.instance is not None
    exporting.export(recording.instance, histories if while_in_progress else histories[-1:])
    return exporting.spans


def rendered(spans: Sequence[ReadableSpan], run_ids: Mapping[str, str]) -> str:
    """Return the traces of these spans as text.

    Args:
        spans: Spans of one or more traces.
        run_ids: Names of the runs by their ids.
    """
    return "\n".join(Rendering(spans, run_ids).lines()) + "\n"


class Rendering:
    """Renders spans as a tree for each trace."""

    def __init__(self, spans: Sequence[ReadableSpan], run_ids: Mapping[str, str]) -> None:
        self._spans = {key_of(span): span for span in spans}
        self._run_ids = run_ids
        self._traces = {ids.trace_id(run_id): f"trace of {name}" for run_id, name in run_ids.items()}

    def lines(self) -> Iterator[str]:
        """Yield the lines of all traces."""
        roots = [span for span in self._spans.values() if span.parent is None or self._parent(span) is None]
        for root in sorted(roots, key=self._order):
            yield self._traces.get(context_of(root).trace_id, "trace of the backfill")
            yield from self._span(root, 1)
            yield ""

    def _span(self, span: ReadableSpan, depth: int) -> Iterator[str]:
        indent = "  " * depth
        status = span.status.status_code.name
        if span.status.description:
            status += f": {self._text(span.status.description)}"
        yield f"{indent}{self._text(span.name)} [{self._times(span)}] {span.kind.name} {status}"
        for name, value in sorted((span.attributes or {}).items()):
            yield f"{indent}    {name} = {self._value(name, value)}"
        for event in span.events:
            yield from self._event(event, span, indent)
        for link in span.links:
            kind = (link.attributes or {}).get(names.LINK)
            yield f"{indent}    link: {kind} -> {self._end_of_link(link.context)}"
        children = [each for each in self._spans.values() if self._parent(each) is span]
        for child in sorted(children, key=self._order):
            yield from self._span(child, depth + 1)

    def _event(self, event: Event, span: ReadableSpan, indent: str) -> Iterator[str]:
        time = f" at {_milliseconds(event.timestamp)}" if _is_of_history(span) else ""
        yield f"{indent}    event: {event.name}{time}"
        for name, value in sorted((event.attributes or {}).items()):
            yield f"{indent}        {name} = {self._value(name, value)}"

    def _times(self, span: ReadableSpan) -> str:
        if not _is_of_history(span):
            return "timed by the step"
        started, ended = times_of(span)
        return f"{_milliseconds(started)} to {_milliseconds(ended)}"

    def _value(self, name: str, value: object) -> str:
        if name == names.PID:
            return "<process id>"
        if name == "exception.stacktrace":
            # The stack changes with Dagster; other tests check its contents.
            return "<stack>" if value else '""'
        return self._text(json.dumps(value))

    def _text(self, text: str) -> str:
        for run_id, name in self._run_ids.items():
            text = text.replace(run_id, f"<id of {name}>")
        return DIGESTS.sub("<sha256>", text)

    def _parent(self, span: ReadableSpan) -> ReadableSpan | None:
        return (
            self._spans.get((span.parent.trace_id, span.parent.span_id)) if span.parent is not None else None
        )

    def _end_of_link(self, context: SpanContext) -> str:
        key: Key = context.trace_id, context.span_id
        if key not in self._spans:
            return "a span that was not exported"
        span = self._spans[key]
        number = (span.attributes or {}).get(names.ATTEMPT)
        attempt = f", attempt {number}" if number is not None else ""
        trace = self._traces.get(context.trace_id, "trace of the backfill")
        return f"{self._text(span.name)}{attempt} in the {trace}"

    def _order(self, span: ReadableSpan) -> tuple[bool, int, int, str]:
        started, ended = times_of(span)
        return not _is_of_history(span), started, ended, self._text(span.name)


def _is_of_history(span: ReadableSpan) -> bool:
    """Return whether a span is made from events, and not by the step itself."""
    return span.instrumentation_scope is SCOPE


def _milliseconds(time: int) -> str:
    return f"{round((time - CREATED * 1e9) / 1e6):d} ms"
