"""Tests the drift of the flights' predictions: what is compared, and the results of the checks."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.delay_model import MODEL_NAME, model_input, with_outcome
from assets.delay_model_version import FLIGHT_DELAY
from assets.delay_watch import REPORTED_WEATHER, SCHEDULE_FEATURES, WATCH
from assets.features import FEATURES, FEATURES_SCHEMA, LABEL, WEATHER_FEATURES, features
from assets.flights import flights
from assets.partitions import evaluation_days
from assets.predictions import PREDICTIONS_SCHEMA, delay_predictions
from assets.reference import planes, weather
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.drift_records import PredictionsDrift
from ledgerline.dagster.released_models.predictions_drift import drift_asset, drift_checks, evaluate
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.released_models.watch import FEATURES_STABLE, SCORES_STABLE
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from ledgerline.mlflow_store.store import connect
from ledgerline.registry.provenance import TRAINED_ON_TAG
from ledgerline.registry.versions import TRAINING_DATA_TAG
from resources.wiring import resources_for

DRIFT_ASSET = FLIGHT_DELAY.names.drift
CALIBRATED_ON_OUTCOMES = "calibrated_on_outcomes"
MIN_DAYS = WATCH.min_clusters
FEBRUARY, MARCH = "2013-02-01", "2013-03-01"
FIRST_DAYS = evaluation_days(MARCH)[:MIN_DAYS]
LEARNED_FROM = {1: "2013-01-01/2013-01-31", 2: "2013-02-01/2013-02-28", 3: "2013-01-01/2013-01-31"}

UPSTREAM = [planes, weather, flights, features, delay_predictions]
DRIFT, CHECKS = drift_asset(FLIGHT_DELAY, WATCH), drift_checks(FLIGHT_DELAY, WATCH)


def score(settings: Settings, first: str, last: str) -> None:
    dg.materialize(
        UPSTREAM,
        selection=[delay_predictions],
        resources=resources_for(settings),
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
    )


def copy_of(settings: Settings, home: Path) -> Settings:
    """Another state with the same tables and registry; files of models stay where they are."""
    copy = Settings.from_environment({"LEDGERLINE_HOME": str(home)})
    shutil.copytree(settings.data, copy.data)
    shutil.copyfile(settings.home / "mlflow.db", copy.home / "mlflow.db")
    return copy


@pytest.fixture(scope="module")
def scored(
    registrations: list[RegisteredVersion], ingested: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """February and March, scored with version 2, which was trained on February. Read only."""
    settings = copy_of(ingested, tmp_path_factory.mktemp("scored"))
    client = connect(settings.tracking_uri)
    for number, days in LEARNED_FROM.items():
        client.set_model_version_tag(MODEL_NAME, str(number), TRAINED_ON_TAG, json.dumps([days.split("/")]))
    score(settings, "2013-02-01", "2013-03-31")
    return settings


@pytest.fixture
def weeks(scored: Settings, tmp_path: Path) -> Settings:
    """A copy that a test may change, in which only the first three weeks of March are scored."""
    settings = copy_of(scored, tmp_path / "weeks")
    for file in Path(settings.data, "delay_predictions").iterdir():
        if file.stem not in FIRST_DAYS:
            file.unlink()
    return settings


def watch(settings: Settings, month: str) -> dg.ExecuteInProcessResult:
    """Compare, and evaluate the checks."""
    return dg.materialize(
        [*UPSTREAM, DRIFT, CHECKS],
        selection=[DRIFT, CHECKS],
        resources=resources_for(settings),
        partition_key=month,
        raise_on_error=False,
    )


def drift_in(settings: Settings, month: str) -> PredictionsDrift:
    return open_records(settings.data).read(DRIFT_ASSET, month, PredictionsDrift)


def evaluations_of(run: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in run.get_asset_check_evaluations()}


def failure_of(settings: Settings, month: str) -> str:
    """Return why the drift of a month cannot be evaluated; none of these failures is retried."""
    run = watch(settings, month)
    assert not run.success
    assert [event.step_key for event in run.all_events if event.is_step_up_for_retry] == []
    failure = run.failure_data_for_node("drift_flight_delay")
    assert failure is not None
    return str(failure.error).partition("Stack Trace")[0]


def rewrite(settings: Settings, day: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the features of a day that are stored."""
    path = Path(settings.data, f"features/{day}.parquet")
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def with_column(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        position, kind = table.column_names.index(name), table.schema.field(name).type
        return table.set_column(position, table.schema.field(name), pa.array([value] * len(table), kind))

    return change


@pytest.fixture(scope="module")
def march_run(scored: Settings) -> dg.ExecuteInProcessResult:
    run = watch(scored, MARCH)
    assert run.success
    return run


@pytest.fixture(scope="module")
def march(march_run: dg.ExecuteInProcessResult, scored: Settings) -> PredictionsDrift:
    return drift_in(scored, MARCH)


# Comparisons


def test_a_month_is_compared_with_the_training_days_of_its_model(
    march: PredictionsDrift, scored: Settings
) -> None:
    learned = with_outcome(open_tables(scored.data).read(features.key, evaluation_days(FEBRUARY)))
    assert (march.partition, march.clusters, march.version) == (MARCH, 31, 2)
    assert march.rows_by_version == {"2": march.rows} == {"2": 28_834}
    assert (march.first_training_partition, march.last_training_partition) == ("2013-02-01", "2013-02-28")
    assert march.training_rows == len(learned)
    assert set(march.feature_psi) == set(FEATURES)
    assert set(march.gaps_psi) == set(WEATHER_FEATURES) - {"wind_gust"}


def test_scores_of_the_month_are_compared_with_those_of_the_training_rows(
    march: PredictionsDrift, scored: Settings
) -> None:
    tables = open_tables(scored.data)
    learned = with_outcome(tables.read(features.key, evaluation_days(FEBRUARY), FEATURES_SCHEMA))
    registered = ModelRegistryResource(tracking_uri=scored.tracking_uri).model(MODEL_NAME)
    model = registered.load(registered.version(2))
    assert march.mean_training_score["probability"] == pytest.approx(
        model.answer(model_input(learned))[:, 1].mean()
    )
    predictions = tables.read(delay_predictions.key, evaluation_days(MARCH), PREDICTIONS_SCHEMA)
    assert march.mean_score["probability"] == pytest.approx(predictions["late_probability"].mean())
    assert 0 < march.score_psi["probability"] < 10


def test_outcomes_are_those_of_flights_that_arrived(march: PredictionsDrift, scored: Settings) -> None:
    tables = open_tables(scored.data)
    rows = tables.read(features.key, evaluation_days(MARCH), FEATURES_SCHEMA)
    late, known = rows[LABEL].astype("Float64").astype(float), rows[LABEL].notna()
    probability = tables.read(delay_predictions.key, evaluation_days(MARCH))["late_probability"]
    assert march.rows_with_outcome == known.sum() < march.rows
    assert march.observed["probability"] == pytest.approx(late.mean())
    assert march.predicted["probability"] == pytest.approx(probability[known].mean())
    assert march.metrics["brier"] == pytest.approx(((probability - late)[known] ** 2).mean())
    assert march.metrics["calibration_error"] >= abs(late.mean() - probability[known].mean())


def test_the_training_month_of_a_model_has_not_drifted(scored: Settings) -> None:
    run = watch(scored, FEBRUARY)
    february = drift_in(scored, FEBRUARY)
    assert max(february.feature_psi.values()) < 0.02
    assert february.score_psi["probability"] < 0.02
    # Cancelled flights were scored and are not training rows.
    assert february.rows > february.training_rows == february.rows_with_outcome
    assert {name: found.passed for name, found in evaluations_of(run).items()} == {
        SCORES_STABLE: True,
        FEATURES_STABLE: True,
        CALIBRATED_ON_OUTCOMES: True,
    }


def test_the_report_has_numbers_a_table_and_plots(
    march_run: dg.ExecuteInProcessResult, march: PredictionsDrift
) -> None:
    metadata = march_run.asset_materializations_for_node("drift_flight_delay")[0].metadata
    for name in ("rows", "clusters", "version", "rows_with_outcome", "largest_score_psi"):
        assert metadata[name].value == getattr(march, name)
    for name in ("calibration_error", "brier"):
        assert metadata[name].value == march.metrics[name]
    assert metadata["training_data"].value == "as recorded"
    table = metadata["feature_psi"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["feature"] for record in table.records] == list(march.feature_psi)
    assert pd.Series([record.data["psi"] for record in table.records]).is_monotonic_decreasing
    evaluated_by = {record.data["feature"]: record.data["evaluated by"] for record in table.records}
    assert [evaluated_by[name] for name in ("temp", "dest", "wind_gust")] == ["gaps", "psi", "nothing"]
    for name in ("scores_plot", "calibration_plot"):
        assert str(metadata[name].value).startswith("![plot](data:image/png;base64,")


def test_a_record_is_strict_json(march: PredictionsDrift, scored: Settings) -> None:
    content = open_records(scored.data).path_of(DRIFT_ASSET, MARCH).read_bytes()
    assert json.loads(content)["score_psi"] == march.score_psi


# Days and versions


def test_a_few_days_are_compared_and_counted_but_not_evaluated(weeks: Settings) -> None:
    for day in FIRST_DAYS[3:]:
        Path(weeks.data, f"delay_predictions/{day}.parquet").unlink()
    run = watch(weeks, MARCH)
    assert run.success
    assert drift_in(weeks, MARCH).clusters == 3
    assert drift_in(weeks, MARCH).largest_score_psi > 0
    for found in evaluations_of(run).values():
        assert found.passed
        assert str(found.description).startswith("Not evaluated: predictions are stored of ")


def test_the_version_with_the_most_predictions_is_evaluated_and_all_are_reported(weeks: Settings) -> None:
    connect(weeks.tracking_uri).set_registered_model_alias(MODEL_NAME, "production", "1")
    score(weeks, FIRST_DAYS[0], FIRST_DAYS[8])
    assert watch(weeks, MARCH).success
    drift = drift_in(weeks, MARCH)
    assert (drift.version, drift.clusters) == (2, MIN_DAYS - 9)
    assert set(drift.rows_by_version) == {"1", "2"}
    assert drift.rows == drift.rows_by_version["2"] > drift.rows_by_version["1"]
    assert drift.first_training_partition == "2013-02-01"


def test_flights_without_outcome_are_compared_by_their_predictions_only(weeks: Settings) -> None:
    for day in FIRST_DAYS:
        rewrite(weeks, day, with_column(LABEL, None))
    run = watch(weeks, MARCH)
    assert run.success
    drift = drift_in(weeks, MARCH)
    assert (drift.clusters_with_outcome, drift.rows_with_outcome) == (0, 0)
    assert (drift.observed, drift.predicted, drift.metrics) == ({}, {}, {})
    found = evaluations_of(run)[CALIBRATED_ON_OUTCOMES]
    assert found.passed
    assert str(found.description).startswith("Not evaluated: outcomes are known of 0 rows in 0 clusters")
    metadata = run.asset_materializations_for_node("drift_flight_delay")[0].metadata
    assert "calibration_plot" not in metadata
    assert "brier" not in metadata


def test_days_that_were_written_again_since_the_training_are_reported(weeks: Settings) -> None:
    rewrite(weeks, "2013-02-05", with_column("dest", "XXX"))
    metadata = watch(weeks, MARCH).asset_materializations_for_node("drift_flight_delay")[0].metadata
    assert metadata["training_data"].value == "has changed since"


def test_a_version_without_a_digest_is_compared_all_the_same(weeks: Settings) -> None:
    connect(weeks.tracking_uri).delete_model_version_tag(MODEL_NAME, "2", TRAINING_DATA_TAG)
    metadata = watch(weeks, MARCH).asset_materializations_for_node("drift_flight_delay")[0].metadata
    assert metadata["training_data"].value == "not recorded"


# Comparisons that are impossible


def test_without_predictions_the_asset_to_materialise_is_named(scored: Settings, tmp_path: Path) -> None:
    settings = copy_of(scored, tmp_path / "unscored")
    for asset in ("delay_predictions", "drift_flight_delay"):
        shutil.rmtree(Path(settings.data, asset), ignore_errors=True)
    message = failure_of(settings, MARCH)
    assert "delay_predictions has no stored partition of 2013-03-01. Materialise delay_predictions" in message
    assert not open_records(settings.data).path_of(DRIFT_ASSET, MARCH).exists()


def test_a_month_is_not_evaluated_by_predictions_of_another(weeks: Settings) -> None:
    assert "delay_predictions has no stored partition of 2013-04-01" in failure_of(weeks, "2013-04-01")


def test_the_error_of_a_version_registered_by_hand_names_the_tag_to_set(weeks: Settings) -> None:
    connect(weeks.tracking_uri).delete_model_version_tag(MODEL_NAME, "2", TRAINED_ON_TAG)
    message = failure_of(weeks, MARCH)
    assert "flight_delay version 2 does not record which partitions it was trained on" in message
    assert "Set its tag trained_on" in message


def test_a_tag_that_is_not_a_list_of_partitions_is_quoted(weeks: Settings) -> None:
    connect(weeks.tracking_uri).set_model_version_tag(MODEL_NAME, "2", TRAINED_ON_TAG, "February")
    assert "is 'February', which is not a list of partitions" in failure_of(weeks, MARCH)


def test_a_version_that_was_deleted_is_named(weeks: Settings) -> None:
    connect(weeks.tracking_uri).delete_model_version(MODEL_NAME, "2")
    assert "flight_delay has no version 2" in failure_of(weeks, MARCH)


def test_missing_training_days_are_named(weeks: Settings) -> None:
    Path(weeks.data, "features/2013-02-05.parquet").unlink()
    message = failure_of(weeks, MARCH)
    assert "flight_delay version 2 was trained on 28 partitions of features" in message
    assert "the first is 2013-02-05" in message
    assert "Materialise features for them" in message


def test_scored_flights_that_features_no_longer_have_are_counted(weeks: Settings) -> None:
    rewrite(weeks, FIRST_DAYS[0], lambda table: table.slice(3))
    message = failure_of(weeks, MARCH)
    assert "3 of 19," in message
    assert "predictions of delay_predictions of 2013-03-01 have no row in features any more" in message
    assert "Materialise delay_predictions again" in message


# Checks


def test_a_feature_that_has_changed_is_a_warning_that_names_it(weeks: Settings) -> None:
    for day in FIRST_DAYS:
        rewrite(weeks, day, with_column("dest", "XXX"))
    found = evaluations_of(watch(weeks, MARCH))[FEATURES_STABLE]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert str(found.description).startswith("PSI above 0.2: dest ")


def test_missing_weather_is_named_by_its_gaps(weeks: Settings) -> None:
    for day in FIRST_DAYS:
        rewrite(weeks, day, with_column("temp", None))
    found = evaluations_of(watch(weeks, MARCH))[FEATURES_STABLE]
    assert not found.passed
    assert "gaps of temp" in str(found.description)


@pytest.fixture
def stable(march: PredictionsDrift) -> PredictionsDrift:
    """A month like the training rows, except for its weather."""
    return replace(
        march,
        feature_psi=dict.fromkeys(SCHEDULE_FEATURES, 0.01) | dict.fromkeys(WEATHER_FEATURES, 5.0),
        gaps_psi=dict.fromkeys(REPORTED_WEATHER, 0.0),
        score_psi={"probability": 0.05},
        metrics={"calibration_error": 0.02},
    )


def failing(drift: PredictionsDrift) -> set[str]:
    return {name for name, finding in evaluate(FLIGHT_DELAY, WATCH, drift).items() if not finding.passed}


def test_other_weather_alone_fails_no_check(stable: PredictionsDrift) -> None:
    assert failing(stable) == set()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"score_psi": {"probability": 0.26}}, SCORES_STABLE),
        ({"metrics": {"calibration_error": 0.11}}, CALIBRATED_ON_OUTCOMES),
        ({"feature_psi": dict.fromkeys(FEATURES, 0.0) | {"carrier": 0.3}}, FEATURES_STABLE),
        ({"gaps_psi": dict.fromkeys(REPORTED_WEATHER, 0.0) | {"temp": 2.0}}, FEATURES_STABLE),
    ],
)
def test_each_check_has_its_own_reason_to_fail(
    change: dict[str, object], check: str, stable: PredictionsDrift
) -> None:
    changed = PredictionsDrift(**{**vars(stable), **change})
    assert failing(changed) == {check}
    assert failing(replace(changed, clusters=MIN_DAYS)) == {check}
    assert failing(replace(changed, clusters=MIN_DAYS - 1)) == set()


