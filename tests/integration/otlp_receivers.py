"""A collector for tests: a real server that takes OTLP over HTTP, and fails in the ways it is told to.

What it received, as a trace that tests can ask: received_traces.py.
"""

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.received_traces import ReceivedSpan, ReceivedTrace

HOST = "127.0.0.1"
PROTOBUF = "application/x-protobuf"

Batch = Sequence[ReceivedSpan]


@dataclass(frozen=True)
class Refusal:
    """An answer that is not 200; `retry_after` in seconds."""

    status: int
    retry_after: int | None = None


@dataclass
class Receiver:
    """Keeps the latest version of every span by its ids, and how often it came.

    Attributes:
        refusals: What the next requests are answered, one after the other; then they are taken again.
        refuses: Says of a batch what it is answered, if not that it is taken.
        taken: Is called with every batch that was taken, before that is answered.
    """

    refusals: list[Refusal] = field(default_factory=list)
    refuses: Callable[[Batch], Refusal | None] = lambda batch: None
    taken: Callable[[Batch], None] = lambda batch: None
    requests: int = 0
    port: int = 0
    _spans: dict[tuple[str, str], ReceivedSpan] = field(default_factory=dict)
    _times: Counter[tuple[str, str]] = field(default_factory=Counter)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Listen; once more on the same port, if it did before."""
        self._server = ThreadingHTTPServer((HOST, self.port), self._handler())
        self._server.daemon_threads = False  # so that closing waits for the requests under way
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Nobody listens any more; what was received stays."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    def trace(self, run_id: str) -> ReceivedTrace:
        """What came of the trace of a Dagster run."""
        trace_id = UUID(run_id).hex
        with self._lock:
            spans = [span for (trace, _), span in self._spans.items() if trace == trace_id]
            times = {span.span_id: self._times[trace_id, span.span_id] for span in spans}
        return ReceivedTrace(trace_id, spans, times)

    @property
    def trace_ids(self) -> set[str]:
        """All traces of which something came."""
        with self._lock:
            return {trace for trace, _ in self._spans}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                refusal = receiver._take(self.path, body)
                self.send_response(refusal.status if refusal else 200)
                if refusal is not None and refusal.retry_after is not None:
                    self.send_header("Retry-After", str(refusal.retry_after))
                self.send_header("Content-Type", PROTOBUF)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep quiet."""

        return Handler

    def _take(self, path: str, body: bytes) -> Refusal | None:
        if path != "/v1/traces":
            return Refusal(404)
        batch = list(_decoded(body))
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


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def _decoded(body: bytes) -> Iterator[ReceivedSpan]:
    for by_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
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


def _attributes(pairs: "Sequence[object]") -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "", None) for pair in pairs}  # pyright: ignore[reportAttributeAccessIssue]  (the stubs know no common type)
