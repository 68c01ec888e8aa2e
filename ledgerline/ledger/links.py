"""Makes the URLs of a run's pages in Dagster, in MLflow and in the trace backend."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from ledgerline.cleaning.passwords import without_password
from ledgerline.ledger import ids
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.settings.shared import PageVariables

# Templates of the page of a trace, with the fields {trace_id} (32 hexadecimal digits), {mlflow_trace_id} and
# {experiment_id} (of MLflow).
JAEGER_TRACE = "/trace/{trace_id}"
MLFLOW_TRACE = "/#/experiments/{experiment_id}/traces/{mlflow_trace_id}"


@dataclass(frozen=True)
class Links:
    """The URLs of the user interfaces.

    Attributes:
        dagster: URL of the Dagster UI, like `http://127.0.0.1:3000`; None if unknown.
        mlflow: URL of the MLflow UI; None for a tracking store without a server.
        trace: Template of the page of a trace; None without a trace backend that has pages.
    """

    dagster: str | None = None
    mlflow: str | None = None
    trace: str | None = None

    @classmethod
    def of(cls, settings: PageVariables) -> Self:
        """Return the URLs that the settings contain, without passwords."""
        mlflow = without_password(settings.mlflow_url).rstrip("/")
        trace = settings.trace_url
        if trace is None and settings.jaeger_url is not None:
            trace = settings.jaeger_url.rstrip("/") + JAEGER_TRACE
        dagster = settings.dagster_url and settings.dagster_url.rstrip("/")
        return cls(dagster, mlflow, trace or mlflow + MLFLOW_TRACE)

    def run_page(self, run_id: str) -> str | None:
        """Return the URL of a run in Dagster."""
        return f"{self.dagster}/runs/{run_id}" if self.dagster else None

    def trace_page(self, run_id: str, experiment_id: str) -> str | None:
        """Return the URL of the trace of a run."""
        return self.page_of_trace(f"{ids.trace_id(run_id):032x}", experiment_id)

    def page_of_trace(self, trace_id: str, experiment_id: str) -> str | None:
        """Return the URL of a trace, whose id has 32 hexadecimal digits."""
        if self.trace is None:
            return None
        return self.trace.format(
            trace_id=trace_id, mlflow_trace_id=f"tr-{trace_id}", experiment_id=experiment_id
        )

    def mlflow_run_page(self, experiment_id: str, mlflow_run_id: str) -> str | None:
        """Return the URL of a run in MLflow."""
        return f"{self.mlflow}/#/experiments/{experiment_id}/runs/{mlflow_run_id}" if self.mlflow else None

    def mlflow_runs_page(self, experiment_id: str, run_id: str) -> str | None:
        """Return the URL of a search for the MLflow runs of a Dagster run, valid before these runs exist."""
        query = quote(f"tags.`{RUN_ID_TAG}` = '{run_id}'")
        return (
            f"{self.mlflow}/#/experiments/{experiment_id}/runs?searchFilter={query}" if self.mlflow else None
        )
