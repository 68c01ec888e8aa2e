"""Tests the training: repeatable, robust to unknown values, recorded, and clear about missing days."""

import shutil
from itertools import pairwise
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.delay_model import (
    TrainedModel,
    TrainingConfig,
    delay_model,
    loss_curves,
    model_input,
    train,
)
from assets.features import FEATURES, LABEL, NUMERIC_FEATURES
from assets.metrics import score
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.dagster.tracking import ERROR_TAG
from ledgerline.mlflow_store.store import connect
from resources.wiring import resources_for
from tests.project import EXPERIMENT

QUICK = TrainingConfig(window_months=1, max_iter=60)


@pytest.fixture(scope="module")
def pipeline(january: pd.DataFrame) -> Any:
    return train(january, QUICK)


def train_february(settings: Settings, **config: float) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [delay_model],
        resources=resources_for(settings),
        partition_key="2013-02-01",
        run_config={"ops": {"delay_model": {"config": {"window_months": 1, "max_iter": 5, **config}}}},
        raise_on_error=False,
    )


def copy_features(origin: Settings, to: Settings, without: str = "") -> None:
    """Copy the features of January, except for the days that this pattern names."""
    ignore = shutil.ignore_patterns("2013-02-*", "2013-03-*", without)
    shutil.copytree(f"{origin.data}/features", f"{to.data}/features", ignore=ignore)


def test_the_same_rows_and_config_give_the_same_model_to_the_last_digit(
    january: pd.DataFrame, pipeline: Any
) -> None:
    again: Any = train(january.copy(), QUICK)
    predicted, predicted_again = (
        model.predict_proba(model_input(january))[:, 1] for model in (pipeline, again)
    )
    assert predicted.tobytes() == predicted_again.tobytes()
    late = january[LABEL].astype(bool)
    assert score(late, pd.Series(predicted)) == score(late, pd.Series(predicted_again))
    assert loss_curves(pipeline) == loss_curves(again)


def test_another_seed_gives_another_model(january: pd.DataFrame, pipeline: Any) -> None:
    other = train(january, TrainingConfig(window_months=1, max_iter=60, seed=1))
    inputs = model_input(january)
    assert (pipeline.predict_proba(inputs) != other.predict_proba(inputs)).any()


def test_the_model_is_better_than_chance_on_its_training_rows(january: pd.DataFrame, pipeline: Any) -> None:
    predicted = pd.Series(pipeline.predict_proba(model_input(january))[:, 1])
    assert score(january[LABEL].astype(bool), predicted)["roc_auc"] > 0.65


@pytest.mark.parametrize("column", FEATURES)
def test_a_missing_value_is_accepted_in_every_column(
    column: str, january: pd.DataFrame, pipeline: Any
) -> None:
    rows = model_input(january.head(3)).assign(**{column: None})
    rows = rows.astype(dict.fromkeys(NUMERIC_FEATURES, "float64"))
    assert all(0 < predicted < 1 for predicted in pipeline.predict_proba(rows)[:, 1])


@pytest.mark.parametrize("column", ["carrier", "origin", "dest", "manufacturer"])
def test_an_unknown_category_is_predicted_like_a_missing_one(
    column: str, january: pd.DataFrame, pipeline: Any
) -> None:
    rows = model_input(january.head(50))
    unseen = pipeline.predict_proba(rows.assign(**{column: "never seen"}))
    missing = pipeline.predict_proba(rows.assign(**{column: None}))
    assert (unseen == missing).all()


@pytest.mark.parametrize("column", ["carrier", "origin", "dest", "manufacturer"])
def test_a_category_is_missing_however_that_is_written(
    column: str, january: pd.DataFrame, pipeline: Any
) -> None:
    rows = model_input(january.head(50))
    none = rows.assign(**{column: pd.Series([None] * 50, dtype="object")})
    nan = rows.assign(**{column: pd.Series([float("nan")] * 50, dtype="object")})
    assert (pipeline.predict_proba(none) == pipeline.predict_proba(nan)).all()


