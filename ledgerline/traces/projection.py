"""Projects runs to traces: spans.py creates the spans, and deliveries.py sends them."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import dagster as dg
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter

from ledgerline.ledger import ids
from ledgerline.ledger.history import RunHistory, RunStatus
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill, TargetUnavailableError
from ledgerline.traces import spans, telemetry
from ledgerline.traces.deliveries import Delivery
from ledgerline.traces.otlp_responses import WrongTargetError
from ledgerline.traces.span_bounds import Bounds
from ledgerline.traces.telemetry import Telemetry

# Pauses before the next export to a target that accepts no spans; each is twice as long as the one before.
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0


@dataclass
class TraceProjection:
    """Exports each run as one trace.

    Attributes:
        target: Address of the target without a password, for messages.
        open_exporter: Function that opens the exporter; called at the first export.
        mlflow_page: Function that returns the URL of the MLflow runs of a Dagster run, given its id.
        clock: Clock of the pauses, in seconds.
    """

    target: str
    open_exporter: Callable[[], SpanExporter]
    telemetry: Telemetry
    links: Links = field(default_factory=Links)
    mlflow_page: Callable[[str], str | None] = lambda run_id: None
    clock: Callable[[], float] = time.monotonic
    _delivery: Delivery = field(init=False)
    _refused: set[int] = field(default_factory=set, init=False)  # traces, since the last success
    _pause: float = field(default=0.0, init=False)
    _paused_until: float = field(default=0.0, init=False)
    _why: str = field(default="", init=False)

    name = "traces"

    def __post_init__(self) -> None:
        self._delivery = Delivery(self.target, self.open_exporter, Bounds.of(telemetry.span_limits()))

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Send the spans that were completed since the last export; the root span is the last one.

        An unsampled trace that is kept because of the status or the duration of its run is sent as a whole at
        the end of the run.
        """
        trace_id = ids.trace_id(now.run.run_id)
        for_its_end = self._keeps_for_its_end(now)
        if for_its_end and not self.telemetry.keeps(trace_id):
            before = before if before is not None and self._keeps_for_its_end(before) else None
        page = self.mlflow_page(now.run.run_id) if now.finished else None
        made = spans.run_spans(now, before, self._resource, self.links, page)
        # The other spans belong to the trace of the backfill.
        in_backfill = now.finished and self.telemetry.keeps_run(failed=_has_failed(now), seconds=0.0)
        kept = (
            span
            for span in made
            if (context := span.context) is not None
            and (
                self.telemetry.keeps(context.trace_id)
                or (for_its_end if context.trace_id == trace_id else in_backfill)
            )
        )
        return self._send(trace_id, kept)

    def export_backfill(self, backfill: Backfill) -> int:
        """Send the root span of the backfill's trace."""
        span = spans.backfill_span(backfill, self._resource)
        trace_id = ids.backfill_trace_id(backfill.backfill_id)
        kept = self.telemetry.keeps(trace_id) or self.telemetry.keeps_run(failed=backfill.failed, seconds=0.0)
        return self._send(trace_id, [span] if kept else [])

    def _keeps_for_its_end(self, history: RunHistory) -> bool:
        """Return whether a trace is kept because of the status or the duration of its run."""
        if history.ended is None:
            return False
        seconds = history.ended - (history.started or history.ended)
        return self.telemetry.keeps_run(failed=_has_failed(history), seconds=seconds)

    @cached_property
    def _resource(self) -> Resource:
        return telemetry.resource()

    def _send(self, trace_id: int, kept: Iterable[ReadableSpan]) -> int:
        kept = iter(kept)
        first = next(kept, None)
        if first is None:
            return 0
        if self._is_paused(trace_id):
            raise TargetUnavailableError(f"{self.target} does not accept traces: {self._why}")
        try:
            sent = self._delivery.send(chain([first], kept))
        except Exception as error:  # Exporters raise different errors; each means that nothing was sent.
            if isinstance(error, WrongTargetError):
                self._pause_after(trace_id, str(error))
            raise TargetUnavailableError(f"{self.target} does not accept traces: {error}") from error
        self._pause = 0.0
        self._refused.clear()
        return sent

    def _is_paused(self, trace_id: int) -> bool:
        """Return whether exports pause, because this trace, or several others, were rejected as a whole."""
        return self.clock() < self._paused_until and (trace_id in self._refused or len(self._refused) > 1)

    def _pause_after(self, trace_id: int, why: str) -> None:
        """Pause a trace of which the target accepts no span.

        After two rejected traces in a row, the target is taken to be the cause, and all traces are paused.
        """
        self._refused.add(trace_id)
        self._pause = min(2 * self._pause or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._paused_until, self._why = self.clock() + self._pause, why


def _has_failed(history: RunHistory) -> bool:
    return history.finished and history.status is not RunStatus.SUCCESS
