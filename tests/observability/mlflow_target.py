"""MLflow as a target for tests: exports runs, and reads what MLflow stores."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from ledgerline.ledger.event_log import LINKS_METADATA, read_history
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import MLFLOW_TRACE, Links
from ledgerline.ledger.projection import TargetUnavailableError
from ledgerline.mlflow_runs.projection import MLflowRunProjection
from ledgerline.mlflow_store import store
from tests.observability import mlflow_jobs as jobs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DAGSTER, MLFLOW = "http://dagster.example:3000", "http://mlflow.example:5000"
LINKS = Links(DAGSTER, MLFLOW, MLFLOW + MLFLOW_TRACE)

Point = tuple[str, int, int, float]


class CountingClient:
    """A client that counts its calls."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._client, name)


@dataclass
class Target:
    """MLflow at an address, with a projection to a separate experiment."""

    tracking_uri: str
    experiment: str
    artifacts: str | None
    client: "MlflowClient"
    links: Links = LINKS

    @property
    def projection(self) -> MLflowRunProjection:
        return projection_to(self.tracking_uri, self.experiment, self.artifacts, self.links)

    def counting(self) -> tuple[MLflowRunProjection, CountingClient]:
        """A projection whose calls are counted."""
        client = CountingClient(store.connect(self.tracking_uri))
        experiment_id = store.experiment_id(self.client, self.experiment, self.artifacts)
        projection = MLflowRunProjection(
            self.tracking_uri,
            lambda: (client, experiment_id),  # pyright: ignore[reportArgumentType]
            self.links,
            documents,
        )
        return projection, client

    def export(self, instance: dg.DagsterInstance, now: RunHistory, before: RunHistory | None = None) -> int:
        return self.projection.export(instance, now, before)

    def runs(self, run_id: str, tag: str = "dagster.run_id") -> "list[Run]":
        """All that MLflow has of a Dagster run, in any experiment."""
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, f"tags.`{tag}` = '{run_id}'"))

    def run(self, history: RunHistory) -> "Run":
        """The one MLflow run of a Dagster run."""
        (run,) = self.runs(history.run.run_id)
        return run

    def points(self, history: RunHistory) -> list[Point]:
        """Every point of every metric: its name, step, time and value."""
        run = self.run(history)
        return sorted(
            (point.key, point.step, point.timestamp, point.value)
            for name in run.data.metrics
            for point in self.client.get_metric_history(run.info.run_id, name)
        )

    def files(self, history: RunHistory) -> set[str]:
        """The paths of its artifacts."""
        run_id = self.run(history).info.run_id
        paths = {artifact.path for artifact in self.client.list_artifacts(run_id)}
        return paths | {artifact.path for artifact in self.client.list_artifacts(run_id, "lineage")}

    def datasets(self, history: RunHistory) -> dict[str, Any]:
        """Return its dataset inputs by name."""
        inputs = self.run(history).inputs
        assert inputs is not None
        return {recorded.dataset.name: recorded for recorded in inputs.dataset_inputs}


def documents(history: RunHistory, mlflow_run_id: str) -> Mapping[str, bytes]:
    return {f"{history.run.job}.json": json.dumps({"mlflow": mlflow_run_id}).encode()}


def projection_to(
    tracking_uri: str, experiment: str, artifacts: str | None = None, links: Links = LINKS
) -> MLflowRunProjection:
    def open_experiment() -> "tuple[MlflowClient, str]":
        try:
            client = store.connect(tracking_uri)
            return client, store.experiment_id(client, experiment, artifacts)
        except store.StoreUnreachableError as error:
            raise TargetUnavailableError(str(error)) from error

    return MLflowRunProjection(tracking_uri, open_experiment, links, documents)


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


def execute(
    instance: dg.DagsterInstance, job: dg.JobDefinition, config: Mapping[str, Any] | None = None
) -> RunHistory:
    result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    return history_of(instance, result.run_id)


def mapped(instance: dg.DagsterInstance, steps: int = 2) -> RunHistory:
    """A run with so many steps beside the first."""
    return execute(instance, jobs.mapping, {"ops": {"split": {"config": {"steps": steps}}}})


def materialize(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, **arguments: Any) -> RunHistory:
    """A run of these assets; others may be below them."""
    result = dg.materialize(
        [jobs.planes, jobs.flights, jobs.delay_model],
        selection=list(assets),
        instance=instance,
        resources=arguments.pop("resources", {"mlflow": None}),
        **arguments,
    )
    return history_of(instance, result.run_id)


def links_in(instance: dg.DagsterInstance, run_id: str) -> list[Mapping[str, dg.MetadataValue]]:
    """The metadata of the engine events with links."""
    events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    return [
        event.engine_event_data.metadata
        for event in events
        if event is not None and event.is_engine_event and LINKS_METADATA in event.engine_event_data.metadata
    ]
