"""Tests the drift of requests: what is compared, when it is evaluated, and when it cannot be."""

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.delay_model import MODEL_NAME, model_input, read_days, with_outcome
from assets.delay_model_version import FLIGHT_DELAY
from assets.delay_watch import WATCH
from assets.features import FEATURES
from assets.partitions import evaluation_days
from ledgerline.dagster.released_models.drift_records import RequestsDrift
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.released_models.requests_drift import requests_drift_asset, requests_drift_check
from ledgerline.dagster.released_models.watch import SCORES_STABLE
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from ledgerline.mlflow_store.store import connect
from resources.wiring import resources_for
from tests.assets.requests import ask, hours_ago, in_requests, model_of

DRIFT, CHECK = requests_drift_asset(FLIGHT_DELAY, WATCH), requests_drift_check(FLIGHT_DELAY, WATCH)
REQUESTS_DRIFT_ASSET = FLIGHT_DELAY.names.requests_drift
MIN_REQUESTS = WATCH.min_requests

# The version that was trained on February.
VERSION = 2


@pytest.fixture
def serving(registrations: list[RegisteredVersion], ingested: Settings, settings: Settings) -> Settings:
    """Version 2 is in production, and has received no request."""
    Path(settings.data).mkdir(parents=True)
    shutil.copyfile(ingested.home / "mlflow.db", settings.home / "mlflow.db")
    Path(settings.data, "features").symlink_to(Path(ingested.data, "features"))
    connect(settings.tracking_uri).set_registered_model_alias(MODEL_NAME, "production", str(VERSION))
    return settings


@pytest.fixture(scope="module")
def february(ingested: Settings) -> pd.DataFrame:
    return with_outcome(read_days(open_tables(ingested.data), evaluation_days("2013-02-01"), "a test wants"))


@pytest.fixture
def typical(february: pd.DataFrame) -> list[pd.DataFrame]:
    """Enough requests with flights like the training rows of the version."""
    return in_requests(february.sample(3 * MIN_REQUESTS, random_state=2013), 3)


def watch(settings: Settings, **config: int) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [DRIFT, CHECK],
        resources=resources_for(settings),
        run_config={"ops": {"requests_drift_flight_delay": {"config": config}}},
        raise_on_error=False,
    )


def drift_in(settings: Settings) -> RequestsDrift:
    return open_records(settings.data).read(REQUESTS_DRIFT_ASSET, None, RequestsDrift)


def verdict(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = run.get_asset_check_evaluations()
    assert found.check_name == SCORES_STABLE
    return found


def failure_of(settings: Settings) -> str:
    run = watch(settings)
    assert [event.step_key for event in run.all_events if event.is_step_up_for_retry] == []
    failure = run.failure_data_for_node("requests_drift_flight_delay")
    assert failure is not None
    return str(failure.error).partition("Stack Trace")[0]


def test_requests_like_the_training_rows_have_not_drifted(
    serving: Settings, typical: list[pd.DataFrame], february: pd.DataFrame
) -> None:
    ask(serving, typical, version=VERSION, since=hours_ago(5))
    ask(serving, typical[:1], version=1, since=hours_ago(5))
    run = watch(serving)
    assert run.success
    drift = drift_in(serving)
    assert (drift.version, drift.requests, drift.rows) == (VERSION, MIN_REQUESTS, 3 * MIN_REQUESTS)
    assert (drift.first_training_partition, drift.last_training_partition) == ("2013-02-01", "2013-02-28")
    assert drift.training_rows == len(february)
    assert set(drift.feature_psi) == set(FEATURES)
    assert max(drift.feature_psi.values()) < 0.05
    assert drift.score_psi["probability"] < 0.05
    predicted = model_of(serving, VERSION).answer(model_input(pd.concat(typical)))[:, 1]
    assert drift.mean_score["probability"] == pytest.approx(predicted.mean())
    assert drift.not_logged == []
    assert verdict(run).passed

    metadata = run.asset_materializations_for_node("requests_drift_flight_delay")[0].metadata
    assert metadata["largest_score_psi"].value == drift.score_psi["probability"]
    assert metadata["training_data"].value == "as recorded"
    assert isinstance(metadata["feature_psi"], dg.TableMetadataValue)
    assert str(metadata["scores_plot"].value).startswith("![plot](data:image/png;base64,")


def test_requests_about_other_flights_are_a_warning(serving: Settings, typical: list[pd.DataFrame]) -> None:
    storms = [flights.assign(wind_speed=40.0, visib=0.25, sched_dep_time=2100) for flights in typical]
    ask(serving, storms, version=VERSION, since=hours_ago(5))
    run = watch(serving)
    found = verdict(run)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert str(found.description).startswith("PSI ")
    assert not next(iter(CHECK.check_specs)).blocking
    drift = drift_in(serving)
    assert {"wind_speed", "visib", "sched_dep_time"} <= set(list(drift.feature_psi)[:5])


def test_few_requests_are_compared_but_not_evaluated(serving: Settings, typical: list[pd.DataFrame]) -> None:
    ask(serving, typical[:5], version=VERSION, since=hours_ago(5))
    run = watch(serving)
    assert drift_in(serving).requests == 5
    found = verdict(run)
    assert found.passed
    assert str(found.description).startswith("Not evaluated: 5 requests")


def test_only_the_last_hours_count(serving: Settings, typical: list[pd.DataFrame]) -> None:
    ask(serving, typical[:5], version=VERSION, since=hours_ago(5))
    ask(serving, typical[:3], version=VERSION, since=hours_ago(0.5))
    watch(serving, since_hours=1)
    assert drift_in(serving).requests == 3


def test_a_column_that_is_not_logged_is_not_compared(serving: Settings, typical: list[pd.DataFrame]) -> None:
    ask(serving, typical[:5], version=VERSION, since=hours_ago(5), redacted=["dest", "temp"])
    assert watch(serving).success
    drift = drift_in(serving)
    assert drift.not_logged == ["dest", "temp"]
    assert not {"dest", "temp"} & drift.feature_psi.keys()
    assert "temp" not in drift.gaps_psi


def no_requests(settings: Settings, typical: list[pd.DataFrame]) -> None:
    """The log stays empty."""


def another_version_answered(settings: Settings, typical: list[pd.DataFrame]) -> None:
    ask(settings, typical[:1], version=1, since=hours_ago(5))


def answers_are_redacted(settings: Settings, typical: list[pd.DataFrame]) -> None:
    ask(settings, typical[:1], version=VERSION, since=hours_ago(5), redacted=["0", "1"])


def nothing_is_in_production(settings: Settings, typical: list[pd.DataFrame]) -> None:
    connect(settings.tracking_uri).delete_registered_model_alias(MODEL_NAME, "production")


@pytest.mark.parametrize(
    ("happens", "problem"),
    [
        (no_requests, "has no request to flight_delay"),
        (another_version_answered, "No request since then was answered by version 2 of flight_delay"),
        (answers_are_redacted, "The request log does not contain output.0, output.1"),
        (nothing_is_in_production, "No version of flight_delay carries the alias production"),
    ],
)
def test_requests_that_cannot_be_compared_are_reported(
    serving: Settings,
    typical: list[pd.DataFrame],
    happens: Callable[[Settings, list[pd.DataFrame]], None],
    problem: str,
) -> None:
    happens(serving, typical)
    assert problem in failure_of(serving)


def test_without_a_log_the_setting_is_named(serving: Settings) -> None:
    assert "LEDGERLINE_REQUEST_LOG is off" in failure_of(
        serving.model_copy(update={"request_log_folder": "off"})
    )
