"""Tests for which partitions `ledgerline run` runs the jobs that a project names."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.cli.loaded_project import LoadedProject, UnknownJobError
from ledgerline.cli.partition_keys import PartitionError
from ledgerline.cli.run_plan import PlannedJob, plan
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.settings.project import Project

DAYS = dg.DailyPartitionsDefinition(start_date="2023-01-01", end_date="2023-07-01")
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2023-02-01", end_date="2023-07-01")
SHOPS = dg.StaticPartitionsDefinition(["north", "south"])
SINGLE = dg.BackfillPolicy.single_run()
MONTH_BEFORE = dg.TimeWindowPartitionMapping(
    start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
)
NAMES = ReleaseNames.of("bread", dg.AssetKey("version"))


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE)
def deliveries() -> None: ...


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE, deps=[deliveries])
def sales() -> None: ...


@dg.asset(partitions_def=MONTHS, deps=[dg.AssetDep(sales, partition_mapping=MONTH_BEFORE)])
def model() -> None: ...


@dg.asset(partitions_def=MONTHS, deps=[model, sales])
def version() -> None: ...


@dg.asset(deps=[version], metadata=NAMES.as_metadata())
def production_bread() -> None: ...


@dg.asset(
    partitions_def=DAYS,
    backfill_policy=SINGLE,
    deps=[sales, production_bread, dg.AssetDep(version, partition_mapping=dg.AllPartitionMapping())],
)
def plans() -> None: ...


@dg.asset(partitions_def=SHOPS)
def shelves() -> None: ...


@dg.asset
def menu() -> None: ...


@dg.asset(deps=[sales])
def yearly_model() -> None: ...


@dg.asset(partitions_def=SHOPS, deps=[dg.AssetDep(version, partition_mapping=dg.LastPartitionMapping())])
def labels() -> None: ...


ASSETS = [
    deliveries, sales, model, version, production_bread, plans, shelves, menu, yearly_model, labels,
]  # fmt: skip
JOBS = {
    "fetch": ["deliveries"],
    "count": ["sales"],
    "train": ["model", "version"],
    "release": ["production_bread"],
    "plan": ["plans"],
    "fill": ["shelves"],
    "print_menu": ["menu"],
    "train_yearly": ["yearly_model"],
    "print_labels": ["labels"],
}
LOADED = LoadedProject(
    Project(Path("/nowhere"), "bakery"),
    dg.Definitions(
        assets=ASSETS,
        jobs=[
            dg.define_asset_job(name, selection=dg.AssetSelection.assets(*keys))
            for name, keys in JOBS.items()
        ],
        executor=dg.in_process_executor,
    ),
)
APRIL = [f"2023-04-{day:02}" for day in range(1, 31)]
MAY = [f"2023-05-{day:02}" for day in range(1, 32)]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.partition_loading_context(dynamic_partitions_store=instance),
    ):
        yield instance


def planned(
    instance: dg.DagsterInstance, names: Sequence[str], asked: str | None = None, *, fresh: bool = False
) -> dict[str, PlannedJob]:
    return {job.name: job for job in plan(instance, LOADED, names, asked, fresh=fresh)}


def run(instance: dg.DagsterInstance, job: str, *keys: str) -> None:
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    assert LOADED.job(job).execute_in_process(instance=instance, tags=tags if keys else {}).success


def test_upstream_jobs_run_for_the_partitions_that_the_training_needs(
    instance: dg.DagsterInstance,
) -> None:
    found = planned(instance, ["fetch", "count", "train", "release", "plan"], "2023-05")
    assert list(found) == ["fetch", "count", "train", "release", "plan"]
    # The model is trained on the month before, and its version is evaluated on its month.
    for name in ("fetch", "count"):
        assert found[name].partitions == APRIL + MAY
        assert [str(batch) for batch in found[name].batches] == ["2023-04-01 to 2023-05-31"]
    assert [batch.keys for batch in found["train"].batches] == [("2023-05-01",)]
    assert [batch.keys for batch in found["release"].batches] == [()]


def test_downstream_jobs_run_for_the_last_downstream_partition(instance: dg.DagsterInstance) -> None:
    found = planned(instance, ["fetch", "count", "train", "release", "plan"], "2023-05")
    # The version allows any day. The days with sales, and within the month, are left.
    assert found["plan"].possible == MAY
    assert [batch.keys for batch in found["plan"].batches] == [("2023-05-31",)]


def test_existing_upstream_partitions_are_run_again_only_with_fresh(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, "count", "2023-04-01", "2023-05-31")
    found = planned(instance, ["count", "train"], "2023-05")
    assert (found["count"].partitions, found["count"].batches) == (APRIL + MAY, [])
    (batch,) = planned(instance, ["count", "train"], "2023-05", fresh=True)["count"].batches
    assert str(batch) == "2023-04-01 to 2023-05-31"


def test_missing_partitions_are_one_gapless_run_with_a_single_run_policy(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, "count", "2023-04-01", "2023-04-30")
    run(instance, "count", "2023-05-02", "2023-05-20")
    (batch,) = planned(instance, ["count", "train"], "2023-05")["count"].batches
    assert str(batch) == "2023-05-01 to 2023-05-31"


def test_upstream_partitions_that_do_not_exist_are_left_out_where_the_mapping_allows_it(
    instance: dg.DagsterInstance,
) -> None:
    found = planned(instance, ["count", "train"], "2023-02")
    assert (found["count"].partitions[0], found["count"].partitions[-1]) == ("2023-01-01", "2023-02-28")


def test_without_a_partition_it_is_the_last_of_the_job_that_trains(instance: dg.DagsterInstance) -> None:
    assert [batch.keys for batch in planned(instance, ["count", "train"])["train"].batches] == [
        ("2023-06-01",)
    ]


def test_without_a_model_the_partition_is_of_the_last_job_that_has_any(instance: dg.DagsterInstance) -> None:
    found = planned(instance, ["print_menu", "fetch", "count", "print_menu"], "2023-05-03")
    assert [batch.keys for batch in found["count"].batches] == [("2023-05-03",)]
    assert [batch.keys for batch in found["fetch"].batches] == [("2023-05-03",)]
    assert [batch.keys for batch in found["print_menu"].batches] == [()]


def test_an_unrelated_job_runs_for_the_same_partition_or_its_last(
    instance: dg.DagsterInstance,
) -> None:
    found = planned(instance, ["fill", "count", "train"], "2023-05")
    assert [batch.keys for batch in found["fill"].batches] == [("south",)]


def test_downstream_names_are_run_for_the_last(instance: dg.DagsterInstance) -> None:
    assert planned(instance, ["train", "print_labels"], "2023-06")["print_labels"].possible == [
        "north",
        "south",
    ]
    # A label is printed of the last month only, and none of May.
    found = planned(instance, ["train", "print_labels"], "2023-05")["print_labels"]
    assert (found.possible, [batch.keys for batch in found.batches]) == ((), [("south",)])


def test_an_unpartitioned_job_needs_all_partitions_before_it(instance: dg.DagsterInstance) -> None:
    found = planned(instance, ["fetch", "count", "train_yearly"])
    # The last with partitions is `count`: its last day, and what that needs.
    assert [batch.keys for batch in found["count"].batches] == [("2023-06-30",)]
    assert [batch.keys for batch in found["fetch"].batches] == [("2023-06-30",)]


def test_jobs_without_any_partitions_are_run_as_they_are(instance: dg.DagsterInstance) -> None:
    assert [batch.keys for batch in planned(instance, ["print_menu"])["print_menu"].batches] == [()]


def test_an_unknown_name_is_reported(instance: dg.DagsterInstance) -> None:
    with pytest.raises(
        UnknownJobError, match=r"There is no job 'trian'. Choose one of .* The nearest is train."
    ):
        planned(instance, ["count", "trian"])
    with pytest.raises(PartitionError, match="'2023-01' is not a partition of train"):
        planned(instance, ["count", "train"], "2023-01")
    with pytest.raises(
        PartitionError, match="There is no partition '2023-01', because no job has partitions"
    ):
        planned(instance, ["print_menu"], "2023-01")
