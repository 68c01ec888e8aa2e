"""Reads traces from MLflow."""

from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from mlflow import MlflowClient
from mlflow.entities import Span, SpanStatusCode
from mlflow.exceptions import MlflowException

from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace

ADDED = "mlflow.traceRequestId"  # an attribute that MLflow adds to each span


@dataclass(frozen=True)
class MLflowTraces:
    """An MLflow server with traces."""

    client: MlflowClient

    def trace(self, run_id: str) -> ReceivedTrace:
        """Return the trace of a Dagster run, which is empty if MLflow does not have it."""
        return self.trace_of(UUID(run_id).hex)

    def trace_of(self, trace_id: str) -> ReceivedTrace:
        """Return a trace. Its field `times` counts how often each span is stored."""
        try:
            stored = self.client.get_trace(f"tr-{trace_id}").data.spans
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            stored = []
        spans = [_span(span, trace_id) for span in stored]
        times = Counter(span.span_id for span in spans)
        return ReceivedTrace(trace_id, list({span.span_id: span for span in spans}.values()), times)


def _span(span: Span, trace_id: str) -> ReceivedSpan:
    assert span.end_time_ns is not None
    return ReceivedSpan(
        name=span.name,
        trace_id=trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        scope="",  # MLflow does not store this.
        started=span.start_time_ns,
        ended=span.end_time_ns,
        failed=span.status.status_code is SpanStatusCode.ERROR,
        attributes={name: value for name, value in span.attributes.items() if name != ADDED},
        events={event.name: dict(event.attributes) for event in span.events},
        links=[(link.trace_id.removeprefix("tr-"), link.span_id) for link in span.links],
    )
