"""The resource that exports runs: it makes the projections that its fields enable."""

import time
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from ledgerline.cleaning.passwords import without_password
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.ledger.links import Links

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow import MlflowClient
    from opentelemetry.sdk.trace.export import SpanExporter

    from ledgerline.ledger.history import RunHistory
    from ledgerline.ledger.projection import Projection
    from ledgerline.lineage.projection import OpenLineageProjection
    from ledgerline.mlflow_runs.projection import MLflowRunProjection
    from ledgerline.traces.projection import TraceProjection

RETRY_SECONDS = 60


class RunProjections(dg.ConfigurableResource):
    """Exports runs as traces, as MLflow runs and as lineage events."""

    otel: OTelResource
    mlflow: MLflowResource
    dagster_page: str | None = Field(default=None, description="URL of the Dagster UI.")
    mlflow_page: str | None = Field(default=None, description="URL of the MLflow UI.")
    trace_page: str | None = Field(
        default=None,
        description=(
            "URL template of the page of a trace, with {trace_id}, {mlflow_trace_id}, {experiment_id}."
        ),
    )
    openlineage_url: str | None = Field(
        default=None,
        description="URL that OpenLineage events are sent to. Default: they are stored in MLflow only.",
    )
    openlineage_api_key: str | None = Field(default=None, description="Bearer token for that URL.")
    openlineage_namespace: str = Field(
        default="ledgerline", description="OpenLineage namespace of jobs and datasets."
    )

    _experiment_id: str | None = PrivateAttr(default=None)
    _failed_at: float | None = PrivateAttr(default=None)

    def all(self) -> "Sequence[Projection]":
        """Return every enabled projection; MLflow is the first, so that traces can link to its runs."""
        projections = [self.mlflow_runs(), self.traces(), self.lineage()]
        return [projection for projection in projections if projection is not None]

    def traces(self) -> "TraceProjection | None":
        """Return the projection to traces, at the endpoint or else in MLflow; None if tracing is disabled."""
        from ledgerline.traces.mlflow_traces import MLflowSpanExporter
        from ledgerline.traces.projection import TraceProjection
        from ledgerline.traces.telemetry import otlp_exporter

        telemetry = self.otel.telemetry
        if telemetry.disabled:
            return None
        _import_mlflow()

        def open_exporter() -> "SpanExporter":
            return (
                otlp_exporter(telemetry) if telemetry.endpoint else MLflowSpanExporter(self._open_experiment)
            )

        return TraceProjection(
            target=without_password(telemetry.endpoint or self.mlflow.tracking_uri),
            open_exporter=open_exporter,
            telemetry=telemetry,
            links=self._links,
            mlflow_page=self._mlflow_runs_page,
        )

    def mlflow_runs(self) -> "MLflowRunProjection":
        """Return the projection to MLflow runs."""
        from ledgerline.mlflow_runs.projection import MLflowRunProjection

        _import_mlflow()
        return MLflowRunProjection(
            tracking_uri=without_password(self.mlflow.tracking_uri),
            open_experiment=self._open_experiment,
            links=self._links,
            documents=self._lineage_documents,
        )

    def lineage(self) -> "OpenLineageProjection | None":
        """Return the projection to OpenLineage events; None without a URL for them."""
        if self.openlineage_url is None:
            return None
        from ledgerline.lineage.projection import OpenLineageProjection

        return OpenLineageProjection(
            url=self.openlineage_url,
            api_key=self.openlineage_api_key,
            namespace=self.openlineage_namespace,
        )

    def _lineage_documents(self, history: "RunHistory", mlflow_run_id: str) -> "Mapping[str, bytes]":
        from ledgerline.lineage import events as lineage

        return lineage.documents(history, self.openlineage_namespace, mlflow_run_id)

    def _open_experiment(self) -> "tuple[MlflowClient, str]":
        from ledgerline.ledger.projection import TargetUnavailableError

        try:
            client, self._experiment_id = self.mlflow.open_experiment()
        except PermanentFailure as failure:
            raise TargetUnavailableError(failure.problem, failure.remedy) from failure
        return client, self._experiment_id

    def _mlflow_runs_page(self, run_id: str) -> str | None:
        """Return the URL of the MLflow runs of a Dagster run; None if MLflow is unavailable.

        The URL contains the id of the experiment. If MLflow is unavailable, the id is requested again only
        after RETRY_SECONDS.
        """
        from ledgerline.ledger.projection import TargetUnavailableError

        if self._experiment_id is None:
            failed_at = self._failed_at
            if failed_at is not None and time.monotonic() - failed_at < RETRY_SECONDS:
                return None
            try:
                self._open_experiment()
            except TargetUnavailableError:
                self._failed_at = time.monotonic()
                return None
        return self._links.mlflow_runs_page(self._experiment_id, run_id) if self._experiment_id else None

    @property
    def _links(self) -> Links:
        return Links(self.dagster_page, self.mlflow_page, self.trace_page)


def _import_mlflow() -> None:
    """Import MLflow as a whole, before projections import it in several threads.

    Two threads that begin with different modules of MLflow deadlock, and end with a partial import.
    """
    import mlflow  # noqa: F401
