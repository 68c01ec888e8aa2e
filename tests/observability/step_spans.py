"""Runs ops and assets that trace themselves, and reads the spans from inside their steps."""

from typing import Any

import dagster as dg
from opentelemetry.sdk.trace import ReadableSpan

from ledgerline.dagster.tracing import TRACER, OTelResource
from ledgerline.ledger.event_log import read_history
from tests.observability.exported_spans import path_of, spans_of

WAIT_SECONDS = 120


def run_of(instance: dg.DagsterInstance, *ops: dg.OpDefinition, **resources: Any) -> list[ReadableSpan]:
    """The trace of a run of these ops, one after the other, in this process."""

    @dg.job(resource_defs={"otel": OTelResource()} | resources, executor_def=dg.in_process_executor)
    def tracing() -> None:
        done = None
        for op in ops:
            done = op() if done is None else op(start=done)

    return trace_of(instance, tracing.execute_in_process(instance=instance, raise_on_error=False).run_id)


def trace_of(instance: dg.DagsterInstance, run_id: str) -> list[ReadableSpan]:
    history = read_history(instance, run_id)
    assert history is not None
    return spans_of(history)


def own(spans: list[ReadableSpan], scope: str = TRACER) -> list[ReadableSpan]:
    """Return the spans from inside the steps."""
    return [
        span
        for span in spans
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == scope
    ]


def paths(spans: list[ReadableSpan], scope: str = TRACER) -> list[str]:
    """Those spans, each below its step."""
    return sorted(" > ".join(path_of(span, spans)[1:]) for span in own(spans, scope))


after = {"start": dg.In(dg.Nothing)}
