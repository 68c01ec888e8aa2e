"""Tests the rows that two versions are compared on: never training rows of either."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.evaluation_rows import keys_to_evaluate_on, partitions_of
from ledgerline.dagster.released_models.holdout import Holdout, HoldoutError
from ledgerline.registry.provenance import RowPartitions
from ledgerline.registry.versions import Version
from tests.released_models.declared import DAYS, declared


def version(number: int, **tags: str) -> Version:
    return Version("demand", number, "", "", datetime(2026, 1, 1, tzinfo=UTC), tags)


MODEL = declared(name="demand")
PARTITIONS = RowPartitions(DAYS.get_partition_keys())
JULY = version(8, partition="2013-07-01", trained_on='[["2013-04-01", "2013-06-30"]]')
MAY = version(6, month="2013-05-01", training_days="2013-02-01/2013-04-30")


def keys_for(staging: Version, production: Version | None, partition: str | None = None) -> list[str]:
    return keys_to_evaluate_on(MODEL, PARTITIONS, staging, production, partition)


def test_two_versions_are_compared_on_the_evaluation_rows_of_staging() -> None:
    assert keys_for(JULY, MAY) == ["2013-07-01"]


def test_a_version_that_records_its_own_partitions_goes_by_these() -> None:
    recorded = version(
        8, trained_on='[["2013-04-01", "2013-06-30"]]', evaluated_on='[["2013-08-01", "2013-08-03"]]'
    )
    assert keys_for(recorded, None) == ["2013-08-01", "2013-08-02", "2013-08-03"]


def test_another_partition_may_be_named() -> None:
    assert keys_for(JULY, MAY, "2013-08-05") == ["2013-08-05"]


def test_a_version_in_production_may_not_have_been_trained_on_the_rows_either() -> None:
    with pytest.raises(PermanentFailure) as refused:
        keys_for(MAY, JULY)
    assert str(refused.value) == (
        "demand version 8 was trained on 1 of the 1 partitions 2013-05-01 (the first is 2013-05-01), so it "
        "would be compared on rows that it has learned from. Compare on partitions that are new to both "
        "versions, or train a model for later ones."
    )


def test_a_version_needs_a_partition_for_its_evaluation_unless_one_is_named() -> None:
    by_hand = version(3, training_days="2013-04-01/2013-06-30")
    with pytest.raises(PermanentFailure, match="does not record which partitions it is evaluated on"):
        keys_for(by_hand, None)
    assert keys_for(by_hand, None, "2013-07-01") == ["2013-07-01"]


def test_a_partition_that_there_is_not_is_named() -> None:
    with pytest.raises(
        PermanentFailure, match="'July' stands for the partition 'July' of rows, which has those"
    ):
        keys_for(JULY, MAY, "July")


def test_rows_without_partitions_need_versions_of_the_same_holdout() -> None:
    holdout = Holdout(0.2, ["day"])
    model = declared(name="demand", partitions=None, holdout=holdout)
    same = version(1, holdout=holdout.as_text())
    assert keys_to_evaluate_on(model, RowPartitions(), same, None, None) == []
    other = version(2, holdout=Holdout(0.3, ["day"]).as_text())
    with pytest.raises(PermanentFailure, match=r'demand version 2 records the holdout .*"share": 0.3'):
        keys_to_evaluate_on(model, RowPartitions(), same, other, None)
    with pytest.raises(PermanentFailure, match="have no partitions, and '2013-07-01' was named"):
        keys_to_evaluate_on(model, RowPartitions(), same, None, "2013-07-01")
    with pytest.raises(PermanentFailure, match="demand version 3 records no holdout"):
        keys_to_evaluate_on(model, RowPartitions(), version(3), None, None)


@given(st.lists(st.integers(0, 10**6), min_size=50, unique=True), st.floats(0.05, 0.95))
def test_the_same_rows_are_held_out_when_others_are_added(numbers: list[int], share: float) -> None:
    holdout = Holdout(share, ["id"])
    few, all_rows = pd.DataFrame({"id": numbers[:25]}), pd.DataFrame({"id": numbers})
    assert holdout.is_held_out(few).tolist() == holdout.is_held_out(all_rows)[:25].tolist()
    as_text = all_rows.assign(id=all_rows["id"].astype(str))
    assert holdout.is_held_out(as_text).tolist() == holdout.is_held_out(all_rows).tolist()


def test_about_the_share_is_held_out_and_clusters_stay_together() -> None:
    rows = pd.DataFrame({"customer": [number // 3 for number in range(30_000)]})
    held = Holdout(0.2, ["customer"]).is_held_out(rows)
    assert held.mean() == pytest.approx(0.2, abs=0.02)
    assert held.groupby(rows["customer"]).nunique().max() == 1
    other = Holdout(0.2, ["customer"], salt="again").is_held_out(rows)
    assert other.mean() == pytest.approx(0.2, abs=0.02)
    assert (other != held).any()


def test_partitions_are_those_of_the_rows_as_they_are_now() -> None:
    dynamic = dg.DynamicPartitionsDefinition(name="cities")
    model = declared(name="demand", partitions=dynamic)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("cities", ["Oslo", "Rome"])
        assert partitions_of(model, instance) == RowPartitions(["Oslo", "Rome"], grow_at_the_end=False)
        assert partitions_of(MODEL, instance).grow_at_the_end


@pytest.mark.parametrize(
    ("share", "by", "problem"),
    [
        (0.0, ["id"], "share of a holdout is 0"),
        (1.0, ["id"], "share of a holdout is 1"),
        (0.2, [], "`by` of a holdout is"),
        (0.2, "id", "`by` of a holdout is 'id'"),
    ],
)
def test_a_holdout_that_holds_nothing_or_everything_is_refused(
    share: float, by: list[str], problem: str
) -> None:
    with pytest.raises(HoldoutError, match=problem):
        Holdout(share, by)
