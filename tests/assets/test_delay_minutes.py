"""Tests the second model of the flights: a regression with separate gates, journal and route."""

import json
from pathlib import Path

import dagster as dg
import pytest

from assets.delay_minutes import DELAY_MINUTES, MINUTES, delay_minutes_version, with_minutes
from assets.delay_model import model_input
from assets.partitions import evaluation_days
from ledgerline.dagster.released_models.released import released
from ledgerline.dagster.resources import registry_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.mlflow_store.store import connect, downloaded
from resources.wiring import resources_for

FEBRUARY, MARCH = "2013-02-01", "2013-03-01"


@pytest.fixture
def settings(ingested: Settings, tmp_path: Path) -> Settings:
    """A registry of this test's own, over the tables that all share."""
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path / "home")})
    Path(settings.data).mkdir(parents=True)
    for table in ("features", "flights"):
        Path(settings.data, table).symlink_to(Path(ingested.data, table))
    return settings


def train(settings: Settings, month: str, iterations: int) -> None:
    config = {"max_iter": iterations}
    dg.materialize(
        [delay_minutes_version],
        partition_key=month,
        resources=resources_for(settings),
        run_config={"ops": {"delay_minutes_version": {"config": config}}},
    )


def release(settings: Settings) -> dg.ExecuteInProcessResult:
    project = dg.Definitions(assets=[delay_minutes_version], resources=resources_for(settings))
    definitions = dg.Definitions.merge(project, released(DELAY_MINUTES))
    return definitions.resolve_job_def("release_delay_minutes").execute_in_process(raise_on_error=False)


def in_production(settings: Settings) -> int | None:
    found = registry_of(settings).model(DELAY_MINUTES.name).version_with_alias("production")
    return found.number if found else None


def test_a_regression_goes_to_production_by_its_own_gates_and_a_worse_one_is_refused(
    settings: Settings,
) -> None:
    train(settings, MARCH, iterations=40)
    first = release(settings)
    assert first.success
    assert in_production(settings) == 1

    train(settings, MARCH, iterations=1)
    second = release(settings)
    assert second.success
    assert in_production(settings) == 1
    checks = {check.check_name: check for check in second.get_asset_check_evaluations()}
    assert set(checks) == {
        "better_than_production",
        "no_slice_worse",
        "unbiased",
        "fast_enough",
        "same_signature",
    }
    refused = checks["better_than_production"]
    assert not refused.passed
    assert "rmse is " in str(refused.description)
    assert "does not exceed 0.0000" in str(refused.description)

    registered = registry_of(settings).model(DELAY_MINUTES.name)
    evaluations = registered.history().evaluations()
    assert [(each.version, each.against, each.passed) for each in evaluations] == [
        (1, None, True),
        (2, 1, False),
    ]
    client = connect(settings.tracking_uri)
    location = client.get_run(evaluations[1].evidence_run_id).info.artifact_uri
    assert location is not None
    with downloaded(client, location) as folder:
        document = json.loads((folder / "evidence.json").read_bytes())
        assert (folder / "report.html").stat().st_size > 10_000
    rows = with_minutes(open_tables(settings.data), evaluation_days(MARCH))
    assert document["holdout"]["rows"] == len(rows)
    assert document["holdout"]["partitions"] == 31
    for name, number in (("staging", 2), ("production", 1)):
        model = registered.load(registered.version(number))
        expected = DELAY_MINUTES.kind.score(rows[MINUTES], model.answer(model_input(rows)))
        for found in document["comparison"]["differences"]:
            assert found[name] == pytest.approx(expected[found["metric"]])


def test_the_journals_of_two_models_are_independent(settings: Settings) -> None:
    train(settings, FEBRUARY, iterations=5)
    assert registry_of(settings).model("flight_delay").history().entries == []
    assert len(registry_of(settings).model("delay_minutes").history().entries) == 1


def test_minutes_are_those_of_the_flights_that_arrived(settings: Settings) -> None:
    rows = with_minutes(open_tables(settings.data), ["2013-03-01"])
    flights = open_tables(settings.data).read(dg.AssetKey("flights"), ["2013-03-01"])
    assert len(rows) == flights[MINUTES].notna().sum()
    assert rows[MINUTES].sum() == flights[MINUTES].sum()


def test_days_that_are_not_stored_are_counted(settings: Settings) -> None:
    Path(settings.data, "features").unlink()
    result = dg.materialize(
        [delay_minutes_version],
        partition_key=FEBRUARY,
        resources=resources_for(settings),
        raise_on_error=False,
    )
    failure = result.failure_data_for_node("delay_minutes_version")
    assert "delay_minutes needs 31 days of features" in str(failure)
    assert "Run the job ingest_flights" in str(failure)
