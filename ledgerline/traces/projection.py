"""The projection of runs to traces: makes the spans (spans.py) and has them sent (deliveries.py)."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

import dagster as dg
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter

from ledgerline.ledger import ids
from ledgerline.ledger.history import RunHistory, RunStatus
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill, TargetUnavailableError
from ledgerline.traces import attributes, spans, telemetry
from ledgerline.traces.deliveries import Delivery
from ledgerline.traces.otlp_answers import WrongTargetError
from ledgerline.traces.span_bounds import Bounds
from ledgerline.traces.telemetry import Telemetry

# A target that takes no spans at all is left alone for so long; each time twice as long as before.
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0


@dataclass
class TraceProjection:
    """Shows each run as one trace.

    Attributes:
        target: Where the spans go, for messages; without a password.
        open_exporter: Makes the exporter; asked when there is something to send.
        telemetry: Which traces are kept.
        links: Where the pages of a run are.
        mlflow_page: Where MLflow shows a run, by Dagster's run id.
        clock: The seconds that pauses are counted in.
    """

    target: str
    open_exporter: Callable[[], SpanExporter]
    telemetry: Telemetry
    links: Links = field(default_factory=Links)
    mlflow_page: Callable[[str], str | None] = lambda run_id: None
    clock: Callable[[], float] = time.monotonic
    _delivery: Delivery = field(init=False)
    _resource: Resource | None = field(default=None, init=False)
    _refused: set[int] = field(default_factory=set, init=False)  # traces, since the target took one
    _pause: float = field(default=0.0, init=False)
    _paused_until: float = field(default=0.0, init=False)
    _why: str = field(default="", init=False)

    name = "traces"

    def __post_init__(self) -> None:
        self._delivery = Delivery(self.target, self.open_exporter, Bounds.of(telemetry.span_limits()))

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Send the spans that became complete; the root comes last.

        A trace that is kept only for how its run ended is sent as a whole then.
        """
        trace_id = ids.trace_id(now.run.run_id)
        for_its_end = self._keeps_for_its_end(now)
        if for_its_end and not self.telemetry.keeps(trace_id):
            before = before if before is not None and self._keeps_for_its_end(before) else None
        page = self.mlflow_page(now.run.run_id) if now.finished else None
        made = spans.run_spans(now, before, self._described(), self.links, page)
        # The others are of the backfill's trace.
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
        span = spans.backfill_span(
            backfill.backfill_id,
            started=backfill.started,
            ended=backfill.ended,
            failed=backfill.failed,
            attributes={
                attributes.BACKFILL_STATUS: backfill.status,
                attributes.BACKFILL_FAILED_RUNS: backfill.failed_runs or None,
                attributes.TITLE: backfill.title,
            },
            resource=self._described(),
        )
        trace_id = ids.backfill_trace_id(backfill.backfill_id)
        kept = self.telemetry.keeps(trace_id) or self.telemetry.keeps_run(failed=backfill.failed, seconds=0.0)
        return self._send(trace_id, [span] if kept else [])

    def _keeps_for_its_end(self, history: RunHistory) -> bool:
        """Return whether a run's trace is kept because of how the run ended, whatever its id."""
        if history.ended is None:
            return False
        seconds = history.ended - (history.started or history.ended)
        return self.telemetry.keeps_run(failed=_has_failed(history), seconds=seconds)

    def _described(self) -> Resource:
        if self._resource is None:
            self._resource = telemetry.resource()
        return self._resource

    def _send(self, trace_id: int, kept: Iterable[ReadableSpan]) -> int:
        kept = iter(kept)
        first = next(kept, None)
        if first is None:
            return 0
        if self._is_left_alone(trace_id):
            raise TargetUnavailableError(f"{self.target} does not take traces: {self._why}")
        try:
            sent = self._delivery.send(chain([first], kept))
        except Exception as error:  # whatever an exporter raises, and they differ: it was not sent
            if isinstance(error, WrongTargetError):
                self._leave_alone(trace_id, str(error))
            raise TargetUnavailableError(f"{self.target} does not take traces: {error}") from error
        self._pause = 0.0
        self._refused.clear()
        return sent

    def _is_left_alone(self, trace_id: int) -> bool:
        """Whether the target took no span of this trace a moment ago, or none of several traces."""
        return self.clock() < self._paused_until and (trace_id in self._refused or len(self._refused) > 1)

    def _leave_alone(self, trace_id: int, why: str) -> None:
        """Send nothing of a trace for a while of which the target takes no span.

        Once it has refused two traces and taken none between them, it is not the traces: all of them wait.
        """
        self._refused.add(trace_id)
        self._pause = min(2 * self._pause or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._paused_until, self._why = self.clock() + self._pause, why


def _has_failed(history: RunHistory) -> bool:
    return history.finished and history.status is not RunStatus.SUCCESS
