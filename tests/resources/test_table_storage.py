"""Tests tables as assets write and read them: partitions, metadata, data versions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.storage import digests
from ledgerline.dagster.storage.io_managers import TableStorage, open_tables

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
REQUIRED = dg.TableColumnConstraints(nullable=False)
SCHEMA = dg.TableSchema(
    [
        dg.TableColumn("date", "string", constraints=REQUIRED),
        dg.TableColumn("flight", "int16", constraints=REQUIRED),
        dg.TableColumn("late", "bool"),
    ]
)
LINEAGE = dg.TableColumnLineage({"late": [dg.TableColumnDep(dg.AssetKey("flights"), "arr_delay")]})

FLIGHTS = dg.AssetKey("flights")
COPIES = dg.AssetKey("copies")


class Shift(dg.Config):
    """Another value makes other rows."""

    first_flight: int = 10


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={
        "dagster/column_schema": SCHEMA,
        "dagster/column_lineage": LINEAGE,
        "partition_expr": "date",
    },
)
def flights(context: dg.AssetExecutionContext, config: Shift) -> Any:
    """Return as many rows for each day as its number in the month, beginning with the last day."""
    days = [key for key in reversed(context.partition_keys) for _ in range(int(key[-2:]))]
    late = pd.array([None if n % 3 == 2 else n % 3 == 1 for n in range(len(days))], dtype="boolean")
    numbers = range(config.first_flight, config.first_flight + len(days))
    return pd.DataFrame({"date": days, "flight": numbers, "late": late})


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"dagster/column_schema": SCHEMA, "partition_expr": "date"},
)
def copies(flights: Any) -> Any:
    return flights


@dg.asset(io_manager_key="tables", metadata={"dagster/column_schema": SCHEMA})
def whole_table(config: Shift) -> Any:
    return pd.DataFrame({"date": ["2013-01-01"], "flight": [config.first_flight], "late": [True]})


@dg.asset(io_manager_key="tables")
def undeclared() -> Any:
    return pd.DataFrame({"name": ["UA", "AA"], "flights": [1, 2]})


@dg.asset(io_manager_key="tables", metadata={"dagster/column_schema": SCHEMA})
def reader(whole_table: Any) -> Any:
    return whole_table


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def materialise(
    base: Path,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetsDefinition],
    days: tuple[str, str] | None = None,
    first_flight: int = 10,
) -> dg.ExecuteInProcessResult:
    configured = [asset.op.name for asset in assets if asset.op.name in ("flights", "whole_table")]
    one_day = days[0] if days and days[0] == days[1] else None
    tags = {}
    if days and one_day is None:
        tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[1]}
    result = dg.materialize(
        assets,
        resources={"tables": TableStorage(base=str(base))},
        instance=instance,
        run_config={"ops": {name: {"config": {"first_flight": first_flight}} for name in configured}},
        partition_key=one_day,
        tags=tags,
    )
    assert result.success
    return result


def materialisation(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None = None
) -> dg.AssetMaterialization:
    """The newest one."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, asset_partitions=[partition] if partition else None), limit=1
    ).records
    found = records[0].asset_materialization
    assert found is not None
    return found


def data_version(instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None = None) -> str:
    tags = materialisation(instance, asset, partition).tags
    assert tags is not None
    return tags["dagster/data_version"]


def test_one_partition_is_one_file(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, [flights], ("2013-01-03", "2013-01-03"))

    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")] == [
        Path("flights/2013-01-03.parquet")
    ]
    assert len(pd.read_parquet(tmp_path / "flights" / "2013-01-03.parquet")) == 3


def test_a_range_of_partitions_in_one_run_is_a_file_for_each(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, [flights], ("2013-01-02", "2013-01-05"))

    tables = open_tables(str(tmp_path))
    assert tables.stored_partitions(FLIGHTS) == [f"2013-01-0{day}" for day in range(2, 6)]
    for day in range(2, 6):
        rows = tables.read(FLIGHTS, [f"2013-01-0{day}"])
        assert rows["date"].tolist() == [f"2013-01-0{day}"] * day
        assert rows["late"].dtype == "boolean"


