"""What a run's trace must have, by Dagster's event log alone, and whether a backend has just that."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace
from ledgerline.traces.projection import TraceProjection

EXPERIMENT_ID = "1"


def expected_spans(
    instance: dg.DagsterInstance, run_id: str, environment: Mapping[str, str]
) -> list[ReceivedSpan]:
    """All spans of a run, made from its whole log at once.

    Args:
        instance: Where the run is.
        run_id: Of the run.
        environment: Of the observer, which knows where pages are.
    """
    (traces,) = [
        projection
        for projection in projections_of(Settings.from_environment(environment))
        if isinstance(projection, TraceProjection)
    ]
    kept = InMemorySpanExporter()
    history = read_history(instance, run_id)
    assert history is not None
    replace(
        traces,
        open_exporter=lambda: kept,
        # MLflow may be away: it is not asked for the experiment's id, which compose.yaml names.
        mlflow_page=lambda run_id: traces.links.mlflow_runs_page(EXPERIMENT_ID, run_id),
    ).export(instance, history, None)
    return [_received(span) for span in kept.get_finished_spans()]


def differences(trace: ReceivedTrace, expected: list[ReceivedSpan]) -> list[str]:
    """What a backend has otherwise, or has not, or has twice; nothing where all is as it must be."""
    found = trace.by_id
    wanted = {span.span_id: span for span in expected}
    said = [f"{wanted[span_id].name} is missing" for span_id in wanted.keys() - found.keys()]
    said += [f"{found[span_id].name} is too much" for span_id in found.keys() - wanted.keys()]
    said += [f"{span.name} is there {trace.times[span.span_id]} times" for span in trace.repeated]
    for span_id in wanted.keys() & found.keys():
        one, other = _comparable(wanted[span_id]), _comparable(found[span_id])
        said += [
            f"{wanted[span_id].name}: {part} is {other[part]!r}, not {one[part]!r}"
            for part in one
            if one[part] != other[part]
        ]
    return sorted(said)


def _comparable(span: ReceivedSpan) -> dict[str, Any]:
    return {
        "trace": span.trace_id,
        "parent": span.parent_id,
        "name": span.name,
        "times": (span.started, span.ended),
        "failed": span.failed,
        "attributes": {name: _plain(value) for name, value in span.attributes.items()},
        "events": {
            name: {key: _plain(value) for key, value in attributes.items()}
            for name, attributes in span.events.items()
        },
        "links": sorted(span.links),
    }


def _plain(value: object) -> object:
    """A value as all of them have it: Jaeger's storage makes text of lists."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return list(value) if isinstance(value, tuple) else value


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
