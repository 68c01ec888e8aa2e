"""Tests which partitions need no second run, after real runs on the library's storage and on others."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ledgerline.cli.job_partitions import missing
from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.dagster.storage.io_managers import TableStorage, open_tables
from ledgerline.settings.project import Project

DAYS = dg.DailyPartitionsDefinition(start_date="2023-01-01", end_date="2023-02-01")
WEEK = [f"2023-01-0{number}" for number in range(1, 8)]
COLUMNS = dg.TableSchema([dg.TableColumn("day", "string"), dg.TableColumn("loaves", "int64")])


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"dagster/column_schema": COLUMNS, "partition_expr": "day"},
)
def sales(context: dg.AssetExecutionContext) -> pd.DataFrame:
    if context.run.tags.get("closed"):
        raise dg.Failure("closed")
    return pd.DataFrame({"day": context.partition_keys, "loaves": [1] * len(context.partition_keys)})


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def letters() -> None: ...


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedProject:
    defs = dg.Definitions(
        assets=[sales, letters],
        jobs=[
            dg.define_asset_job("count", selection=["sales"]),
            dg.define_asset_job("write", selection=["letters"]),
        ],
        resources={"tables": TableStorage(base=str(tmp_path / "data"))},
        executor=dg.in_process_executor,
    )
    return LoadedProject(Project(tmp_path, "bakery"), defs)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(
    instance: dg.DagsterInstance, loaded: LoadedProject, *days: str, job: str = "count", **tags: str
) -> bool:
    """Run a job for a day, or from the first to the last; returns whether it succeeded."""
    span = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    partition = {"dagster/partition": days[0]} if len(days) == 1 else span
    return (
        loaded.job(job)
        .execute_in_process(instance=instance, tags=partition | tags, raise_on_error=False)
        .success
    )


def test_at_first_every_partition_is_missing(instance: dg.DagsterInstance, loaded: LoadedProject) -> None:
    assert missing(instance, loaded, "count", WEEK) == WEEK


def test_a_run_over_a_range_and_one_over_a_single_partition_add_theirs(
    instance: dg.DagsterInstance, loaded: LoadedProject
) -> None:
    assert run(instance, loaded, "2023-01-01", "2023-01-05")
    assert missing(instance, loaded, "count", WEEK) == ["2023-01-06", "2023-01-07"]
    assert run(instance, loaded, "2023-01-07")
    assert missing(instance, loaded, "count", WEEK) == ["2023-01-06"]


def test_partitions_lost_from_the_librarys_storage_are_missing(
    instance: dg.DagsterInstance, loaded: LoadedProject, tmp_path: Path
) -> None:
    assert run(instance, loaded, *WEEK)
    for day in ("2023-01-02", "2023-01-05"):
        open_tables(str(tmp_path / "data")).path_of(dg.AssetKey("sales"), day).unlink()
    assert missing(instance, loaded, "count", WEEK) == ["2023-01-02", "2023-01-05"]


def test_materialised_partitions_of_another_storage_exist(
    instance: dg.DagsterInstance, loaded: LoadedProject
) -> None:
    assert run(instance, loaded, *WEEK[:3], job="write")
    assert missing(instance, loaded, "write", WEEK) == WEEK[3:]


def test_partitions_whose_last_run_failed_are_missing_although_they_are_stored(
    instance: dg.DagsterInstance, loaded: LoadedProject
) -> None:
    assert run(instance, loaded, *WEEK)
    assert not run(instance, loaded, "2023-01-03", "2023-01-04", closed="yes")
    assert missing(instance, loaded, "count", WEEK) == ["2023-01-03", "2023-01-04"]
    assert run(instance, loaded, "2023-01-03", "2023-01-04")
    assert missing(instance, loaded, "count", WEEK) == []


def test_a_run_over_removed_partitions_prints_nothing(
    instance: dg.DagsterInstance, loaded: LoadedProject
) -> None:
    assert run(instance, loaded, *WEEK)
    instance.create_run_for_job(
        loaded.job("count"),
        status=dg.DagsterRunStatus.FAILURE,
        tags={
            "dagster/asset_partition_range_start": "2022-01-01",
            "dagster/asset_partition_range_end": "2023-01-02",
        },
    )
    assert missing(instance, loaded, "count", WEEK) == []


def test_runs_without_partitions_print_nothing(instance: dg.DagsterInstance, loaded: LoadedProject) -> None:
    @dg.job(name="count")
    def namesake() -> None: ...

    assert namesake.execute_in_process(instance=instance).success
    assert missing(instance, loaded, "count", WEEK) == WEEK
