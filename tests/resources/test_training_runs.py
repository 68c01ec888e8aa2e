"""Tests training runs in MLflow, on a database and on a server: what is recorded, and once only."""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.tracking import Dataset, MLflowResource, TrainingRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

LOSSES = [0.7, 0.5, 0.4, 0.35]
SCHEMA = dg.TableSchema(
    [
        dg.TableColumn("date", "string", constraints=dg.TableColumnConstraints(nullable=False)),
        dg.TableColumn("seats", "double"),
    ]
)
DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
SEEN = Dataset("features of January", "a" * 64, "s3://bucket/features", 1234)
UNSEEN = Dataset("features of February", "b" * 64, "/data/features", 56)


def runs_of(client: "MlflowClient", mlflow: MLflowResource) -> "list[Run]":
    experiment = client.get_experiment_by_name(mlflow.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def only_run(client: "MlflowClient", mlflow: MLflowResource) -> "Run":
    (run,) = runs_of(client, mlflow)
    return run


def inputs_of(run: "Run") -> "list[DatasetInput]":
    assert run.inputs is not None
    return run.inputs.dataset_inputs


def record_everything(run: TrainingRun, model: Any, inputs: pd.DataFrame) -> str:
    run.log_params({"max_iter": 4, "seed": 2013})
    run.log_dataset(SEEN, "training", SCHEMA)
    run.log_curve("train_loss", LOSSES)
    run.log_files({"loss.png": b"\x89PNG", "slices.json": b"{}"})
    model_id = run.log_model(model, "small", inputs, method="predict_proba")
    run.log_metrics({"roc_auc": 0.7}, model_id, UNSEEN)
    return model_id


def test_a_training_run_is_finished_with_everything_it_recorded(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame
):
    @dg.asset(partitions_def=DAYS)
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small 2013-01-02") as run:
            record_everything(run, model, inputs)

    result = dg.materialize([trained], resources={"mlflow": mlflow}, partition_key="2013-01-02")

    run = only_run(client, mlflow)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "small 2013-01-02"
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert tags == {
        "dagster.run_id": result.run_id,
        "dagster.step_key": "trained",
        "dagster.job_name": "__ephemeral_asset_job__",
        "dagster.partition_key": "2013-01-02",
    }
    assert run.data.params["max_iter"] == "4"
    assert run.data.params["seed"] == "2013"
    assert {"version.python", "version.scikit-learn", "version.dagster"} <= set(run.data.params)

    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in curve] == list(enumerate(LOSSES))
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == {
        "loss.png",
        "slices.json",
    }


def test_the_training_rows_are_an_input_of_the_run(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame
):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            run.log_dataset(SEEN, "training", SCHEMA)

    dg.materialize([trained], resources={"mlflow": mlflow})

    (recorded,) = inputs_of(only_run(client, mlflow))
    assert recorded.dataset.name == "features of January"
    assert recorded.dataset.digest == "a" * 36
    assert recorded.dataset.source_type == "s3"
    assert json.loads(recorded.dataset.source) == {"uri": "s3://bucket/features"}
    assert json.loads(recorded.dataset.profile or "") == {"num_rows": 1234}
    assert json.loads(recorded.dataset.schema or "") == {
        "mlflow_colspec": [
            {"name": "date", "type": "string", "required": True},
            {"name": "seats", "type": "double", "required": False},
        ]
    }
    assert {tag.key: tag.value for tag in recorded.tags} == {
        "mlflow.data.context": "training",
        "content_sha256": "a" * 64,
    }


def test_scores_belong_to_the_run_the_model_and_the_dataset(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame
):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            record_everything(run, model, inputs)

    dg.materialize([trained], resources={"mlflow": mlflow})

    run = only_run(client, mlflow)
    assert run.data.metrics["roc_auc"] == 0.7
    assert run.outputs is not None
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert logged.status == "READY"
    assert logged.name == "small"
    assert logged.source_run_id == run.info.run_id
    (metric,) = logged.metrics or []
    assert (metric.key, metric.value) == ("roc_auc", 0.7)
    assert (metric.dataset_name, metric.dataset_digest) == (UNSEEN.name, "b" * 36)


def test_a_logged_model_is_loaded_and_predicts_as_the_trained_one(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame
):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> str:
        with mlflow.training_run(context, "small") as run:
            return run.log_model(model, "small", inputs, method="predict_proba")

    result = dg.materialize([trained], resources={"mlflow": mlflow})

    loaded = mlflow.load_model(result.output_for_node("trained"))
    assert loaded.answer(inputs).tolist() == model.predict_proba(inputs).tolist()


