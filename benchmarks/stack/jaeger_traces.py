"""Reads traces from Jaeger's query API: https://www.jaegertracing.io/docs/2.13/architecture/apis/."""

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace

FAILED = 2  # OTLP's STATUS_CODE_ERROR


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger, with the URL of its query API."""

    url: str

    def trace(self, run_id: str) -> ReceivedTrace:
        """Return the trace of a Dagster run, which is empty if Jaeger does not have it."""
        return self.trace_of(UUID(run_id).hex)

    def trace_of(self, trace_id: str) -> ReceivedTrace:
        """Return a trace. Its field `times` counts how often each span is stored."""
        spans = list(self._spans(trace_id))
        times = Counter(span.span_id for span in spans)
        return ReceivedTrace(trace_id, list({span.span_id: span for span in spans}.values()), times)

    def page(self, trace_id: str) -> str:
        """Return the URL of a trace's page."""
        return f"{self.url}/trace/{trace_id}"

    def _spans(self, trace_id: str) -> Iterator[ReceivedSpan]:
        for chunk in self._chunks(f"{self.url}/api/v3/traces/{trace_id}"):
            for by_resource in chunk["result"].get("resourceSpans", []):
                for by_scope in by_resource["scopeSpans"]:
                    for span in by_scope["spans"]:
                        yield _span(span, by_scope.get("scope", {}).get("name", ""))

    def _chunks(self, address: str) -> Iterator[dict[str, Any]]:
        """Return the JSON documents of a response. A long response consists of several documents."""
        text = ""
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(address, timeout=30) as response:
            text = response.read().decode()  # With 404, Jaeger does not have the trace yet.
        decoder = json.JSONDecoder()
        while text:
            chunk, end = decoder.raw_decode(text)
            yield chunk
            text = text[end:].lstrip()


def _span(span: Mapping[str, Any], scope: str) -> ReceivedSpan:
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
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: Mapping[str, Any]) -> object:
    ((kind, content),) = value.items()
    return int(content) if kind == "intValue" else content
