"""OpenTelemetry's exporter over HTTP, which raises what a receiver answers. Over gRPC: otlp_grpc.py."""

from collections.abc import Sequence
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http._common import _load_session_from_envvar
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import _OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.traces import otlp_answers
from ledgerline.traces.otlp_answers import NotTakenError


class HttpExporter(SpanExporter):
    """Sends spans over HTTP, by the library's settings and its attempts."""

    def __init__(self, endpoint: str | None) -> None:
        self._answer: NotTakenError | None = None
        session = _load_session_from_envvar(_OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER)
        session = session or requests.Session()
        session.hooks["response"].append(self._hear)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, session=session)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans.

        Raises:
            NotTakenError: They were not taken.
        """
        self._answer = None
        result = self._exporter.export(spans)
        if self._answer is not None:
            raise self._answer
        if result is not SpanExportResult.SUCCESS:
            raise NotTakenError("it does not answer; the log says why")
        return result

    def shutdown(self) -> None:
        """End the exporter; it tries again no more."""
        self._exporter.shutdown()

    def _hear(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Keep what the last answer means; what the library would take for a success is raised through it."""
        self._answer = None
        try:
            otlp_answers.check(response)
        except NotTakenError as error:
            self._answer = error
            if response.status_code < requests.codes.bad_request:
                response.close()  # the library never sees it, and so would leave its connection open
                raise
