"""Exports spans over HTTP, and raises an error if the response rejects them. otlp_grpc.py is for gRPC."""

from collections.abc import Sequence
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http._common import _load_session_from_envvar
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import _OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.traces import otlp_responses
from ledgerline.traces.otlp_responses import ExportFailedError


class HttpExporter(SpanExporter):
    """Sends spans over HTTP, with the settings and the retries of OpenTelemetry's exporter."""

    def __init__(self, endpoint: str | None) -> None:
        self._error: ExportFailedError | None = None
        session = _load_session_from_envvar(_OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER)
        session = session or requests.Session()
        session.hooks["response"].append(self._on_response)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, session=session)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans.

        Raises:
            ExportFailedError: The receiver does not accept the spans.
        """
        self._error = None
        result = self._exporter.export(spans)
        if self._error is not None:
            raise self._error
        if result is not SpanExportResult.SUCCESS:
            raise ExportFailedError("it does not respond; the log has the reason")
        return result

    def shutdown(self) -> None:
        """Shut down the exporter, which ends its retries."""
        self._exporter.shutdown()

    def _on_response(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Store the error that the last response reports.

        If OpenTelemetry's exporter would count the response as success, the error is raised at once.
        """
        self._error = None
        try:
            otlp_responses.check(response)
        except ExportFailedError as error:
            self._error = error
            if response.status_code < requests.codes.bad_request:
                response.close()  # The exporter never receives the response, so it would not close it.
                raise