def test_each_partition_reports_its_rows_schema_lineage_and_digest(
    tmp_path: Path, instance: dg.DagsterInstance
):
    materialise(tmp_path, instance, [flights], ("2013-01-02", "2013-01-04"))

    tables = open_tables(str(tmp_path))
    for day in range(2, 5):
        key = f"2013-01-0{day}"
        reported = materialisation(instance, FLIGHTS, key)
        assert reported.partition == key
        metadata = {name: value.value for name, value in reported.metadata.items()}
        assert metadata == {
            "dagster/partition_row_count": day,
            "content_sha256": digests.frame_sha256(tables.read(FLIGHTS, [key])),
            "path": str(tmp_path / "flights" / f"{key}.parquet"),
            "dagster/column_schema": SCHEMA,
            "dagster/column_lineage": LINEAGE,
        }


def test_a_table_without_partitions_reports_its_rows_schema_and_path(
    tmp_path: Path, instance: dg.DagsterInstance
):
    materialise(tmp_path, instance, [whole_table])

    metadata = materialisation(instance, dg.AssetKey("whole_table")).metadata
    assert {name: value.value for name, value in metadata.items()} == {
        "dagster/row_count": 1,
        "path": str(tmp_path / "whole_table.parquet"),
        "dagster/column_schema": SCHEMA,
    }


def test_a_table_without_declared_columns_is_stored_as_it_is(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, [undeclared])

    assert open_tables(str(tmp_path)).read(dg.AssetKey("undeclared"))["name"].tolist() == ["UA", "AA"]
    assert "dagster/column_schema" not in materialisation(instance, dg.AssetKey("undeclared")).metadata


def test_the_data_version_of_a_partition_is_the_digest_of_its_rows(
    tmp_path: Path, instance: dg.DagsterInstance
):
    day = "2013-01-03"
    materialise(tmp_path, instance, [flights], (day, day))
    first = data_version(instance, FLIGHTS, day)
    assert first == materialisation(instance, FLIGHTS, day).metadata["content_sha256"].value

    materialise(tmp_path, instance, [flights], (day, day))
    assert data_version(instance, FLIGHTS, day) == first

    materialise(tmp_path, instance, [flights], (day, day), first_flight=20)
    assert data_version(instance, FLIGHTS, day) != first


def test_a_range_has_one_data_version_and_each_partition_its_own_digest(
    tmp_path: Path, instance: dg.DagsterInstance
):
    keys = ["2013-01-02", "2013-01-03"]
    materialise(tmp_path, instance, [flights], ("2013-01-02", "2013-01-03"))

    contents = {
        key: str(materialisation(instance, FLIGHTS, key).metadata["content_sha256"].value) for key in keys
    }
    assert contents["2013-01-02"] != contents["2013-01-03"]
    versions = {data_version(instance, FLIGHTS, key) for key in keys}
    assert versions == {digests.combined_sha256(contents)}


def test_the_data_version_of_a_table_without_partitions_follows_its_rows(
    tmp_path: Path, instance: dg.DagsterInstance
):
    versions = []
    for first_flight in (10, 10, 20):
        materialise(tmp_path, instance, [whole_table], first_flight=first_flight)
        versions.append(data_version(instance, dg.AssetKey("whole_table")))

    assert versions[0] == versions[1] != versions[2]
    rows = open_tables(str(tmp_path)).read(dg.AssetKey("whole_table"))
    assert versions[2] == digests.frame_sha256(rows)


def test_a_downstream_step_gets_all_partitions_in_order(tmp_path: Path, instance: dg.DagsterInstance):
    result = materialise(tmp_path, instance, [flights, copies], ("2013-01-02", "2013-01-04"))

    rows = result.output_for_node("copies")
    assert rows["date"].tolist() == ["2013-01-02"] * 2 + ["2013-01-03"] * 3 + ["2013-01-04"] * 4
    tables = open_tables(str(tmp_path))
    keys = tables.stored_partitions(COPIES)
    pd.testing.assert_frame_equal(tables.read(COPIES, keys), tables.read(FLIGHTS, keys))


def test_a_downstream_step_gets_a_table_without_partitions(tmp_path: Path, instance: dg.DagsterInstance):
    result = materialise(tmp_path, instance, [whole_table, reader], first_flight=42)

    assert result.output_for_node("reader")["flight"].tolist() == [42]


def test_stored_files_can_be_read_one_by_one(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, [flights], ("2013-01-02", "2013-01-03"))

    tables = open_tables(str(tmp_path)).stored(FLIGHTS, ["2013-01-03", "2013-01-02"])

    assert [table.num_rows for table in tables] == [3, 2]


def test_a_table_that_was_never_stored_has_no_partitions(tmp_path: Path):
    assert open_tables(str(tmp_path)).stored_partitions(FLIGHTS) == []
