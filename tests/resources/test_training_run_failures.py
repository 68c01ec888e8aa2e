"""Tests training runs of steps that fail, are interrupted or retried: how their MLflow run ends."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.tracking import Dataset, MLflowResource, TrainingRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOSSES = [0.7, 0.5, 0.4]
ROWS = Dataset("features of January", "a" * 64, "/data/features", 1234)
SCHEMA = dg.TableSchema([dg.TableColumn("date", "string")])

TRAIN_AND_BE_KILLED = """
import os, signal, sys
import dagster as dg
from ledgerline.dagster.settings import set_library_defaults
set_library_defaults()
from ledgerline.dagster.tracking import MLflowResource

@dg.asset
def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
    with mlflow.training_run(context, "small") as run:
        run.log_curve("train_loss", [0.7, 0.5])
        os.kill(os.getpid(), signal.SIGKILL)

uri, experiment, artifacts, run_id = sys.argv[1:]
mlflow = MLflowResource(tracking_uri=uri, experiment=experiment, artifacts=artifacts or None)
job = dg.Definitions([trained], jobs=[dg.define_asset_job("train")], resources={"mlflow": mlflow})
job.resolve_job_def("train").execute_in_process(run_id=run_id)
"""


def only_run(client: "MlflowClient", mlflow: MLflowResource) -> "Run":
    experiment = client.get_experiment_by_name(mlflow.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def train_with(
    mlflow: MLflowResource, body: Callable[[dg.AssetExecutionContext, TrainingRun], object]
) -> dg.ExecuteInProcessResult:
    """Materialise an asset whose training run does this."""

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            body(context, run)

    return dg.materialize([trained], resources={"mlflow": mlflow}, raise_on_error=False)


def test_a_step_that_raises_ends_its_run_as_failed_with_the_error(
    mlflow: MLflowResource, client: "MlflowClient"
):
    def body(context: dg.AssetExecutionContext, run: TrainingRun) -> None:
        run.log_curve("train_loss", LOSSES)
        raise ZeroDivisionError("no flights at all")

    assert not train_with(mlflow, body).success

    run = only_run(client, mlflow)
    assert run.info.status == "FAILED"
    assert run.info.end_time is not None
    assert run.data.tags["error"] == "ZeroDivisionError: no flights at all"
    assert run.data.metrics["train_loss"] == LOSSES[-1]


def test_a_very_long_error_is_cut(mlflow: MLflowResource, client: "MlflowClient"):
    def body(context: dg.AssetExecutionContext, run: TrainingRun) -> None:
        raise dg.Failure("x" * 20_000, allow_retries=False)

    train_with(mlflow, body)

    run = only_run(client, mlflow)
    assert run.info.status == "FAILED"
    assert 1000 < len(run.data.tags["error"]) <= 5000


def test_an_interrupted_step_ends_its_run_as_killed(mlflow: MLflowResource, client: "MlflowClient"):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(dg.DagsterExecutionInterruptedError):
        dg.materialize([trained], resources={"mlflow": mlflow})

    run = only_run(client, mlflow)
    assert run.info.status == "KILLED"
    assert run.data.tags["error"].startswith("DagsterExecutionInterruptedError")


@pytest.mark.parametrize("error", [OSError("disk gone"), dg.RetryRequested(max_retries=2)], ids=type)
def test_a_retried_step_continues_the_same_run(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame, error: Exception
):
    between: list[str] = []

    def body(context: dg.AssetExecutionContext, run: TrainingRun) -> None:
        if context.retry_number:
            between.append(client.get_run(run.run_id).info.status)
        run.log_params({"max_iter": 3})
        run.log_dataset(ROWS, "training", SCHEMA)
        run.log_curve("train_loss", LOSSES)
        run.log_files({"loss.png": b"\x89PNG"})
        model_id = run.log_model(model, "small", inputs, method="predict_proba")
        if not context.retry_number:
            raise error
        run.log_metrics({"roc_auc": 0.7}, model_id, ROWS)

    result = train_with(mlflow, body)

    assert result.success
    assert between == ["RUNNING"]
    run = only_run(client, mlflow)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in curve] == list(enumerate(LOSSES))
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 1
    (logged,) = client.search_logged_models([run.info.experiment_id])
    assert [(metric.key, metric.value) for metric in logged.metrics or []] == [("roc_auc", 0.7)]


def test_a_step_that_was_killed_outright_continues_its_run_when_it_is_retried(
    mlflow: MLflowResource, client: "MlflowClient"
):
    """A killed process does not end its run in MLflow: it is still open in the next attempt."""
    run_id = str(uuid.uuid4())
    location = [mlflow.tracking_uri, mlflow.experiment, mlflow.artifacts or "", run_id]
    command = [sys.executable, "-W", "ignore", "-c", TRAIN_AND_BE_KILLED, *location]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    killed = only_run(client, mlflow)
    assert killed.info.status == "RUNNING"

    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            run.log_curve("train_loss", LOSSES)

    job = dg.Definitions([trained], jobs=[dg.define_asset_job("train")], resources={"mlflow": mlflow})
    assert job.resolve_job_def("train").execute_in_process(run_id=run_id).success

    run = only_run(client, mlflow)
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted((point.step, point.value) for point in curve) == list(enumerate(LOSSES))


def test_two_steps_of_one_run_have_a_training_run_each(mlflow: MLflowResource, client: "MlflowClient"):
    @dg.asset
    def first(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> str:
        with mlflow.training_run(context, "first") as run:
            return run.run_id

    @dg.asset
    def second(context: dg.AssetExecutionContext, first: str, mlflow: MLflowResource) -> str:
        with mlflow.training_run(context, "second") as run:
            return run.run_id

    result = dg.materialize([first, second], resources={"mlflow": mlflow})

    assert result.output_for_node("first") != result.output_for_node("second")


def test_a_failed_addition_to_a_finished_run_is_recorded_there(
    mlflow: MLflowResource, client: "MlflowClient"
):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> str:
        with mlflow.training_run(context, "small") as run:
            return run.run_id

    @dg.asset
    def evaluated(trained: str, mlflow: MLflowResource) -> None:
        with mlflow.reopened_run(trained):
            raise ZeroDivisionError("no late flights")

    dg.materialize([trained, evaluated], resources={"mlflow": mlflow}, raise_on_error=False)

    run = only_run(client, mlflow)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "ZeroDivisionError: no late flights"