def test_a_model_of_another_library_is_logged_with_its_type_and_predicts_as_the_trained_one(
    mlflow: MLflowResource, client: "MlflowClient", inputs: pd.DataFrame
):
    from lightgbm import LGBMRegressor

    rows = inputs.select_dtypes("float").fillna(0)
    regressor: Any = LGBMRegressor(n_estimators=3, min_child_samples=5, verbose=-1)
    regressor.fit(rows, rows.iloc[:, 0])

    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> str:
        with mlflow.training_run(context, "small") as run:
            return run.log_model(regressor, "small", rows)

    model_id = dg.materialize([trained], resources={"mlflow": mlflow}).output_for_node("trained")

    assert client.get_logged_model(model_id).model_type == "regressor"
    stored = mlflow.load_model(model_id)
    assert (stored.flavour, stored.method) == ("lightgbm", "predict")
    assert stored.answer(rows).tolist() == regressor.predict(rows).tolist()


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_model_predicts_with_the_method_that_it_was_logged_with(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame, method: str
):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> str:
        with mlflow.training_run(context, "small") as run:
            return run.log_model(model, "small", inputs, method=method)

    model_id = dg.materialize([trained], resources={"mlflow": mlflow}).output_for_node("trained")

    assert client.get_logged_model(model_id).model_type == "classifier"
    answer = mlflow.load_model(model_id).answer(inputs)
    assert answer.tolist() == getattr(model, method)(inputs).tolist()


@pytest.mark.parametrize(
    ("strange", "problem"),
    [
        (
            {"a": "dictionary"},
            r"A builtins\.dict cannot be stored as a model. These can: LightGBM models",
        ),
        (int, r"cannot be stored as a model. These can: .*scikit-learn estimators and pipelines"),
    ],
    ids=["a dictionary", "a class"],
)
def test_an_object_that_is_not_a_model_fails_the_step_with_a_list_of_models(
    mlflow: MLflowResource, client: "MlflowClient", inputs: pd.DataFrame, strange: Any, problem: str
):
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            run.log_model(strange, "small", inputs)

    with pytest.raises(PermanentFailure, match=problem):
        dg.materialize([trained], resources={"mlflow": mlflow})

    run = only_run(client, mlflow)
    assert run.info.status == "FAILED"
    assert client.search_logged_models([run.info.experiment_id]) == []


def test_a_finished_run_can_be_reopened_by_another_step(
    mlflow: MLflowResource, client: "MlflowClient", model: Any, inputs: pd.DataFrame
):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> tuple[str, str]:
        with mlflow.training_run(context, "small") as run:
            return run.run_id, run.log_model(model, "small", inputs, method="predict_proba")

    @dg.asset
    def evaluated(trained: tuple[str, str], mlflow: MLflowResource) -> None:
        run_id, model_id = trained
        with mlflow.reopened_run(run_id) as run:
            run.log_metrics({"roc_auc": 0.6}, model_id, UNSEEN)
            run.log_dataset(UNSEEN, "evaluation", SCHEMA)

    assert dg.materialize([trained, evaluated], resources={"mlflow": mlflow}).success

    run = only_run(client, mlflow)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["roc_auc"] == 0.6
    assert [recorded.dataset.name for recorded in inputs_of(run)] == [UNSEEN.name]


def test_many_params_and_a_long_curve_are_recorded_whole(mlflow: MLflowResource, client: "MlflowClient"):
    @dg.asset
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            run.log_params({f"param_{n}": n for n in range(250)})
            run.log_curve("train_loss", [1 / (n + 1) for n in range(1500)])

    dg.materialize([trained], resources={"mlflow": mlflow})

    run = only_run(client, mlflow)
    assert sum(name.startswith("param_") for name in run.data.params) == 250
    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in curve) == list(range(1500))


def test_a_model_of_a_type_that_is_not_trusted_stops_the_step(
    mlflow: MLflowResource, client: "MlflowClient", inputs: pd.DataFrame
):
    from sklearn.dummy import DummyClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    strange = Pipeline(
        [("strange", FunctionTransformer(pd.util.hash_pandas_object)), ("x", DummyClassifier())]
    )

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small") as run:
            run.log_model(strange, "small", inputs, method="predict_proba")

    with pytest.raises(PermanentFailure, match=r"types that are not trusted: pandas\..*hash_pandas_object"):
        dg.materialize([trained], resources={"mlflow": mlflow})

    assert only_run(client, mlflow).info.status == "FAILED"


def test_the_link_is_a_page_of_the_server_or_the_id_without_a_password():
    run = TrainingRun(client=None, experiment_id="3", run_id="abc")  # pyright: ignore[reportArgumentType]
    secret = MLflowResource(tracking_uri="https://user:secret@mlflow.example/", experiment="x")
    local = MLflowResource(tracking_uri="sqlite:////srv/mlflow.db", experiment="x")

    assert secret.link(run) == dg.MetadataValue.url(
        "https://user:***@mlflow.example/#/experiments/3/runs/abc"
    )
    assert local.link(run) == dg.MetadataValue.text("abc")
