"""Exports spans to MLflow: to a server over OTLP, or to the database of a local tracking store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.traces import otlp_responses
from ledgerline.traces.otlp_responses import ExportFailedError, SpansRejectedError

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACES = "/v1/traces"
EXPERIMENT_HEADER = "x-mlflow-experiment-id"


@dataclass
class MLflowSpanExporter(SpanExporter):
    """Exports spans to an experiment. A span that exists there is replaced.

    Attributes:
        open_experiment: Function that opens a client and returns it with the id of the experiment; called at
            the first export.
    """

    open_experiment: Callable[[], tuple["MlflowClient", str]]
    _opened: tuple["MlflowClient", str] | None = field(default=None, init=False)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans.

        Raises:
            ExportFailedError: MLflow does not accept the spans.
            Exception: An error of MLflow's client.
        """
        if self._opened is None:
            self._opened = self.open_experiment()
        client, experiment_id = self._opened
        from mlflow.store.tracking.rest_store import RestStore
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        store = client._tracking_client.store
        request = encode_spans(spans)
        if isinstance(store, RestStore):
            _post(store.get_host_creds(), request.SerializeToString(), experiment_id)
        else:
            _insert(store, request, experiment_id)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing, because the client has no connection to close."""


def _post(host: Any, request: bytes, experiment_id: str) -> None:
    # This function of MLflow uses the password, the certificates and the retries of its own client.
    from mlflow.utils.rest_utils import http_request

    headers = {"Content-Type": "application/x-protobuf", EXPERIMENT_HEADER: experiment_id}
    response: Any = http_request(
        host,
        TRACES,
        "POST",
        data=request,
        extra_headers=headers,
        raise_on_status=False,  # The response has more details than the error.
        allow_redirects=False,
    )
    otlp_responses.check(response)


def _insert(store: Any, request: Any, experiment_id: str) -> None:
    # MLflow's server inserts the spans that it receives in the same way (mlflow/server/otel_api.py).
    from mlflow.entities.span import Span
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2 as codes

    spans = [
        Span.from_otel_proto(span, resource=by_resource.resource)
        for by_resource in request.resource_spans
        for by_scope in by_resource.scope_spans
        for span in by_scope.spans
    ]
    try:
        store.log_spans(experiment_id, spans)
    except MlflowException as error:
        # The other codes mean that the database is unavailable.
        refusals = codes.BAD_REQUEST, codes.INVALID_PARAMETER_VALUE, codes.INTERNAL_ERROR
        is_refused = error.error_code in map(codes.ErrorCode.Name, refusals)
        raise (SpansRejectedError if is_refused else ExportFailedError)(str(error)) from error
