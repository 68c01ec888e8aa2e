"""The projection of runs to traces: makes the spans (spans.py) and sends them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

import dagster as dg
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observability import attributes, spans, telemetry
from observability.history import RunHistory
from observability.links import Links
from observability.projection import Backfill, TargetUnavailableError
from observability.telemetry import Telemetry

SPANS_AT_ONCE = 512  # as OpenTelemetry's own batches


@dataclass
class TraceProjection:
    """Shows each run as one trace.

    Attributes:
        target: Where the spans go, for messages; without a password.
        open_exporter: Makes the exporter; asked when there is something to send.
        telemetry: Which traces are kept.
        links: Where the pages of a run are.
        mlflow_page: Where MLflow shows a run, by Dagster's run id.
    """

    target: str
    open_exporter: Callable[[], SpanExporter]
    telemetry: Telemetry
    links: Links = field(default_factory=Links)
    mlflow_page: Callable[[str], str | None] = lambda run_id: None
    _exporter: SpanExporter | None = field(default=None, init=False)
    _resource: Resource | None = field(default=None, init=False)

    name = "traces"

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None) -> int:
        """Send the spans that became complete; the root comes last."""
        page = self.mlflow_page(now.run.run_id) if now.finished else None
        return self._send(spans.run_spans(now, before, self._described(), self.links, page))

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
        return self._send([span])

    def _described(self) -> Resource:
        if self._resource is None:
            self._resource = telemetry.resource()
        return self._resource

    def _send(self, made: Iterable[ReadableSpan]) -> int:
        kept = (
            span for span in made if span.context is not None and self.telemetry.keeps(span.context.trace_id)
        )
        sent = 0
        while batch := list(islice(kept, SPANS_AT_ONCE)):
            self._send_batch(batch)
            sent += len(batch)
        return sent

    def _send_batch(self, batch: list[ReadableSpan]) -> None:
        try:
            if self._exporter is None:
                self._exporter = self.open_exporter()
            result = self._exporter.export(batch)
        except Exception as error:  # whatever an exporter raises, and they differ: it was not sent
            self._exporter = None
            raise TargetUnavailableError(f"{self.target} does not take traces: {error}") from error
        if result is not SpanExportResult.SUCCESS:
            raise TargetUnavailableError(f"{self.target} does not take traces; the log says why.")
