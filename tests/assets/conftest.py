"""Fixtures of the tests of assets: real rows and real state."""

import shutil
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets import delay_model, delay_model_evaluation, delay_model_version, features, flights, reference
from assets.delay_model import TrainedModel, read_days, with_outcome
from assets.delay_model_evaluation import Evaluation
from assets.flights import read_flights
from assets.partitions import training_days
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from resources.wiring import resources_for

FEBRUARY, MARCH = "2013-02-01", "2013-03-01"

# Settings for a training of seconds: one month, few trees.
QUICK_TRAINING = {"ops": {"delay_model": {"config": {"window_months": 1, "max_iter": 60}}}}


@pytest.fixture(scope="session")
def source_flights() -> pd.DataFrame:
    return read_flights()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nothing is stored yet."""
    return Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path / "home")})


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The state that `ingestion` and the models are written to; to be read only."""
    return Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path_factory.mktemp("stored"))})


@pytest.fixture(scope="session")
def ingestion(stored: Settings) -> dg.ExecuteInProcessResult:
    """One run that writes the reference tables, and flights and features of January to March."""
    return dg.materialize(
        [
            flights.flights,
            reference.airports,
            reference.airlines,
            reference.planes,
            reference.weather,
            features.features,
        ],
        resources=resources_for(stored),
        tags={
            "dagster/asset_partition_range_start": "2013-01-01",
            "dagster/asset_partition_range_end": "2013-03-31",
        },
    )


@pytest.fixture(scope="session")
def ingested(ingestion: dg.ExecuteInProcessResult, stored: Settings) -> Settings:
    assert ingestion.success
    return stored


@pytest.fixture
def damageable(ingested: Settings, settings: Settings) -> Settings:
    """A copy of what is stored, with the first nine days of February only, that a test may change."""

    def other_days(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith("2013-") and not name.startswith("2013-02-0")]

    shutil.copytree(ingested.data, settings.data, ignore=other_days)
    return settings


@pytest.fixture(scope="session")
def january(ingested: Settings) -> pd.DataFrame:
    """Features of January with an outcome: the training rows of the February model."""
    days = training_days(FEBRUARY, 1)
    return with_outcome(read_days(open_tables(ingested.data), days, "a test wants"))


@pytest.fixture(scope="session")
def registrations(ingested: Settings) -> list[RegisteredVersion]:
    """Models of February, March, and February again; then the March version step once more."""
    months = [FEBRUARY, MARCH, FEBRUARY]
    registered = [_materialize(ingested, _MODEL_ASSETS, month) for month in months]
    return [*registered, _materialize(ingested, [delay_model_version.delay_model_version], MARCH)]


@pytest.fixture(scope="session")
def trained(registrations: list[RegisteredVersion], ingested: Settings) -> TrainedModel:
    """The record of the March model, which carries the alias staging."""
    return open_records(ingested.data).read(dg.AssetKey("delay_model"), MARCH, TrainedModel)


@pytest.fixture(scope="session")
def evaluation(registrations: list[RegisteredVersion], ingested: Settings) -> Evaluation:
    """How the March model did."""
    return open_records(ingested.data).read(dg.AssetKey("delay_model_evaluation"), MARCH, Evaluation)


_MODEL_ASSETS = [
    delay_model.delay_model,
    delay_model_evaluation.delay_model_evaluation,
    delay_model_version.delay_model_version,
]


def _materialize(settings: Settings, selection: list[dg.AssetsDefinition], month: str) -> RegisteredVersion:
    dg.materialize(
        _MODEL_ASSETS,
        selection=selection,
        resources=resources_for(settings),
        partition_key=month,
        run_config=QUICK_TRAINING if delay_model.delay_model in selection else None,
    )
    records = open_records(settings.data)
    return records.read(dg.AssetKey("delay_model_version"), month, RegisteredVersion)