def test_any_number_is_a_double_to_the_model(january: pd.DataFrame) -> None:
    inputs = model_input(january.astype({"distance": "int32"}))
    assert list(inputs.columns) == list(FEATURES)
    assert {str(inputs[name].dtype) for name in NUMERIC_FEATURES} == {"float64"}


def test_loss_is_known_before_and_after_each_iteration_and_falls(pipeline: Any) -> None:
    curves = loss_curves(pipeline)
    assert {name: len(losses) for name, losses in curves.items()} == {
        "train_loss": QUICK.max_iter + 1,
        "validation_loss": QUICK.max_iter + 1,
    }
    losses = curves["train_loss"]
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert curves["validation_loss"][-1] < curves["validation_loss"][0]


def test_the_record_has_the_training_rows(trained: TrainedModel, ingested: Settings) -> None:
    assert (trained.first_day, trained.last_day) == ("2013-02-01", "2013-02-28")
    assert trained.rows == 24_951 - 1_340
    assert 0.1 < trained.late_rate < 0.4
    assert trained.seed == 2013
    assert trained.carrier_hour_rates["UA 6"] < trained.carrier_hour_rates["UA 18"]


def test_the_run_has_every_config_value_and_the_loss_curve(trained: TrainedModel, ingested: Settings) -> None:
    client = connect(ingested.tracking_uri)
    run = client.get_run(trained.run_id)
    expected = {name: str(value) for name, value in QUICK.model_dump().items()} | {"month": "2013-03-01"}
    assert expected.items() <= run.data.params.items()
    curve = client.get_metric_history(trained.run_id, "train_loss")
    assert sorted(metric.step for metric in curve) == list(range(QUICK.max_iter + 1))
    assert run.data.tags["dagster.partition_key"] == "2013-03-01"
    assert run.info.run_name == "delay_model 2013-03-01"


def test_the_run_names_its_rows_by_digest(trained: TrainedModel, ingested: Settings) -> None:
    run_inputs = connect(ingested.tracking_uri).get_run(trained.run_id).inputs
    assert run_inputs is not None
    tags = {
        tag.key: tag.value
        for item in run_inputs.dataset_inputs
        for tag in item.tags
        if item.dataset.name.endswith("02-28")
    }
    assert tags == {"mlflow.data.context": "training", "content_sha256": trained.data_sha256}


def test_missing_days_fail_at_once_with_their_number_and_the_job_to_run(
    ingested: Settings, settings: Settings
) -> None:
    copy_features(ingested, settings, without="2013-01-1[23].parquet")
    run = train_february(settings)
    assert not run.success
    assert [event.step_key for event in run.all_events if event.is_step_up_for_retry] == []
    failure = run.failure_data_for_node("delay_model")
    assert failure is not None
    assert (
        "delay_model 2013-02-01 is trained on 31 days of features (2013-01-01 to 2013-01-31), and 2 of them "
        "are not stored: the first is 2013-01-12. Run the job ingest_flights for those days."
    ) in str(failure.error)
    assert connect(settings.tracking_uri).get_experiment_by_name(EXPERIMENT) is None


def test_a_training_that_fails_leaves_one_failed_run_with_the_error(
    ingested: Settings, settings: Settings
) -> None:
    copy_features(ingested, settings)
    # One row cannot have both outcomes: scikit-learn refuses to hold out so few.
    run = train_february(settings, validation_share=1e-9)
    assert not run.success
    client = connect(settings.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FAILED"
    assert tracked.data.tags[ERROR_TAG].startswith("ValueError: ")
    assert client.search_logged_models([experiment.experiment_id]) == []


def test_flights_without_an_outcome_are_not_training_rows(january: pd.DataFrame, ingested: Settings) -> None:
    days = sorted(set(january["date"]))
    rows = open_tables(ingested.data).read(dg.AssetKey("features"), days)
    assert january[LABEL].notna().all()
    assert rows[LABEL].notna().sum() == len(january)
