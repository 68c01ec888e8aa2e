"""Where people look at a run: addresses of its pages in Dagster, in MLflow and where traces are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from ledgerline.ledger import ids
from ledgerline.ledger.ids import RUN_ID_TAG

# The shapes of a trace's page. A template may have {trace_id} (32 hex digits), {mlflow_trace_id} (as MLflow
# names it) and {experiment_id} (MLflow's).
JAEGER_TRACE = "/trace/{trace_id}"
MLFLOW_TRACE = "/#/experiments/{experiment_id}/traces/{mlflow_trace_id}"


@dataclass(frozen=True)
class Links:
    """Addresses, as far as they are known.

    Attributes:
        dagster: Where the Dagster UI is, like `http://127.0.0.1:3000`.
        mlflow: Where the MLflow UI is; None for a store that no server shows.
        trace: Template of the page of a trace; None if nothing shows traces.
    """

    dagster: str | None = None
    mlflow: str | None = None
    trace: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], dagster_port: int, mlflow: str) -> Self:
        """Read the variables.

        Args:
            environment: The variables.
            dagster_port: Without an address of its own, Dagster is looked at where `ledgerline dev` puts it.
            mlflow: Where the MLflow UI is, without a password.

        Raises:
            ValueError: LEDGERLINE_TRACE_URL is no template.
        """
        dagster = environment.get("LEDGERLINE_DAGSTER_URL") or f"http://127.0.0.1:{dagster_port}"
        mlflow = mlflow.rstrip("/")
        trace = environment.get("LEDGERLINE_TRACE_URL")
        if trace is None and (jaeger := environment.get("LEDGERLINE_JAEGER_URL")):
            trace = jaeger.rstrip("/") + JAEGER_TRACE
        links = cls(dagster.rstrip("/"), mlflow, trace or mlflow + MLFLOW_TRACE)
        try:
            links.trace_page("00000000-0000-0000-0000-000000000000", "0")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"LEDGERLINE_TRACE_URL is {trace!r}; it may have {{trace_id}}, {{mlflow_trace_id}} and "
                "{experiment_id}, and no other braces."
            ) from error
        return links

    def run_page(self, run_id: str) -> str | None:
        """A run in Dagster."""
        return f"{self.dagster}/runs/{run_id}" if self.dagster else None

    def trace_page(self, run_id: str, experiment_id: str) -> str | None:
        """The trace of a run."""
        return self.page_of_trace(f"{ids.trace_id(run_id):032x}", experiment_id)

    def page_of_trace(self, trace_id: str, experiment_id: str) -> str | None:
        """A trace by its id, 32 hexadecimal digits."""
        if self.trace is None:
            return None
        return self.trace.format(
            trace_id=trace_id, mlflow_trace_id=f"tr-{trace_id}", experiment_id=experiment_id
        )

    def mlflow_run_page(self, experiment_id: str, mlflow_run_id: str) -> str | None:
        """A run in MLflow."""
        return f"{self.mlflow}/#/experiments/{experiment_id}/runs/{mlflow_run_id}" if self.mlflow else None

    def mlflow_runs_page(self, experiment_id: str, run_id: str) -> str | None:
        """All that MLflow has of a Dagster run, by tag: known before anything is written there."""
        query = quote(f"tags.`{RUN_ID_TAG}` = '{run_id}'")
        return (
            f"{self.mlflow}/#/experiments/{experiment_id}/runs?searchFilter={query}" if self.mlflow else None
        )
