"""Tests retraining on drift where new partitions are added; those of the flights are complete."""

import dagster as dg
import pytest

from ledgerline.dagster.released_models.declaration import DeclarationError
from ledgerline.dagster.released_models.predictions_drift import PARTITION_METADATA
from ledgerline.dagster.released_models.retraining_sensor import retraining_sensor
from ledgerline.dagster.released_models.watch import SCORES_STABLE, RetrainOnDrift, Watch
from tests.released_models.declared import declared

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01")
RETRAIN = RetrainOnDrift("train", needs=lambda partition: [])
PREDICTIONS = dg.AssetSpec("predictions", partitions_def=DAYS)
WATCH = Watch(predictions=PREDICTIONS, join=["id"], answers=["answer"], version="v", retrain=RETRAIN)
MODEL = declared(name="demand", partitions=DAYS, watch=WATCH)
SENSOR = retraining_sensor(MODEL, WATCH, RETRAIN)


@dg.job(partitions_def=DAYS)
def train() -> None: ...


def fail(instance: dg.DagsterInstance, partition: str) -> None:
    found = dg.AssetCheckEvaluation(
        MODEL.names.drift, SCORES_STABLE, False, metadata={PARTITION_METADATA: partition}
    )
    instance.report_runless_asset_event(found)


def test_the_last_partition_waits_for_the_next_one_and_others_do_not() -> None:
    *_, before, last = DAYS.get_partition_keys()
    repository = dg.Definitions(jobs=[train], sensors=[SENSOR]).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        fail(instance, last)
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            waiting = SENSOR.evaluate_tick(context)
        assert str(waiting.skip_message).endswith("waits until the partition begins.")
        assert waiting.cursor == "0"
        fail(instance, before)
        with dg.build_sensor_context(instance=instance, cursor="0", repository_def=repository) as context:
            asked = SENSOR.evaluate_tick(context)
        (request,) = asked.run_requests or []
        assert (request.partition_key, request.run_key) == (last, f"drift of {before}")
        # The failure of the last partition is read again.
        assert asked.cursor == "0"


def test_versions_without_partitions_of_time_cannot_be_made_for_the_next_one() -> None:
    cities = dg.StaticPartitionsDefinition(["Oslo", "Rome"])
    predictions = dg.AssetSpec("predictions", partitions_def=cities)
    watch = Watch(predictions=predictions, join=["id"], answers=["answer"], version="v", retrain=RETRAIN)
    with pytest.raises(
        DeclarationError, match=r"'demand': watch\.retrain: demand_version has no time partitions"
    ):
        declared(name="demand", partitions=cities, watch=watch)
