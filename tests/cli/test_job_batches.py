"""Tests the division of partitions into runs by the backfill policies of assets."""

import pytest

from ledgerline.cli.backfills import Given, planned
from ledgerline.cli.job_batches import RANGE_END, RANGE_START, batches, spanning
from ledgerline.errors import LedgerlineError
from tests.cli.bakeries import bakery


def runs_of(job: str, *keys: str) -> list[tuple[str, ...]]:
    return [batch.keys for batch in batches(bakery().job(job), keys)]


def test_a_single_run_policy_makes_a_range_one_run_with_dagsters_tags() -> None:
    (batch,) = batches(bakery().job("make_orders"), ["2023-01-03", "2023-01-01", "2023-01-02"])
    assert batch.keys == ("2023-01-01", "2023-01-02", "2023-01-03")
    assert (batch.tags[RANGE_START], batch.tags[RANGE_END]) == ("2023-01-01", "2023-01-03")
    assert "dagster/partition" not in batch.tags
    assert str(batch) == "2023-01-01 to 2023-01-03"


def test_a_gap_divides_a_run() -> None:
    assert runs_of("make_orders", "2023-01-01", "2023-01-02", "2023-01-05") == [
        ("2023-01-01", "2023-01-02"),
        ("2023-01-05",),
    ]


def test_without_a_policy_each_partition_has_a_run() -> None:
    assert runs_of("make_demand", "2023-03-01", "2023-02-01") == [("2023-02-01",), ("2023-03-01",)]
    (batch,) = batches(bakery().job("make_demand"), ["2023-02-01"])
    assert batch.tags["dagster/partition"] == "2023-02-01"
    assert RANGE_START not in batch.tags


def test_assets_with_differing_policies_go_by_the_strictest() -> None:
    assert runs_of("bake", "2023-01-01", "2023-01-02") == [("2023-01-01",), ("2023-01-02",)]


def test_a_policy_of_several_runs_limits_the_partitions_of_each() -> None:
    week = [f"2023-01-{day:02}" for day in range(9, 14)]
    assert runs_of("make_deliveries", *week) == [tuple(week[:3]), tuple(week[3:])]
    # No partition begins at the weekend: the partitions before and after it are one range.
    assert runs_of("make_deliveries", "2023-01-13", "2023-01-16") == [("2023-01-13", "2023-01-16")]


def test_names_are_a_range_in_the_order_of_their_definition() -> None:
    assert runs_of("make_stock", "east", "south") == [("south", "east")]
    assert runs_of("make_stock", "east", "north") == [("north",), ("east",)]


def test_a_block_of_two_dimensions_is_one_run_and_anything_else_several() -> None:
    block = ["2023-01-01|north", "2023-01-01|south", "2023-01-02|north", "2023-01-02|south"]
    (batch,) = batches(bakery().job("make_loaves"), block)
    assert batch.keys == tuple(block)
    assert (batch.tags[RANGE_START], batch.tags[RANGE_END]) == (block[0], block[-1])
    assert not [name for name in batch.tags if name.startswith("dagster/partition/")]
    found = runs_of("make_loaves", "2023-01-01|north", "2023-01-02|south")
    assert sorted(found) == [("2023-01-01|north",), ("2023-01-02|south",)]


def test_a_partition_of_two_dimensions_is_tagged_with_each() -> None:
    (batch,) = batches(bakery().job("make_loaves"), ["2023-01-02|east"])
    assert batch.tags["dagster/partition"] == "2023-01-02|east"
    assert batch.tags["dagster/partition/date"] == "2023-01-02"
    assert batch.tags["dagster/partition/shop"] == "east"


def test_several_runs_over_two_dimensions_are_blocks_too() -> None:
    days = ["2023-01-01|north", "2023-01-02|north", "2023-01-03|north"]
    assert runs_of("make_crumbs", *days) == [tuple(days[:2]), tuple(days[2:])]


def test_a_job_of_ops_with_partitions_has_a_run_for_each_with_its_own_config() -> None:
    assert runs_of("clean_up", "2023-01-02", "2023-01-01") == [("2023-01-01",), ("2023-01-02",)]


def test_a_range_includes_the_partitions_in_between() -> None:
    found = spanning(bakery().job("make_orders"), ["2023-01-01", "2023-01-04"])
    assert [str(batch) for batch in found] == ["2023-01-01 to 2023-01-04"]


@pytest.mark.parametrize(
    ("job", "given", "message"),
    [
        ("make_menu", Given(["north"]), "make_menu has no partitions. Run it without naming a partition."),
        (
            "make_stock",
            Given(),
            (
                "make_stock has partitions (north, south, east), and no partition is given. Give one with "
                "--partition, or a range with "
                "--from and --to."
            ),
        ),
        (
            "make_stock",
            Given(["north"], first="south"),
            "--partition cannot be combined with --from and --to. Give single partitions, or a range.",
        ),
        ("make_stock", Given(last="south"), "--to works only with --from. Add --from, or omit --to."),
    ],
)
def test_partitions_that_do_not_fit_the_job_are_refused(job: str, given: Given, message: str) -> None:
    with pytest.raises(LedgerlineError) as caught:
        planned(bakery().job(job), given)
    assert str(caught.value) == message


def test_a_job_without_partitions_is_one_run() -> None:
    assert [batch.keys for batch in planned(bakery().job("make_menu"), Given())] == [()]
