"""A collector: takes traces over OTLP/HTTP, and says when each span arrived. A process of its own.

Who starts it, on which port: processes.py.
"""

import json
import sys
import time
from collections import defaultdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

TRACES = "/v1/traces"
ARRIVALS = "/arrivals/"  # followed by a trace id: when each of its spans first arrived, by span id


class Collector(BaseHTTPRequestHandler):
    """Answers exporters as OTLP's specification asks for, and forgets all but the arrivals."""

    protocol_version = "HTTP/1.1"  # exporters keep their connections
    wbufsize = -1  # an answer in one packet: in two, the second would wait for the first to be acknowledged

    arrivals: ClassVar[defaultdict[str, dict[str, float]]] = defaultdict(dict)

    def do_POST(self) -> None:
        """Take spans."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != TRACES:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"")
            return
        request = ExportTraceServiceRequest.FromString(body)
        now = time.time()
        for by_resource in request.resource_spans:
            for by_scope in by_resource.scope_spans:
                for span in by_scope.spans:
                    self.arrivals[span.trace_id.hex()].setdefault(span.span_id.hex(), now)
        answer = ExportTraceServiceResponse().SerializeToString()
        self._answer(HTTPStatus.OK, "application/x-protobuf", answer)

    def do_GET(self) -> None:
        """Say which spans of a trace have arrived; of no trace, that it works."""
        found = self.arrivals.get(self.path.removeprefix(ARRIVALS), {})
        self._answer(HTTPStatus.OK, "application/json", json.dumps(dict(found)).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of each request."""

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector).serve_forever()
