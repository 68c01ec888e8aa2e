"""Computes the spans of a run that a backend must have, from Dagster's event log alone."""

from collections.abc import Mapping
from dataclasses import replace

import dagster as dg
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.testing.received_traces import ReceivedSpan
from ledgerline.traces.projection import TraceProjection

EXPERIMENT_ID = "1"


def expected_spans(
    instance: dg.DagsterInstance, run_id: str, environment: Mapping[str, str]
) -> list[ReceivedSpan]:
    """Return all spans of a run, which are computed from its whole event log at once.

    Args:
        instance: Instance that has the run.
        run_id: Id of the run.
        environment: Environment of the observer, which contains the URLs of pages.
    """
    (traces,) = [
        projection
        for projection in projections_of(Settings.from_environment(environment))
        if isinstance(projection, TraceProjection)
    ]
    exporter = InMemorySpanExporter()
    history = read_history(instance, run_id)
    assert history is not None
    replace(
        traces,
        open_exporter=lambda: exporter,
        # MLflow may be down; compose.yaml contains the experiment's id.
        mlflow_page=lambda run_id: traces.links.mlflow_runs_page(EXPERIMENT_ID, run_id),
    ).export(instance, history, None)
    return [_received(span) for span in exporter.get_finished_spans()]


def _received(span: ReadableSpan) -> ReceivedSpan:
    context, started, ended = span.context, span.start_time, span.end_time
    assert context is not None
    assert started is not None
    assert ended is not None
    return ReceivedSpan(
        name=span.name,
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent is not None else None,
        scope=span.instrumentation_scope.name if span.instrumentation_scope is not None else "",
        started=started,
        ended=ended,
        failed=span.status.status_code is StatusCode.ERROR,
        attributes=dict(span.attributes or {}),
        events={event.name: dict(event.attributes or {}) for event in span.events},
        links=[(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links],
    )
