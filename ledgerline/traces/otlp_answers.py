"""Reads the answers of OTLP receivers: spans taken, spans refused, or a target that takes no spans at all.

OpenTelemetry's exporters count a redirect, a login page and a partial success as success. What is done about
an answer: deliveries.py.
"""

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import requests

REASON_LENGTH = 300  # characters of an answer's own text in a message
PROTOBUF = "application/x-protobuf"
HTML = re.compile(r"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)

# Answers that pass by themselves, as OTLP's specification has them, and 408.
OUTAGES = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# Answers about the address or the login, whatever was sent.
WRONG_TARGET = frozenset(
    {
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
)


class NotTakenError(Exception):
    """Spans that were not taken, for a reason that may pass: an outage."""


class SpansRefusedError(NotTakenError):
    """Spans that a target does not take as they are, however often they are sent."""


class WrongTargetError(NotTakenError):
    """A target that takes no spans, whichever they are, until a setting or the target is changed."""


def check(response: "requests.Response") -> None:
    """Return if the spans were taken.

    Raises:
        NotTakenError: They were not; its class says why.
    """
    status = response.status_code
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        location = _without_query(response.headers.get("location", ""))
        raise WrongTargetError(
            f"it redirects ({status}) to {location or 'nowhere'}; set the endpoint to what takes the spans"
        )
    if status >= HTTPStatus.BAD_REQUEST or status < HTTPStatus.OK:
        raise _error_class(status)(f"it answers {status} {response.reason}{_reason(response)}")
    rejected, message = _partial_success(response)
    check_partial_success(rejected, message)


def check_partial_success(rejected: int, message: str) -> None:
    """Return if an answer, over HTTP or gRPC, rejects no spans.

    Raises:
        SpansRefusedError: It rejects some.
    """
    if rejected > 0:
        said = f": {message[:REASON_LENGTH]}" if message else ""
        raise SpansRefusedError(f"it rejects {rejected} spans (partial success){said}")


def _error_class(status: int) -> type[NotTakenError]:
    if status in OUTAGES:
        return NotTakenError
    return WrongTargetError if status in WRONG_TARGET else SpansRefusedError


def _partial_success(response: "requests.Response") -> tuple[int, str]:
    """Return how many spans a response with status 2xx rejects, and its message."""
    body = response.content
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        return 0, ""
    if kind in ("text/html", "application/xhtml+xml") or HTML.match(body[:200].decode(errors="replace")):
        raise WrongTargetError(
            f"it answers {response.status_code} with a page of HTML, as a login does; "
            "set the endpoint to what takes the spans"
        )
    if kind.endswith("json"):
        return _json_partial_success(response)
    if kind != PROTOBUF:
        return 0, ""  # a short text such as "OK" is not OTLP, but not a refusal either
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        said = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError as error:
        raise WrongTargetError(
            f"it answers {response.status_code} with what is no response of OTLP: {error}"
        ) from error
    return said.rejected_spans, said.error_message


def _json_partial_success(response: "requests.Response") -> tuple[int, str]:
    try:
        said: Any = response.json()
    except ValueError as error:
        raise WrongTargetError(f"it answers {response.status_code} with broken JSON") from error
    if not isinstance(said, dict):
        return 0, ""
    if errors := said.get("error") or said.get("errors"):
        raise SpansRefusedError(
            f"it answers {response.status_code} with an error: {json.dumps(errors)[:REASON_LENGTH]}"
        )
    partial = said.get("partialSuccess") or said.get("partial_success") or {}
    if not isinstance(partial, dict):
        return 0, ""
    rejected = partial.get("rejectedSpans") or partial.get("rejected_spans") or 0  # in JSON, a text
    message = partial.get("errorMessage") or partial.get("error_message") or ""
    return int(rejected) if str(rejected).isdecimal() else 0, str(message)


def _reason(response: "requests.Response") -> str:
    """Return the message that a response carries beside its status."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
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


def _without_query(location: str) -> str:
    """Return an address without what may be a token."""
    parts = urlsplit(location)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
