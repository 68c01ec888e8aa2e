"""Tests the evaluation of a model in its MLflow run, its registration, and the alias staging."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.delay_model import MODEL_NAME, TrainedModel, delay_model
from assets.delay_model_evaluation import (
    CARRIER_HOUR_RATE,
    CONSTANT_RATE,
    MODEL,
    Evaluation,
    delay_model_evaluation,
    metrics_by_name,
    scores_table,
)
from assets.delay_model_version import FLIGHT_DELAY
from ledgerline.dagster.released_models.registration import RegisteredVersion, may_replace
from ledgerline.dagster.settings import Settings
from ledgerline.mlflow_store.store import connect
from ledgerline.registry.versions import RegisteredModel, Version
from resources.wiring import resources_for

METRICS = {"roc_auc", "pr_auc", "log_loss", "brier", "calibration_error"}


def version_of(month: str | None) -> Version:
    tags = {} if month is None else {"month": month}
    return Version(MODEL_NAME, number=1, location="", run_id="", created_at=datetime.now(UTC), tags=tags)


def test_evaluation_finishes_the_run_that_training_opened(
    trained: TrainedModel, evaluation: Evaluation, ingested: Settings
) -> None:
    assert (evaluation.run_id, evaluation.model_id) == (trained.run_id, trained.model_id)
    run = connect(ingested.tracking_uri).get_run(trained.run_id)
    assert run.info.status == "FINISHED"


def test_model_and_baselines_are_scored_and_tracked(evaluation: Evaluation, ingested: Settings) -> None:
    assert set(evaluation.scores) == {MODEL, CARRIER_HOUR_RATE, CONSTANT_RATE}
    tracked = connect(ingested.tracking_uri).get_run(evaluation.run_id).data.metrics
    for name, scores in evaluation.scores.items():
        assert set(scores) == METRICS
        prefix = "" if name == MODEL else f"{name}/"
        assert {metric: tracked[f"{prefix}{metric}"] for metric in METRICS} == pytest.approx(scores)
    assert evaluation.scores[CONSTANT_RATE]["roc_auc"] == 0.5
    assert 0.5 < tracked["origin_EWR/roc_auc"] < 1


def test_the_model_is_better_than_the_share_of_late_flights(evaluation: Evaluation) -> None:
    assert evaluation.scores[MODEL]["roc_auc"] > evaluation.scores[CONSTANT_RATE]["roc_auc"]


def test_cancelled_and_diverted_flights_are_counted_and_not_evaluated(
    evaluation: Evaluation, source_flights: pd.DataFrame
) -> None:
    march = source_flights[source_flights["date"].str.startswith("2013-03")]
    assert evaluation.without_outcome == march["arr_delay"].isna().sum() == 932
    assert evaluation.rows == 28_834 - 932
    outcomes = march["arr_delay"].dropna()
    assert evaluation.late_rate == pytest.approx((outcomes >= 15).mean())


def test_the_evaluated_rows_are_an_input_of_the_run_and_of_its_metrics(
    evaluation: Evaluation, ingested: Settings
) -> None:
    client = connect(ingested.tracking_uri)
    run_inputs = client.get_run(evaluation.run_id).inputs
    assert run_inputs is not None
    usages = {
        item.dataset.name: tag.value
        for item in run_inputs.dataset_inputs
        for tag in item.tags
        if tag.key == "mlflow.data.context"
    }
    assert usages["features 2013-03-01 to 2013-03-31"] == "evaluation"
    assert usages["features 2013-02-01 to 2013-02-28"] == "training"
    logged = client.get_logged_model(evaluation.model_id)
    assert {metric.key for metric in logged.metrics or []} >= METRICS


def test_plots_and_slices_are_stored_with_the_run(evaluation: Evaluation, ingested: Settings) -> None:
    client = connect(ingested.tracking_uri)
    files = {file.path for file in client.list_artifacts(evaluation.run_id)}
    assert files >= {"loss.png", "roc.png", "calibration.png", "importance.png", "slices.png", "slices.json"}
    slices = json.loads(_artifact(client, evaluation.run_id, "slices.json"))
    assert slices["columns"] == ["slice", "value", "flights", "late_rate", "roc_auc", "brier"]
    origins = {row[1]: row[2] for row in slices["data"] if row[0] == "origin"}
    assert set(origins) == {"EWR", "JFK", "LGA"}
    assert sum(origins.values()) == evaluation.rows


def test_a_month_with_missing_days_is_not_evaluated_and_its_run_stays_finished(
    trained: TrainedModel, damageable: Settings, ingested: Settings, registrations: list[RegisteredVersion]
) -> None:
    # The tables of March are not in this copy; MLflow is the one that trained its model.
    resources = resources_for(ingested) | {"tables": resources_for(damageable)["tables"]}
    run = dg.materialize(
        [delay_model, delay_model_evaluation],
        selection=[delay_model_evaluation],
        resources=resources,
        partition_key="2013-03-01",
        raise_on_error=False,
    )
    failure = run.failure_data_for_node("delay_model_evaluation")
    assert failure is not None
    assert "delay_model 2013-03-01 is evaluated on 31 days of features" in str(failure.error)
    assert "31 of them are not stored" in str(failure.error)
    assert connect(ingested.tracking_uri).get_run(trained.run_id).info.status == "FINISHED"


def test_slices_that_could_not_be_scored_have_no_metrics() -> None:
    slices = pd.DataFrame(
        {
            "slice": ["carrier", "carrier"],
            "value": ["AA", "OO"],
            "roc_auc": [0.7, math.nan],
            "brier": [0.2, math.nan],
        }
    )
    flat = metrics_by_name({MODEL: {"brier": 0.1}, CARRIER_HOUR_RATE: {}, CONSTANT_RATE: {}}, slices)
    assert flat == {"brier": 0.1, "carrier_AA/roc_auc": 0.7, "carrier_AA/brier": 0.2}


def test_the_report_has_the_model_beside_the_baselines(evaluation: Evaluation) -> None:
    records = scores_table(evaluation.scores).records
    assert [record.data["predictions of"] for record in records] == list(evaluation.scores)
    assert records[0].data["brier"] == round(evaluation.scores[MODEL]["brier"], 4)


def test_each_model_becomes_a_version_and_a_repeated_step_registers_nothing(
    registrations: list[RegisteredVersion], ingested: Settings
) -> None:
    february, march, february_again, march_again = registrations
    assert [version.number for version in (february, march, february_again)] == [1, 2, 3]
    assert march_again == march
    versions = connect(ingested.tracking_uri).search_model_versions(f"name = '{MODEL_NAME}'")
    assert len(versions) == 3


def test_staging_goes_to_a_later_month_and_never_back(
    registrations: list[RegisteredVersion], ingested: Settings
) -> None:
    assert [version.is_staging for version in registrations] == [True, True, False, True]
    staging = RegisteredModel(connect(ingested.tracking_uri), MODEL_NAME).version_with_alias("staging")
    assert staging is not None
    assert (staging.number, staging.tags["partition"]) == (2, "2013-03-01")


def test_a_version_names_its_run(
    trained: TrainedModel,
    evaluation: Evaluation,
    registrations: list[RegisteredVersion],
    ingested: Settings,
) -> None:
    version = connect(ingested.tracking_uri).get_model_version(MODEL_NAME, "2")
    assert version.run_id == trained.run_id
    assert version.tags["sha256"] == registrations[1].sha256
    assert version.tags["training_data_sha256"] == trained.data_sha256
    assert version.tags["trained_on"] == '[["2013-02-01", "2013-02-28"]]'
    assert version.tags["judged_data_sha256"] == evaluation.data_sha256
    assert float(version.tags["brier"]) == pytest.approx(evaluation.scores[MODEL]["brier"], abs=1e-6)


@pytest.mark.parametrize(
    ("current", "month", "expected"),
    [
        (None, "2013-02-01", True),
        (version_of("2013-02-01"), "2013-03-01", True),
        (version_of("2013-03-01"), "2013-03-01", True),
        (version_of("2013-04-01"), "2013-03-01", False),
        (version_of(None), "2013-02-01", True),
    ],
)
def test_a_version_is_replaced_by_one_of_the_same_or_a_later_month(
    current: Version | None, month: str, expected: bool
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert may_replace(FLIGHT_DELAY, instance, current, month) is expected


def _artifact(client: Any, run_id: str, name: str) -> str:
    from mlflow.artifacts import load_text

    return load_text(f"{client.get_run(run_id).info.artifact_uri}/{name}")
