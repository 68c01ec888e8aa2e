"""Reads traces from Jaeger and MLflow, and computes from Dagster's event log the spans that they must have.

Jaeger's query API: https://www.jaegertracing.io/docs/2.13/architecture/apis/.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import dagster as dg
import requests
from mlflow import MlflowClient
from mlflow.entities import Span, SpanStatusCode
from mlflow.exceptions import MlflowException
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ledgerline.dagster.resources import projections_of
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.testing.otlp_receivers import decoded
from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace
from ledgerline.traces.projection import TraceProjection

FAILED = 2  # OTLP's STATUS_CODE_ERROR
ADDED = "mlflow.traceRequestId"  # an attribute that MLflow adds to each span
EXPERIMENT_ID = "1"


class Backend:
    """A running server with traces."""

    def trace(self, run_id: str) -> ReceivedTrace:
        """Return the trace of a Dagster run, which is empty if the server does not have it."""
        return self.trace_of(UUID(run_id).hex)

    def trace_of(self, trace_id: str) -> ReceivedTrace:
        """Return a trace. Its field `times` counts how often each span is stored."""
        spans = list(self.spans(trace_id))
        times = Counter(span.span_id for span in spans)
        return ReceivedTrace(trace_id, list({span.span_id: span for span in spans}.values()), times)

    def spans(self, trace_id: str) -> Iterator[ReceivedSpan]:
        """Return the spans of a trace as they are stored."""
        raise NotImplementedError


@dataclass(frozen=True)
class Jaeger(Backend):
    """A running Jaeger, with the URL of its query API."""

    url: str

    def spans(self, trace_id: str) -> Iterator[ReceivedSpan]:
        """Return the spans of a trace. A long response consists of several JSON documents."""
        response = requests.get(f"{self.url}/api/v3/traces/{trace_id}", timeout=30)
        text = (
            response.content.decode() if response.ok else ""
        )  # With 404, Jaeger does not have the trace yet.
        decoder = json.JSONDecoder()
        while text:
            chunk, end = decoder.raw_decode(text)
            for by_resource in chunk["result"].get("resourceSpans", []):
                for by_scope in by_resource["scopeSpans"]:
                    for span in by_scope["spans"]:
                        yield _of_jaeger(span, by_scope.get("scope", {}).get("name", ""))
            text = text[end:].lstrip()


@dataclass(frozen=True)
class MLflowTraces(Backend):
    """An MLflow server with traces."""

    client: MlflowClient

    def spans(self, trace_id: str) -> Iterator[ReceivedSpan]:
        """Return the spans of a trace."""
        try:
            stored = self.client.get_trace(f"tr-{trace_id}").data.spans
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            stored = []
        for span in stored:
            yield _of_mlflow(span, trace_id)


def expected_spans(
    instance: dg.DagsterInstance, run_id: str, environment: Mapping[str, str]
) -> list[ReceivedSpan]:
    """Return all spans of a run, which are computed from its whole event log at once.

    Args:
        instance: Instance that has the run.
        run_id: Id of the run.
        environment: Environment of the observer, which contains the URLs of pages.
    """
    projections = projections_of(Settings.from_environment(environment))
    (traces,) = (each for each in projections if isinstance(each, TraceProjection))
    exporter = InMemorySpanExporter()
    history = read_history(instance, run_id)
    assert history is not None
    replace(
        traces,
        open_exporter=lambda: exporter,
        # MLflow may be down; compose.yaml contains the experiment's id.
        mlflow_page=lambda run_id: traces.links.mlflow_runs_page(EXPERIMENT_ID, run_id),
    ).export(instance, history, None)
    return list(decoded(encode_spans(exporter.get_finished_spans())))


def _of_jaeger(span: Mapping[str, Any], scope: str) -> ReceivedSpan:
    return ReceivedSpan(
        name=span["name"],
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId") or None,
        scope=scope,
        started=int(span["startTimeUnixNano"]),
        ended=int(span["endTimeUnixNano"]),
        failed=span.get("status", {}).get("code") == FAILED,
        attributes=_attributes(span.get("attributes", [])),
        events={event["name"]: _attributes(event.get("attributes", [])) for event in span.get("events", [])},
        links=[(link["traceId"], link["spanId"]) for link in span.get("links", [])],
    )


def _attributes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    values = {pair["key"]: pair["value"] for pair in pairs}
    return {
        key: int(value["intValue"]) if "intValue" in value else next(iter(value.values()))
        for key, value in values.items()
    }


def _of_mlflow(span: Span, trace_id: str) -> ReceivedSpan:
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
