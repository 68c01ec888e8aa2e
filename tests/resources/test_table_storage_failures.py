"""Tests tables that cannot be read or written: the step fails at once with a reason, without half a table."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.storage.io_managers import TableStorage, open_tables

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
RANGE = ["2013-01-01", "2013-01-02", "2013-01-03"]
RANGE_TAGS = {"dagster/asset_partition_range_start": RANGE[0], "dagster/asset_partition_range_end": RANGE[-1]}
RETRY = dg.RetryPolicy(max_retries=2)
SCHEMA = dg.TableSchema([dg.TableColumn("date", "string"), dg.TableColumn("flight", "int16")])
FLIGHTS = dg.AssetKey("flights")
COPIES = dg.AssetKey("copies")

METADATA = {"dagster/column_schema": SCHEMA, "partition_expr": "date"}


class Rows(dg.Config):
    """The rows of the table.

    Attributes:
        days: Their dates.
        flight: Their flight number.
    """

    days: list[str] = RANGE
    flight: int = 11


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY,
    metadata=METADATA,
)
def flights(config: Rows) -> Any:
    return pd.DataFrame({"date": config.days, "flight": config.flight})


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY,
    metadata=METADATA,
)
def copies(flights: Any) -> Any:
    return flights


ASSETS = [flights, copies]


def materialise(
    base: Path, instance: dg.DagsterInstance, asset: dg.AssetsDefinition, **rows: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        ASSETS,
        selection=[asset],
        resources={"tables": TableStorage(base=str(base))},
        instance=instance,
        run_config={"ops": {"flights": {"config": rows}}} if rows else None,
        tags=RANGE_TAGS,
        raise_on_error=False,
    )


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    """Why a step failed: at its first attempt, as nothing of this passes by itself."""
    assert not result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    error = result.failure_data_for_node(step)
    assert error is not None
    assert error.error is not None
    return error.error.to_string()


def content(base: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in base.rglob("*") if path.is_file()}


def test_a_damaged_file_stops_the_step_at_once(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, flights)
    file = tmp_path / "flights" / "2013-01-02.parquet"
    file.write_bytes(file.read_bytes()[:-100])

    reason = failure_of(materialise(tmp_path, instance, copies), "copies")

    assert f"{file} is not a whole Parquet file" in reason
    assert instance.get_materialized_partitions(COPIES) == set()
    assert not (tmp_path / "copies").exists()


def test_a_missing_file_stops_the_step_at_once(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, flights)
    file = tmp_path / "flights" / "2013-01-03.parquet"
    file.unlink()

    reason = failure_of(materialise(tmp_path, instance, copies), "copies")

    assert f"flights 2013-01-03 is not stored: the file {file} does not exist." in reason
    assert instance.get_materialized_partitions(COPIES) == set()


def test_a_file_without_a_column_stops_the_step_at_once(tmp_path: Path, instance: dg.DagsterInstance):
    materialise(tmp_path, instance, flights)
    file = tmp_path / "flights" / "2013-01-01.parquet"
    pd.read_parquet(file).drop(columns="flight").to_parquet(file)

    reason = failure_of(materialise(tmp_path, instance, copies), "copies")

    assert f"{file} has no column flight." in reason
    assert instance.get_materialized_partitions(COPIES) == set()


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"days": RANGE[:2]}, "flights has no rows for partition 2013-01-03"),
        ({"days": [*RANGE, "2013-02-09"]}, "1 rows of flights belong to none of the partitions"),
        ({"flight": 70_000}, "The rows of flights do not have the declared types"),
    ],
    ids=["an empty day", "a stray row", "a wrong type"],
)
def test_wrong_rows_replace_nothing(
    tmp_path: Path, instance: dg.DagsterInstance, rows: dict[str, Any], problem: str
):
    materialise(tmp_path, instance, flights)
    before = content(tmp_path)
    newest = instance.get_latest_materialization_event(FLIGHTS)

    reason = failure_of(materialise(tmp_path, instance, flights, **rows), "flights")

    assert problem in reason
    assert content(tmp_path) == before
    assert instance.get_latest_materialization_event(FLIGHTS) == newest


def test_a_first_write_that_fails_marks_no_partition(tmp_path: Path, instance: dg.DagsterInstance):
    (tmp_path / "flights").write_bytes(b"a file where the folder should be")

    reason = failure_of(materialise(tmp_path, instance, flights), "flights")

    assert f"{tmp_path / 'flights'} cannot be written" in reason
    assert instance.get_materialized_partitions(FLIGHTS) == set()


WRITE_PAST_THE_FILE_SIZE_LIMIT = """
    import resource, runpy, signal, sys
    import dagster as dg
    from pathlib import Path

    tests = runpy.run_path(sys.argv[1])
    with dg.DagsterInstance.ephemeral() as instance:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the limit is then an error of write()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        result = tests["materialise"](Path(sys.argv[2]), instance, tests["flights"], flight=12)
        reason = tests["failure_of"](result, "flights")
        marked = instance.get_materialized_partitions(tests["FLIGHTS"])
    print(len(marked), reason)
"""


def test_a_range_that_the_disk_has_no_room_for_marks_no_partition_and_replaces_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
):
    materialise(tmp_path, instance, flights)
    before = content(tmp_path)

    code = textwrap.dedent(WRITE_PAST_THE_FILE_SIZE_LIMIT)
    command = [sys.executable, "-W", "ignore", "-c", code, __file__, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)

    assert child.stdout.startswith("0 "), child.stderr
    assert f"{tmp_path / 'flights'} cannot be written: File too large" in child.stdout
    assert content(tmp_path) == before


def test_a_partition_read_by_hand_is_named_if_it_is_missing(tmp_path: Path):
    with pytest.raises(dg.Failure, match="flights 2013-01-09 is not stored"):
        open_tables(str(tmp_path)).read(FLIGHTS, ["2013-01-09"])
