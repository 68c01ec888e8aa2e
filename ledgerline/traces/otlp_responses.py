"""Reads the responses of OTLP receivers, and raises an error if spans were not accepted.

OpenTelemetry's exporters count a redirect, a login page and a partial success as success. deliveries.py
reacts to the errors.
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.cleaning.passwords import address_alone
from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    import requests

REASON_LENGTH = 300  # maximum number of characters of a response that a message quotes
PROTOBUF = "application/x-protobuf"
HTML = re.compile(r"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)

# The statuses that may be retried according to the OTLP specification, and 408.
OUTAGES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# The statuses that concern the address or the login, and not the content of the request.
WRONG_TARGET = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.PAYMENT_REQUIRED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    HTTPStatus.GONE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.UPGRADE_REQUIRED,
}


class ExportFailedError(LedgerlineError):
    """Spans were not accepted. An error of this class, and not of a subclass, is a temporary outage."""


class SpansRejectedError(ExportFailedError):
    """The target rejects these spans permanently."""


class WrongTargetError(ExportFailedError):
    """The target accepts no spans at all until a setting or the target is changed."""


class CheckedExporter(SpanExporter):
    """Raises an error if the responses that another exporter receives do not accept the spans."""

    error: ExportFailedError | None = None  # None if the last response accepts the spans

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans.

        Raises:
            ExportFailedError: The receiver does not accept the spans.
        """
        self.error = None
        result = super().export(spans)
        if self.error is not None:
            raise self.error
        if result is not SpanExportResult.SUCCESS:
            raise ExportFailedError("it does not respond; the log has the reason")
        return result


def check(response: "requests.Response") -> None:
    """Check that a response accepts the spans.

    Raises:
        ExportFailedError: The spans were not accepted; the subclass depends on the kind of failure.
    """
    status = response.status_code
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        location = address_alone(response.headers.get("location", ""))
        raise WrongTargetError(
            f"it redirects (status {status}) to {location or 'nowhere'}.",
            "Set the endpoint to a receiver of spans.",
        )
    if status >= HTTPStatus.BAD_REQUEST or status < HTTPStatus.OK:
        raise _error_class(status)(f"it responds with status {status} {response.reason}{_reason(response)}")
    check_partial_success(*_partial_success(response))


def check_partial_success(rejected: int, message: str) -> None:
    """Check that a response over HTTP or gRPC rejects no spans.

    Raises:
        SpansRejectedError: The response rejects some of them.
    """
    if rejected > 0:
        reason = f": {message[:REASON_LENGTH]}" if message else ""
        raise SpansRejectedError(f"it rejects {rejected} spans (partial success){reason}")


def _error_class(status: int) -> type[ExportFailedError]:
    if status in OUTAGES:
        return ExportFailedError
    return WrongTargetError if status in WRONG_TARGET else SpansRejectedError


def _partial_success(response: "requests.Response") -> tuple[int, str]:
    """Return the number of spans that a response with status 2xx rejects, and its message."""
    body, kind = response.content, _kind(response)
    if not body:
        return 0, ""
    if kind in ("text/html", "application/xhtml+xml") or HTML.match(body[:200].decode(errors="replace")):
        raise WrongTargetError(
            f"it responds with status {response.status_code} and an HTML page, probably a login page.",
            "Set the endpoint to a receiver of spans.",
        )
    if kind.endswith("json"):
        return _json_partial_success(response)
    if kind != PROTOBUF:
        return 0, ""  # A short text such as "OK" is not OTLP, and not a rejection.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError as error:
        raise WrongTargetError(
            f"it responds with status {response.status_code} and a body that is not OTLP: {error}"
        ) from error
    return partial.rejected_spans, partial.error_message


def _json_partial_success(response: "requests.Response") -> tuple[int, str]:
    try:
        body: Any = response.json()
    except ValueError as error:
        raise WrongTargetError(f"it responds with status {response.status_code} and invalid JSON") from error
    if not isinstance(body, dict):
        return 0, ""
    if errors := body.get("error") or body.get("errors"):
        raise SpansRejectedError(
            f"it responds with status {response.status_code} and an error: "
            f"{json.dumps(errors)[:REASON_LENGTH]}"
        )
    partial = body.get("partialSuccess") or body.get("partial_success") or {}
    if not isinstance(partial, dict):
        return 0, ""
    rejected = partial.get("rejectedSpans") or partial.get("rejected_spans") or 0  # JSON with a text
    message = partial.get("errorMessage") or partial.get("error_message") or ""
    return int(rejected) if str(rejected).isdecimal() else 0, str(message)


def _reason(response: "requests.Response") -> str:
    """Return the message in the body of a response."""
    kind = _kind(response)
    if kind == PROTOBUF:
        from google.protobuf.message import DecodeError
        from google.rpc.status_pb2 import Status

        try:
            text = Status.FromString(response.content).message
        except DecodeError:
            return ""
    elif kind == "text/html":
        return ""
    else:
        text = response.content[: 4 * REASON_LENGTH].decode(errors="replace")
    text = " ".join(text.split())[:REASON_LENGTH]
    return f": {text}" if text else ""


def _kind(response: "requests.Response") -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()
