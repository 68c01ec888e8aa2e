"""Tests the sensor that requests a model when predictions have drifted: when, and only once."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import dagster as dg
import pytest

from assets.delay_model_version import FLIGHT_DELAY
from assets.delay_watch import WATCH
from assets.features import FEATURES
from assets.partitions import MONTHS, days_between
from ledgerline.dagster.released_models.drift_records import PredictionsDrift
from ledgerline.dagster.released_models.predictions_drift import PARTITION_METADATA, drift_checks
from ledgerline.dagster.released_models.retraining_sensor import NOTHING_FAILED, retraining_sensor
from ledgerline.dagster.released_models.watch import FEATURES_STABLE, SCORES_STABLE
from ledgerline.dagster.settings import Settings
from pipelines.definitions import defs
from resources.wiring import resources_for

DRIFT_ASSET, CALIBRATED_ON_OUTCOMES = FLIGHT_DELAY.names.drift, "calibrated_on_outcomes"
CHECKS = drift_checks(FLIGHT_DELAY, WATCH)
assert WATCH.retrain is not None
SENSOR = retraining_sensor(FLIGHT_DELAY, WATCH, WATCH.retrain)
MARCH, APRIL, MAY = "2013-03-01", "2013-04-01", "2013-05-01"


class Ticks:
    """An instance in which checks are evaluated, and the sensor's ticks over it."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None

    def evaluate(self, month: str, check: str = SCORES_STABLE, *, passed: bool = False) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(DRIFT_ASSET, check, passed, metadata={PARTITION_METADATA: month})
        )

    def report(self, asset: str, partition: str) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))

    def ingest(self, first: str, last: str) -> None:
        for day in days_between(date.fromisoformat(first), date.fromisoformat(last)):
            self.report("features", day)

    def tick(self, *, killed: bool = False) -> dg.RunRequest | str:
        """Evaluate one tick as the daemon does: return the requested run, or the reason for none."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=defs.get_repository_def()
        )
        with context:
            data = SENSOR.evaluate_tick(context)
        if not killed:
            self.cursor = data.cursor
        if data.skip_message is not None:
            assert not data.run_requests
            return data.skip_message
        (request,) = data.run_requests or []
        return request

    def asked_for(self) -> str | None:
        request = self.tick()
        return request.partition_key if isinstance(request, dg.RunRequest) else None


@pytest.fixture
def empty() -> Iterator[Ticks]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Ticks(instance)


@pytest.fixture
def ticks(empty: Ticks) -> Ticks:
    """Features from January to May are there."""
    empty.ingest("2013-01-01", "2013-05-31")
    return empty


def test_it_is_off_until_it_is_switched_on_and_has_a_description() -> None:
    (found,) = [sensor for sensor in defs.sensors or [] if sensor.name.startswith("retrain_on_drift")]
    assert (found.name, found.job_name) == ("retrain_on_drift_flight_delay", "train_delay_model")
    assert SENSOR.default_status is dg.DefaultSensorStatus.STOPPED
    assert "The sensor is off by default" in str(SENSOR.description)


@pytest.mark.parametrize("check", [SCORES_STABLE, CALIBRATED_ON_OUTCOMES])
def test_a_failed_check_requests_the_model_of_the_month_after_once(check: str, ticks: Ticks) -> None:
    ticks.evaluate(MARCH, check)
    request = ticks.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == APRIL
    assert request.run_key == "drift of 2013-03-01"
    assert request.tags["drifted_partition"] == MARCH
    assert request.tags["failed_checks"] == check
    assert [ticks.tick() for _ in range(2)] == [NOTHING_FAILED] * 2


def test_both_checks_of_a_month_are_one_request(ticks: Ticks) -> None:
    ticks.evaluate(MARCH, SCORES_STABLE)
    ticks.evaluate(MARCH, CALIBRATED_ON_OUTCOMES)
    request = ticks.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.tags["failed_checks"] == "calibrated_on_outcomes, scores_stable"


def test_the_next_month_that_fails_requests_another_model(ticks: Ticks) -> None:
    ticks.evaluate(MARCH)
    first = ticks.tick()
    ticks.evaluate(APRIL)
    second = ticks.tick()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert (first.partition_key, second.partition_key) == (APRIL, MAY)
    assert first.run_key != second.run_key


def test_the_last_of_several_failed_months_is_requested(ticks: Ticks) -> None:
    ticks.evaluate(APRIL)
    ticks.evaluate(MARCH)
    assert [ticks.asked_for() for _ in range(2)] == [MAY, None]


def test_a_daemon_killed_before_it_stores_the_cursor_requests_the_same_key(ticks: Ticks) -> None:
    ticks.evaluate(MARCH)
    killed, again = ticks.tick(killed=True), ticks.tick()
    assert isinstance(killed, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert killed.run_key == again.run_key  # of which Dagster starts one run
    assert ticks.asked_for() is None


def test_a_month_that_fails_again_requests_the_same_key(ticks: Ticks) -> None:
    ticks.evaluate(MARCH)
    first = ticks.tick()
    ticks.evaluate(MARCH)
    second = ticks.tick()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key == second.run_key


def test_passed_checks_request_nothing(ticks: Ticks) -> None:
    ticks.evaluate(MARCH, passed=True)
    assert ticks.tick() == NOTHING_FAILED


def test_a_month_that_was_evaluated_again_and_passed_requests_nothing(ticks: Ticks) -> None:
    ticks.evaluate(MARCH)
    ticks.evaluate(MARCH, passed=True)
    assert ticks.asked_for() is None


def test_changed_features_alone_request_nothing(ticks: Ticks) -> None:
    ticks.evaluate(MARCH, FEATURES_STABLE)
    assert ticks.asked_for() is None


def test_an_evaluation_that_names_no_month_is_passed_over(ticks: Ticks) -> None:
    ticks.instance.report_runless_asset_event(dg.AssetCheckEvaluation(DRIFT_ASSET, SCORES_STABLE, False))
    assert ticks.asked_for() is None


def test_no_evaluations_request_nothing(empty: Ticks) -> None:
    assert empty.tick() == NOTHING_FAILED
    assert empty.cursor == "0"


def test_after_december_there_is_no_model_to_request(ticks: Ticks) -> None:
    ticks.evaluate("2013-12-01")
    assert ticks.tick() == (
        "2013-12-01 has drifted, and no version can learn from it: delay_model_version has no later "
        "partition."
    )
    assert ticks.tick() == NOTHING_FAILED


def test_december_does_not_hide_a_month_that_has_a_next_one(ticks: Ticks) -> None:
    ticks.evaluate(MARCH)
    ticks.evaluate("2013-12-01")
    assert ticks.asked_for() == APRIL


@pytest.mark.parametrize("trained", [APRIL, MAY])
def test_an_existing_model_is_not_requested(trained: str, ticks: Ticks) -> None:
    ticks.report("delay_model_version", trained)
    ticks.evaluate(MARCH)
    assert ticks.tick() == f"2013-03-01 has drifted, and a version of {trained} exists already."
    assert ticks.tick() == NOTHING_FAILED


def test_an_older_model_does_not_prevent_a_request(ticks: Ticks) -> None:
    ticks.report("delay_model_version", MARCH)
    ticks.evaluate(MARCH)
    assert ticks.asked_for() == APRIL


def test_it_waits_for_the_days_that_the_model_needs(empty: Ticks) -> None:
    empty.ingest("2013-01-01", "2013-04-29")
    empty.evaluate(MARCH)
    waiting = (
        "2013-03-01 has drifted. The version of 2013-04-01 waits for 1 partitions of features; the first is "
        "2013-04-30."
    )
    assert [empty.tick() for _ in range(2)] == [waiting] * 2
    empty.report("features", "2013-04-30")
    assert [empty.asked_for() for _ in range(2)] == [APRIL, None]


def test_more_evaluations_than_one_page_are_all_read(ticks: Ticks) -> None:
    ticks.evaluate(MARCH)
    for _ in range(210):
        ticks.evaluate("2013-02-01", passed=True)
    assert [ticks.asked_for() for _ in range(2)] == [APRIL, None]


def drift_of(month: str, score_psi: float) -> PredictionsDrift:
    """A month in which nothing has changed, except for the result of its check."""
    stable = PredictionsDrift(
        partition=month,
        version=1,
        rows=20_000,
        clusters=28,
        rows_by_version={"1": 20_000},
        first_training_partition="2013-01-01",
        last_training_partition="2013-01-31",
        training_rows=20_000,
        training_data="as recorded",
        feature_psi=dict.fromkeys(FEATURES, 0.01),
        gaps_psi=dict.fromkeys(WATCH.gaps, 0.0),
        score_psi={"probability": 0.01},
        mean_training_score={"probability": 0.2},
        mean_score={"probability": 0.2},
        rows_with_outcome=20_000,
        clusters_with_outcome=28,
        predicted={"probability": 0.2},
        observed={"probability": 0.2},
        metrics={"calibration_error": 0.01, "brier": 0.1},
    )
    return replace(stable, score_psi={"probability": score_psi})


def test_a_check_is_read_when_its_run_has_ended_also_after_others(
    tmp_path_factory: pytest.TempPathFactory, ticks: Ticks
) -> None:
    """An evaluation has its place in the history from when its run began."""
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path_factory.mktemp("retraining"))})
    during: list[str | None] = []

    @dg.asset(partitions_def=MONTHS, io_manager_key="records", name=DRIFT_ASSET.to_user_string())
    def drifted(context: dg.AssetExecutionContext) -> PredictionsDrift:
        # Another month is evaluated during this run, and a tick is evaluated.
        ticks.evaluate("2013-02-01", passed=True)
        during.append(ticks.asked_for())
        return drift_of(context.partition_key, score_psi=3.0)

    checks = dg.AssetSelection.checks(
        *(dg.AssetCheckKey(DRIFT_ASSET, name) for name in (SCORES_STABLE, CALIBRATED_ON_OUTCOMES))
    )
    dg.materialize(
        [drifted, CHECKS],
        selection=dg.AssetSelection.assets(DRIFT_ASSET).without_checks() | checks,
        resources=resources_for(settings),
        instance=ticks.instance,
        partition_key=MARCH,
    )
    assert during == [None]
    request = ticks.tick()
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.tags["failed_checks"]) == (APRIL, SCORES_STABLE)
    assert ticks.asked_for() is None


def test_a_run_that_ends_before_its_checks_does_not_delay_others(ticks: Ticks) -> None:
    @dg.asset(partitions_def=MONTHS, name=DRIFT_ASSET.to_user_string())
    def broken() -> None:
        raise dg.Failure("before any check")

    run = dg.materialize(
        [broken, CHECKS],
        resources={"records": dg.mem_io_manager},
        instance=ticks.instance,
        partition_key=MARCH,
        raise_on_error=False,
    )
    assert not run.success
    assert ticks.asked_for() is None
    before = ticks.cursor
    ticks.evaluate(MARCH)
    assert ticks.asked_for() == APRIL
    assert int(ticks.cursor or 0) > int(before or 0) > 0
