"""A run of two assets, and what MLflow has of it."""

import dagster as dg
from mlflow import MlflowClient

from tests.project import EXPERIMENT


@dg.asset
def planes() -> int:
    return 3


@dg.asset
def fleet(planes: int) -> int:
    return planes


def executed(instance: dg.DagsterInstance) -> str:
    return dg.materialize([planes, fleet], instance=instance).run_id


def traced(client: MlflowClient, run_id: str) -> set[str]:
    """Names of the spans of a run in MLflow."""
    trace = client.get_trace(f"tr-{run_id.replace('-', '')}")
    return {span.name for span in trace.data.spans}


def tracked(client: MlflowClient) -> list[str]:
    """The Dagster runs that MLflow has a run of, one for each."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    return sorted(run.data.tags["dagster.run_id"] for run in client.search_runs([experiment.experiment_id]))


def is_exported(client: MlflowClient, run_id: str) -> bool:
    """Return whether MLflow has the whole trace and the ended run."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return False
    found = client.search_runs([experiment.experiment_id], f"tags.`dagster.run_id` = '{run_id}'")
    traces = client.search_traces(locations=[experiment.experiment_id])
    return [run.info.status for run in found] == ["FINISHED"] and [
        trace.info.state.value for trace in traces
    ] == ["OK"]
