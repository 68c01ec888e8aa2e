"""A collector in a separate process, which receives traces over OTLP/HTTP and reports when each span arrived.

python -m benchmarks.observer.collector PORT
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

ARRIVALS = "/arrivals/"  # followed by a trace id; responds with times of arrival by span id


class Collector(BaseHTTPRequestHandler):
    """Responds to exporters according to the OTLP specification, and stores only the times of arrival."""

    protocol_version = "HTTP/1.1"  # Exporters keep their connections open.
    wbufsize = -1  # One packet per response: a second one would wait until the first is acknowledged.
    arrivals: ClassVar[defaultdict[str, dict[str, float]]] = defaultdict(dict)

    def do_POST(self) -> None:
        """Receive spans."""
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        now = time.time()
        for by_resource in request.resource_spans:
            for by_scope in by_resource.scope_spans:
                for span in by_scope.spans:
                    self.arrivals[span.trace_id.hex()].setdefault(span.span_id.hex(), now)
        self._respond("application/x-protobuf", ExportTraceServiceResponse().SerializeToString())

    def do_GET(self) -> None:
        """Report the times of arrival of a trace's spans."""
        spans = dict(self.arrivals.get(self.path.removeprefix(ARRIVALS), {}))
        self._respond("application/json", json.dumps(spans).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
        """Do nothing, so that requests are not logged."""

    def _respond(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector).serve_forever()
