"""A collector for tests: a real server that receives OTLP over HTTP, and fails as a test requires.

received_traces.py describes a received trace.

Example:
    >>> from ledgerline.testing.loopback_servers import listening
    >>> with listening(Receiver()) as receiver:  # processes export to receiver.url
    ...     receiver.trace_ids
    set()
"""

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ledgerline.testing.loopback_servers import LoopbackServer, Refusal, Request
from ledgerline.testing.received_traces import ReceivedSpan, ReceivedTrace

PROTOBUF = "application/x-protobuf"

Batch = Sequence[ReceivedSpan]


@dataclass
class Receiver(LoopbackServer):
    """Stores the latest version of every span by its ids, and counts how often it was received.

    Its `url` is a value for OTEL_EXPORTER_OTLP_ENDPOINT.

    Attributes:
        refusals: Responses to the next batches, one after the other; later batches are accepted.
        refuses: Function that returns the response to a batch; None accepts the batch.
        taken: Function that is called with every accepted batch, before the response is sent.
        requests: Number of batches that were received, including refused ones.
    """

    refusals: list[Refusal] = field(default_factory=list)
    refuses: Callable[[Batch], Refusal | None] = lambda batch: None
    taken: Callable[[Batch], None] = lambda batch: None
    requests: int = 0
    _spans: dict[tuple[str, str], ReceivedSpan] = field(default_factory=dict)
    _times: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def trace_ids(self) -> set[str]:
        """The ids of all traces with a received span."""
        with self._lock:
            return {trace for trace, _ in self._spans}

    def trace(self, run_id: str) -> ReceivedTrace:
        """Return the received trace of a Dagster run."""
        trace_id = UUID(run_id).hex
        with self._lock:
            spans = [span for (trace, _), span in self._spans.items() if trace == trace_id]
            times = {span.span_id: self._times[trace_id, span.span_id] for span in spans}
        return ReceivedTrace(trace_id, spans, times)

    def respond(self, request: Request, body: bytes) -> None:
        """Accept a batch, or refuse it."""
        if request.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        refusal = self._take(request.path, body)
        if refusal is not None:
            request.refuse(refusal)
        else:
            response = ExportTraceServiceResponse().SerializeToString()
            request.answer(200, {"Content-Type": PROTOBUF}, response)

    def _take(self, path: str, body: bytes) -> Refusal | None:
        if path != "/v1/traces":
            return Refusal(404)
        batch = list(decoded(ExportTraceServiceRequest.FromString(body)))
        with self._lock:
            self.requests += 1
            refusal = self.refusals.pop(0) if self.refusals else self.refuses(batch)
            if refusal is not None:
                return refusal
            for span in batch:
                key = span.trace_id, span.span_id
                self._spans[key] = span
                self._times[key] += 1
        self.taken(batch)
        return None


def decoded(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    """Return the spans of a request."""
    for by_resource in request.resource_spans:
        for by_scope in by_resource.scope_spans:
            for span in by_scope.spans:
                yield _span(span, by_scope.scope.name)


def _span(span: Span, scope: str) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        scope=scope,
        started=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        events={event.name: _attributes(event.attributes) for event in span.events},
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind is not None else None
