"""Exports spans over HTTP, and raises an error if the response rejects them. otlp_grpc.py is for gRPC."""

from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http._common import _load_session_from_envvar
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import _OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER

from ledgerline.traces import otlp_responses
from ledgerline.traces.otlp_responses import CheckedExporter, ExportFailedError


class HttpExporter(CheckedExporter, OTLPSpanExporter):
    """Sends spans over HTTP, with the settings and the retries of OpenTelemetry's exporter."""

    def __init__(self, endpoint: str | None) -> None:
        session = _load_session_from_envvar(_OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER)
        session = session or requests.Session()
        session.hooks["response"].append(self._on_response)
        super().__init__(endpoint=endpoint, session=session)

    def _on_response(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Store the error that the last response reports.

        If OpenTelemetry's exporter would count the response as success, the error is raised at once.
        """
        self.error = None
        try:
            otlp_responses.check(response)
        except ExportFailedError as error:
            self.error = error
            if response.status_code < requests.codes.bad_request:
                response.close()  # The exporter never receives the response, so it would not close it.
                raise
