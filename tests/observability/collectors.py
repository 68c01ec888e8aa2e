"""Real servers that accept traces, over HTTP and over gRPC, and keep the requests as received."""

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """A request that was received: header names in lower case; the path of HTTP, or the method of gRPC."""

    path: str
    headers: dict[str, str]
    message: ExportTraceServiceRequest

    @property
    def spans(self) -> Sequence[Span]:
        return [
            span
            for by_resource in self.message.resource_spans
            for by_scope in by_resource.scope_spans
            for span in by_scope.spans
        ]

    @property
    def resource(self) -> dict[str, str]:
        """The attributes of what made the spans."""
        (by_resource,) = self.message.resource_spans
        return {each.key: each.value.string_value for each in by_resource.resource.attributes}


@dataclass(frozen=True)
class Answer:
    """An answer that is not the usual one: over HTTP `status`, over gRPC `code` with details, trailers."""

    status: int = 200
    code: grpc.StatusCode = grpc.StatusCode.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: Mapping[str, bytes] = field(default_factory=dict)


def partial_success(rejected: int, message: str) -> ExportTraceServiceResponse:
    """A response of OTLP that rejects some spans."""
    return ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    )


@dataclass
class Collector:
    """A server.

    Attributes:
        url: Its address, as the value of OTEL_EXPORTER_OTLP_ENDPOINT.
        refuses: What it answers to the next requests, as the status of HTTP; then it takes them.
        answers: Says of a request what it is answered, if that is not the usual; such a request is not kept.
        requests: What it took.
        refused: What it did not take.
    """

    url: str = ""
    answers: Callable[[Request], Answer | None] = lambda request: None
    refused: list[Request] = field(default_factory=list)
    refuses: list[int] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    @property
    def request(self) -> Request:
        """The only request."""
        (request,) = self.requests
        return request

    @property
    def spans(self) -> list[Span]:
        """Return all received requests, in order."""
        return [span for request in self.requests for span in request.spans]


@contextmanager
def http_collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = collector.refuses.pop(0) if collector.refuses else 200
            answer = Answer(status) if status != 200 else None
            if answer is None:
                content = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, ExportTraceServiceRequest.FromString(content))
                answer = collector.answers(request)
                (collector.requests if answer is None else collector.refused).append(request)
            taken = Answer(headers={"Content-Type": "application/x-protobuf"})
            answer = answer or taken
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
            """Keep quiet."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        collector.url = f"http://{HOST}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    collector = Collector()

    class Servicer(TraceServiceServicer):
        def Export(  # noqa: N802  (gRPC's name)
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            if collector.refuses:
                collector.refuses.pop(0)
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not now")
            headers = {name: str(value) for name, value in context.invocation_metadata()}
            received = Request("Export", headers, request)
            answer = collector.answers(received)
            (collector.requests if answer is None else collector.refused).append(received)
            if answer is None:
                return ExportTraceServiceResponse()
            context.set_trailing_metadata(tuple(answer.trailers.items()))
            if answer.code is not grpc.StatusCode.OK:
                context.abort(answer.code, answer.body.decode())
            return ExportTraceServiceResponse.FromString(answer.body)

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_TraceServiceServicer_to_server(Servicer(), server)
        collector.url = f"http://{HOST}:{server.add_insecure_port(f'{HOST}:0')}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(None).wait()
