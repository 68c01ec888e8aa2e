#!/usr/bin/env bash
# OpenTelemetry's OTLP exporters for Python say SUCCESS where the receiver took nothing: for a redirect (which is not
# followed), for a page of HTML with status 200, and for a response whose partial_success rejects every span; and an
# integer of 2^63 or more is left out of a span that counts as sent.
#
# Versions: opentelemetry-exporter-otlp-proto-http 1.45.2, opentelemetry-sdk 1.45.2.
#
# Expected: FAILURE for the first two (OTLP's specification: a server answers success with an ExportTraceServiceResponse),
# and at least a warning that names the number for the third ("partial_success.rejected_spans").
# Seen: SUCCESS and no word for all three. opentelemetry/exporter/otlp/common/http.py takes 200 <= status < 400 for success
# and never reads the body; the gRPC exporter (proto/grpc/exporter.py) throws the response of Export away. The integer
# (proto/common/_internal/__init__.py, _encode_attributes) is logged with a traceback and dropped, and is in no
# dropped_attributes_count.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2

"$folder/venv/bin/python" - <<'END'
import logging
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

for name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[name]

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

rejected = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message="quota exceeded")
)
ANSWERS = {
    "/redirect": (302, {"Location": "/login"}, b""),
    "/page": (200, {"Content-Type": "text/html"}, b"<!doctype html><title>Sign in</title>"),
    "/partial": (200, {"Content-Type": "application/x-protobuf"}, rejected.SerializeToString()),
    "/good": (200, {"Content-Type": "application/x-protobuf"}, b""),
}
requests = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        requests.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        status, headers, body = ANSWERS[self.path]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


log = Kept()
logging.getLogger("opentelemetry").addHandler(log)
logging.getLogger("opentelemetry").propagate = False
server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
span = ReadableSpan(
    "work",
    SpanContext(1, 2, is_remote=False),
    attributes={"rows": 3, "count": 2**63},
    start_time=1,
    end_time=2,
)
small = ReadableSpan("work", SpanContext(1, 2, is_remote=False), start_time=1, end_time=2)

as_described = True
for path in ("/redirect", "/page", "/partial"):
    log.records.clear()
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{server.server_port}{path}")
    result = exporter.export([small])
    print(f"{path:10} {ANSWERS[path][0]}: {result.name}, {len(log.records)} log records")
    as_described &= result.name == "SUCCESS" and not log.records

result = OTLPSpanExporter(f"http://127.0.0.1:{server.server_port}/good").export([span])
sent = ExportTraceServiceRequest.FromString(requests[-1][1]).resource_spans[0].scope_spans[0].spans[0]
keys = [each.key for each in sent.attributes]
print(f"2^63: {result.name}; sent attributes {keys}, dropped_attributes_count {sent.dropped_attributes_count}")
as_described &= result.name == "SUCCESS" and keys == ["rows"] and sent.dropped_attributes_count == 0
server.shutdown()
sys.exit(0 if as_described else 1)
END
