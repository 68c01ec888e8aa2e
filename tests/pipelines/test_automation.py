"""Tests automation conditions, evaluated tick by tick: what is requested, and what is not."""

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg
import pytest

from pipelines.definitions import defs

MONTH = "2013-07-01"
EVALUATION = dg.AssetKey("delay_model_evaluation")
REFERENCE_TABLES = ("airlines", "airports", "planes", "weather")


class Ticks:
    """An instance in which assets are reported as materialised, and the sensor's ticks over it."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._cursor = None

    def report(self, asset: str, partition: str | None = None) -> None:
        materialisation = dg.AssetMaterialization(asset, partition=partition)
        self._instance.report_runless_asset_event(materialisation)

    def requested(self, asset: dg.AssetKey) -> int:
        result = dg.evaluate_automation_conditions(defs=defs, instance=self._instance, cursor=self._cursor)
        self._cursor = result.cursor
        return result.get_num_requested(asset)


@pytest.fixture
def ticks() -> Iterator[Ticks]:
    """Ticks over an instance that has the reference tables, and features from May to July."""
    with dg.DagsterInstance.ephemeral() as instance:
        ticks = Ticks(instance)
        for table in REFERENCE_TABLES:
            ticks.report(table)
        for number in range((date(2013, 7, 31) - date(2013, 5, 1)).days + 1):
            ticks.report("features", (date(2013, 5, 1) + timedelta(days=number)).isoformat())
        assert ticks.requested(EVALUATION) == 0
        yield ticks


def test_a_model_that_is_trained_by_itself_gets_evaluated_once(ticks: Ticks) -> None:
    ticks.report("delay_model", MONTH)
    assert [ticks.requested(EVALUATION) for _ in range(3)] == [1, 0, 0]


def test_a_model_that_its_job_has_evaluated_is_not_evaluated_again(ticks: Ticks) -> None:
    ticks.report("delay_model", MONTH)
    ticks.report("delay_model_evaluation", MONTH)
    assert ticks.requested(EVALUATION) == 0


def test_a_model_is_evaluated_again_on_days_that_have_changed(ticks: Ticks) -> None:
    ticks.report("delay_model", MONTH)
    ticks.report("delay_model_evaluation", MONTH)
    assert ticks.requested(EVALUATION) == 0
    ticks.report("features", "2013-07-03")
    assert ticks.requested(EVALUATION) == 1


def test_a_month_without_a_model_is_not_evaluated(ticks: Ticks) -> None:
    ticks.report("features", "2013-06-03")
    assert ticks.requested(EVALUATION) == 0