def test_outcomes_of_a_few_days_are_not_evaluated(stable: PredictionsDrift) -> None:
    wrong = replace(stable, metrics={"calibration_error": 0.4})
    assert failing(wrong) == {CALIBRATED_ON_OUTCOMES}
    assert failing(replace(wrong, clusters_with_outcome=MIN_DAYS - 1)) == set()


def test_scores_and_calibration_are_errors_and_no_check_blocks(march_run: dg.ExecuteInProcessResult) -> None:
    severities = {name: found.severity.value for name, found in evaluations_of(march_run).items()}
    assert severities == {SCORES_STABLE: "ERROR", FEATURES_STABLE: "WARN", CALIBRATED_ON_OUTCOMES: "ERROR"}
    assert [spec.name for spec in CHECKS.check_specs if spec.blocking or not spec.description] == []


def test_an_evaluation_names_its_month_and_version(march_run: dg.ExecuteInProcessResult) -> None:
    for found in evaluations_of(march_run).values():
        assert found.metadata["partition"].value == MARCH
        assert found.metadata["version"].value == 2


def evaluated_alone(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*UPSTREAM, DRIFT, CHECKS],
        selection=dg.AssetSelection.checks(dg.AssetCheckKey(DRIFT_ASSET, SCORES_STABLE)),
        resources=resources_for(settings),
        instance=instance,
        raise_on_error=False,
    )


def test_a_check_executed_alone_evaluates_the_last_month(scored: Settings, march: PredictionsDrift) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for month in (MARCH, FEBRUARY):
            instance.report_runless_asset_event(dg.AssetMaterialization(DRIFT_ASSET, partition=month))
        (found,) = evaluated_alone(scored, instance).get_asset_check_evaluations()
    assert (found.check_name, found.metadata["partition"].value) == (SCORES_STABLE, MARCH)


def test_a_check_executed_alone_before_there_is_any_month_names_the_job(scored: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        failure = evaluated_alone(scored, instance).failure_data_for_node("drift_flight_delay_checks")
    assert failure is not None
    assert "Run the job watch_flight_delay first." in str(failure.error)
