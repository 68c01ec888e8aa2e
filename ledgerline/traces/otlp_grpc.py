"""OpenTelemetry's exporter over gRPC, which raises what a receiver answers. Over HTTP: otlp_http.py."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc import StatusCode
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from ledgerline.traces.otlp_answers import (
    REASON_LENGTH,
    NotTakenError,
    SpansRefusedError,
    WrongTargetError,
    check_partial_success,
)

OUTAGES = frozenset(
    {
        StatusCode.CANCELLED,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        StatusCode.OUT_OF_RANGE,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
WRONG_TARGET = frozenset(
    {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.UNIMPLEMENTED, StatusCode.NOT_FOUND}
)
# RESOURCE_EXHAUSTED is a quota, too, and that passes.
TOO_LARGE = re.compile(r"larger than|too (large|big|long)|exceed\w* (the )?(max|size|limit)", re.IGNORECASE)


class GrpcExporter(OTLPSpanExporter):
    """Sends spans over gRPC, by the library's settings and its attempts."""

    _answer: NotTakenError | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans.

        Raises:
            NotTakenError: They were not taken.
        """
        self._answer = None
        result = super().export(spans)
        if self._answer is not None:
            raise self._answer
        if result is not SpanExportResult.SUCCESS:
            raise NotTakenError("it does not answer; the log says why")
        return result

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()
        self._client: Any = _Heard(self._client, self._hear, self._hear_nothing)

    def _hear(self, answer: NotTakenError | None) -> None:
        self._answer = answer

    def _hear_nothing(self, answer: NotTakenError) -> None:
        """Keep that the time is over, unless an earlier attempt was answered: that is the reason."""
        self._answer = self._answer or answer


class _Heard:
    """A client whose answers are looked at; the library throws them away."""

    def __init__(
        self,
        client: Any,
        hear: Callable[[NotTakenError | None], None],
        hear_nothing: Callable[[NotTakenError], None],
    ) -> None:
        self._client = client
        self._hear = hear
        self._hear_nothing = hear_nothing

    def Export(self, **arguments: Any) -> Any:  # noqa: N802 (as gRPC has it)
        """Send a request."""
        try:
            response = self._client.Export(**arguments)
        except grpc.RpcError as error:
            answer = _error_of(error)
            if error.code() is StatusCode.DEADLINE_EXCEEDED:
                self._hear_nothing(answer)
            else:
                self._hear(answer)
            if isinstance(answer, SpansRefusedError):
                raise answer from error  # the library would try again what is too large
            raise
        self._hear(None)
        check_partial_success(response.partial_success.rejected_spans, response.partial_success.error_message)
        return response


def _error_of(error: grpc.RpcError) -> NotTakenError:
    code: StatusCode = error.code()
    details = str(error.details() or "")[:REASON_LENGTH]
    message = f"it answers {code.name}: {details}"
    if code in WRONG_TARGET:
        return WrongTargetError(message)
    if code in OUTAGES and not (code is StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE.search(details)):
        return NotTakenError(message)
    return SpansRefusedError(message)
