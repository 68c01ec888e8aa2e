"""Exports spans over gRPC, and raises an error if the response rejects them. otlp_http.py is for HTTP."""

import re
from typing import Any

import grpc
from grpc import StatusCode
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from ledgerline.traces.otlp_responses import (
    REASON_LENGTH,
    CheckedExporter,
    ExportFailedError,
    SpansRejectedError,
    WrongTargetError,
    check_partial_success,
)

OUTAGES = {
    StatusCode.CANCELLED,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.ABORTED,
    StatusCode.OUT_OF_RANGE,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
}
WRONG_TARGET = {
    StatusCode.UNAUTHENTICATED,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNIMPLEMENTED,
    StatusCode.NOT_FOUND,
}
# RESOURCE_EXHAUSTED with such a message is permanent. Without it, a quota is exhausted, which is temporary.
TOO_LARGE = re.compile(r"larger than|too (large|big|long)|exceed\w* (the )?(max|size|limit)", re.IGNORECASE)


class GrpcExporter(CheckedExporter, OTLPSpanExporter):
    """Sends spans over gRPC, with the settings and the retries of OpenTelemetry's exporter."""

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()
        self._client: Any = _CheckedClient(self._client, self)


class _CheckedClient:
    """A client that checks the responses, which OpenTelemetry's exporter ignores."""

    def __init__(self, client: Any, exporter: GrpcExporter) -> None:
        self._client = client
        self._exporter = exporter

    def Export(self, **arguments: Any) -> Any:  # noqa: N802 (the name in gRPC)
        """Send a request."""
        try:
            response = self._client.Export(**arguments)
        except grpc.RpcError as error:
            failure = _error_of(error)
            # A timeout does not replace the response to an earlier attempt, which explains more.
            if self._exporter.error is None or error.code() is not StatusCode.DEADLINE_EXCEEDED:
                self._exporter.error = failure
            if isinstance(failure, SpansRejectedError):
                raise failure from error  # The exporter would retry a request that is too large.
            raise
        self._exporter.error = None
        check_partial_success(response.partial_success.rejected_spans, response.partial_success.error_message)
        return response


def _error_of(error: grpc.RpcError) -> ExportFailedError:
    code: StatusCode = error.code()
    details = str(error.details() or "")[:REASON_LENGTH]
    message = f"it responds with status {code.name}: {details}"
    if code in WRONG_TARGET:
        return WrongTargetError(message)
    if code in OUTAGES and not (code is StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE.search(details)):
        return ExportFailedError(message)
    return SpansRejectedError(message)
