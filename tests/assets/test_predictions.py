"""Tests batch scoring: which version is used, and that the rows are its predictions."""

import shutil
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.delay_model import MODEL_NAME, model_input
from assets.features import FEATURES_SCHEMA, features
from assets.flights import FLIGHT_KEY, flights
from assets.predictions import PREDICTIONS_SCHEMA, delay_predictions, version_in_use
from assets.reference import planes, weather
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.mlflow_store.store import connect
from resources.wiring import resources_for

DAY = "2013-02-08"
ASSETS = [planes, weather, flights, features, delay_predictions]


@pytest.fixture
def scoring(registrations: list[RegisteredVersion], ingested: Settings, damageable: Settings) -> Settings:
    """A copy of tables and registry, whose aliases a test may move; version 2 is in staging."""
    database = Path(ingested.tracking_uri.removeprefix("sqlite:///"))
    shutil.copyfile(database, damageable.home / "mlflow.db")
    return damageable


@pytest.fixture
def registry(scoring: Settings) -> ModelRegistryResource:
    return ModelRegistryResource(tracking_uri=scoring.tracking_uri)


def set_production(settings: Settings, number: int) -> None:
    connect(settings.tracking_uri).set_registered_model_alias(MODEL_NAME, "production", str(number))


def predictions_of(settings: Settings, first: str, last: str) -> pd.DataFrame:
    """Score days as a single run, and read what was stored."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    dg.materialize(
        ASSETS,
        selection=[delay_predictions],
        resources=resources_for(settings),
        tags=tags,
    )
    tables = open_tables(settings.data)
    days = tables.stored_partitions(delay_predictions.key)
    return tables.read(delay_predictions.key, days, PREDICTIONS_SCHEMA)


def test_staging_is_used_while_there_is_no_production(scoring: Settings) -> None:
    rows = predictions_of(scoring, DAY, DAY)
    assert set(rows["model_alias"]) == {"staging"}
    assert set(rows["model_version"]) == {2}


def test_production_is_preferred_once_there_is_one(scoring: Settings) -> None:
    set_production(scoring, 1)
    rows = predictions_of(scoring, DAY, DAY)
    assert set(rows["model_alias"]) == {"production"}
    assert set(rows["model_version"]) == {1}


def test_a_moved_alias_changes_the_predictions_of_the_next_run(scoring: Settings) -> None:
    before = predictions_of(scoring, DAY, DAY)["late_probability"]
    set_production(scoring, 1)
    after = predictions_of(scoring, DAY, DAY)["late_probability"]
    assert (before != after).any()


def test_probabilities_are_those_of_the_registered_model(
    scoring: Settings, registry: ModelRegistryResource
) -> None:
    rows = predictions_of(scoring, DAY, DAY)
    _, version = version_in_use(registry)
    flights = open_tables(scoring.data).read(features.key, [DAY], FEATURES_SCHEMA)
    expected = registry.model(MODEL_NAME).load(version).answer(model_input(flights))[:, 1]
    assert rows["late_probability"].to_numpy().tobytes() == expected.tobytes()
    assert rows[list(FLIGHT_KEY)].equals(flights[list(FLIGHT_KEY)])


def test_cancelled_flights_are_scored_too(scoring: Settings) -> None:
    # 8 February 2013: a snowstorm.
    flights = open_tables(scoring.data).read(features.key, [DAY], FEATURES_SCHEMA)
    assert flights["arrived_late"].isna().sum() > 100
    rows = predictions_of(scoring, DAY, DAY)
    assert len(rows) == len(flights)
    assert rows["late_probability"].between(0, 1, inclusive="neither").all()


def test_several_days_are_one_run_and_a_file_each(scoring: Settings) -> None:
    rows = predictions_of(scoring, "2013-02-07", "2013-02-09")
    flights = open_tables(scoring.data).read(features.key, sorted(set(rows["date"])), FEATURES_SCHEMA)
    assert sorted(set(rows["date"])) == ["2013-02-07", "2013-02-08", "2013-02-09"]
    assert rows.groupby("date").size().equals(flights.groupby("date").size())


def test_without_any_version_the_job_to_run_is_named(settings: Settings) -> None:
    with pytest.raises(PermanentFailure, match="No version of flight_delay has") as caught:
        version_in_use(ModelRegistryResource(tracking_uri=settings.tracking_uri))
    assert caught.value.remedy == "Run the job train_delay_model for a month first."


def test_scoring_without_any_version_fails_without_a_retry(damageable: Settings) -> None:
    run = dg.materialize(
        ASSETS,
        selection=[delay_predictions],
        resources=resources_for(damageable),
        partition_key=DAY,
        raise_on_error=False,
    )
    assert [event.step_key for event in run.all_events if event.is_step_up_for_retry] == []
    failure = run.failure_data_for_node("delay_predictions")
    assert failure is not None
    assert "Run the job train_delay_model for a month first." in str(failure.error)
    assert open_tables(damageable.data).stored_partitions(delay_predictions.key) == []


def test_a_day_without_features_is_named(scoring: Settings) -> None:
    run = dg.materialize(
        ASSETS,
        selection=[delay_predictions],
        resources=resources_for(scoring),
        partition_key="2013-06-01",
        raise_on_error=False,
    )
    failure = run.failure_data_for_node("delay_predictions")
    assert failure is not None
    assert "features 2013-06-01 is not stored" in str(failure.error)
