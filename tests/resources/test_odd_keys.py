"""Tests keys that are not file names: each partition and each asset has another file, inside the base."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import RecordStorage, TableStorage, open_records, open_tables

KEYS = [
    "a/x",
    "b/x",
    "a|x",
    "a~2Fx",
    "a%2Fx",
    "x",
    "X",
    "..",
    "../../outside",
    "/var/absolute",
    ".writing-a",
    "~whole",
    "a b ",
    "ends.",
    "*?[a]#&",
    "back\\slash",
    "\x01\x1b",
    "Zürich",
    "CON",
    "long" * 75,
    "long" * 300,
    "long" * 299 + "gone",
    "名" * 200,
]
METADATA = {
    "dagster/column_schema": dg.TableSchema(
        [dg.TableColumn("key", "string"), dg.TableColumn("number", "int64")]
    ),
    "partition_expr": "key",
}
ODD = dg.DynamicPartitionsDefinition(name="odd")
PLACES = dg.MultiPartitionsDefinition(
    {
        "day": dg.StaticPartitionsDefinition(["2013-01-01", "2013/01/02"]),
        "airport": dg.StaticPartitionsDefinition(["EWR", "../JFK"]),
    }
)
ONE_RUN = dg.BackfillPolicy.single_run()
ROWS = dg.AssetKey("rows")


class First(dg.Config):
    """The number of the first row."""

    number: int = 0


@dataclass(frozen=True)
class Seen:
    """A record of one partition."""

    key: str


@dg.asset(partitions_def=ODD, io_manager_key="tables", backfill_policy=ONE_RUN, metadata=METADATA)
def rows(context: dg.AssetExecutionContext, config: First) -> Any:
    keys = context.partition_keys
    return pd.DataFrame({"key": keys, "number": range(config.number, config.number + len(keys))})


@dg.asset(partitions_def=ODD, io_manager_key="tables", backfill_policy=ONE_RUN, metadata=METADATA)
def copied(rows: Any) -> Any:
    return rows


@dg.asset(partitions_def=ODD, io_manager_key="records")
def seen(context: dg.AssetExecutionContext) -> Seen:
    return Seen(context.partition_key)


@dg.asset(partitions_def=ODD, io_manager_key="records")
def seen_again(seen: Seen) -> Seen:
    return seen


@dg.asset(partitions_def=PLACES, io_manager_key="records")
def seen_there(context: dg.AssetExecutionContext) -> Seen:
    return Seen(context.partition_key)


@dg.asset(partitions_def=PLACES, io_manager_key="records")
def seen_there_again(seen_there: Seen) -> Seen:
    return seen_there


@dg.asset(io_manager_key="records")
def all_seen(seen: dict[str, Seen]) -> Seen:
    return Seen(" ".join(f"{key}={record.key}" for key, record in seen.items()))


@dg.asset(
    partitions_def=PLACES,
    io_manager_key="tables",
    backfill_policy=ONE_RUN,
    metadata={"partition_expr": {"day": "day", "airport": "airport"}},
)
def flights_there(context: dg.AssetExecutionContext) -> Any:
    parts = [key.split("|") for key in context.partition_keys]
    return pd.DataFrame({"airport": [part[0] for part in parts], "day": [part[1] for part in parts]})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("odd", KEYS)
        yield instance


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "one" / "two" / "base"


def materialise(
    base: Path, instance: dg.DagsterInstance, assets: Sequence[Any], keys: Sequence[str] = (), **options: Any
) -> dg.ExecuteInProcessResult:
    tags = {}
    if len(keys) > 1:
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    return dg.materialize(
        assets,
        resources={"tables": TableStorage(base=str(base)), "records": RecordStorage(base=str(base))},
        instance=instance,
        partition_key=keys[0] if len(keys) == 1 else None,
        tags=tags,
        **options,
    )


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_each_partition_of_a_run_over_odd_keys_has_its_own_rows(
    base: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    materialise(base, instance, [rows, copied], KEYS)

    tables = open_tables(str(base))
    assert {key: tables.read(ROWS, [key])["number"].tolist() for key in KEYS} == {
        key: [number] for number, key in enumerate(KEYS)
    }
    assert tables.stored_partitions(ROWS) == sorted(KEYS)
    assert tables.read(dg.AssetKey("copied"), KEYS)["key"].tolist() == KEYS
    assert {path.parent for path in files_of(tmp_path)} == {base / "rows", base / "copied"}
    assert len(files_of(base / "rows")) == len(KEYS)


def test_one_odd_partition_replaces_itself_alone(base: Path, instance: dg.DagsterInstance) -> None:
    materialise(base, instance, [rows], KEYS)
    for key in ("a/x", "long" * 300, "../../outside"):
        before = {path: path.read_bytes() for path in files_of(base)}
        materialise(base, instance, [rows], [key], run_config={"ops": {"rows": {"config": {"number": 99}}}})
        changed = [path for path in files_of(base) if path.read_bytes() != before[path]]

        assert len(changed) == 1
        assert open_tables(str(base)).read(ROWS, [key])["number"].tolist() == [99]


def test_records_of_odd_keys_are_read_unchanged(
    base: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    for key in KEYS:
        materialise(base, instance, [seen, seen_again], [key])

    records = open_records(str(base))
    assert [records.read(dg.AssetKey("seen_again"), key, Seen).key for key in KEYS] == KEYS
    assert records.stored_partitions(dg.AssetKey("seen")) == sorted(KEYS)
    assert {path.parent for path in files_of(tmp_path)} == {base / "seen", base / "seen_again"}


def test_records_of_several_dimensions_are_read_unchanged(base: Path, instance: dg.DagsterInstance) -> None:
    keys = PLACES.get_partition_keys()
    for key in keys:
        materialise(base, instance, [seen_there, seen_there_again], [key])

    records = open_records(str(base))
    assert records.stored_partitions(dg.AssetKey("seen_there")) == sorted(keys)
    for asset in ("seen_there", "seen_there_again"):
        assert [records.read(dg.AssetKey(asset), key, Seen).key for key in keys] == keys


def test_a_step_gets_the_records_of_several_partitions_by_their_keys(
    base: Path, instance: dg.DagsterInstance
) -> None:
    for key in KEYS[:2]:
        materialise(base, instance, [seen], [key])
    for key in KEYS[2:]:
        instance.delete_dynamic_partition("odd", key)

    materialise(base, instance, [seen, all_seen], selection=[all_seen])

    assert open_records(str(base)).read(dg.AssetKey("all_seen"), None, Seen).key == "a/x=a/x b/x=b/x"


def test_partitions_of_several_dimensions_have_a_column_for_each(
    base: Path, instance: dg.DagsterInstance
) -> None:
    keys = ["EWR|2013-01-01", "EWR|2013/01/02"]
    materialise(base, instance, [flights_there], keys)

    tables = open_tables(str(base))
    assert tables.stored_partitions(flights_there.key) == keys
    assert tables.read(flights_there.key, keys[1:])["day"].tolist() == ["2013/01/02"]


def whole(*parts: str, number: int) -> dg.AssetsDefinition:
    """A table without partitions whose key has these parts, and whose row is the number."""

    @dg.multi_asset(
        name=f"whole_{number}", outs={"result": dg.AssetOut(key=dg.AssetKey(parts), io_manager_key="tables")}
    )
    def asset() -> Any:
        return pd.DataFrame({"number": [number]})

    return asset


ODD_ASSETS = [
    ["a", "b"],
    ["a/b"],
    ["a"],
    ["a.parquet"],
    ["a.parquet", "b"],
    ["..", "..", "outside"],
    ["/absolute"],
    ["a", ""],
    ["~whole"],
    ["a", "~whole"],
    ["rows", "x"],
    [".runs", "1"],
    ["n" * 300],
    ["n" * 300, "n" * 300],
]


def test_no_two_assets_share_a_file_and_none_is_outside_the_base(
    base: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    materialise(base, instance, [rows], KEYS)
    materialise(base, instance, [whole(*parts, number=number) for number, parts in enumerate(ODD_ASSETS)])

    tables = open_tables(str(base))
    numbers = [tables.read(dg.AssetKey(parts))["number"].tolist() for parts in ODD_ASSETS]
    assert numbers == [[number] for number in range(len(ODD_ASSETS))]
    assert tables.read(ROWS, ["x"])["number"].tolist() == [KEYS.index("x")]
    assert tables.stored_partitions(ROWS) == sorted(KEYS)
    assert all(path.is_relative_to(base) for path in files_of(tmp_path))


# Files of earlier versions


def test_plain_names_of_before_are_read_and_listed(base: Path) -> None:
    folder = base / "rows"
    folder.mkdir(parents=True)
    for key in ("2013-01-01", "~backup", ".hidden", "ends.", "50%"):
        pd.DataFrame({"key": [key]}).to_parquet(folder / f"{key}.parquet")

    tables = open_tables(str(base))
    keys = tables.stored_partitions(ROWS)
    assert keys == sorted(["2013-01-01", "~backup", ".hidden", "ends.", "50%"])
    assert tables.read(ROWS, keys)["key"].tolist() == keys


def test_folders_of_before_are_read_for_the_key_that_they_spell(base: Path) -> None:
    (base / "rows" / "a").mkdir(parents=True)
    pd.DataFrame({"key": ["a/x"]}).to_parquet(base / "rows" / "a" / "x.parquet")

    assert open_tables(str(base)).read(ROWS, ["a/x"])["key"].tolist() == ["a/x"]


def test_a_table_of_an_earlier_layout_with_a_prefix_is_read(base: Path, instance: dg.DagsterInstance) -> None:
    (base / "a").mkdir(parents=True)
    pd.DataFrame({"number": [7]}).to_parquet(base / "a" / "b.parquet")
    tables = open_tables(str(base))
    assert tables.is_stored(dg.AssetKey(["a", "b"]))
    assert tables.read(dg.AssetKey(["a", "b"]))["number"].tolist() == [7]

    materialise(base, instance, [whole("a", "b", number=8)])

    assert tables.read(dg.AssetKey(["a", "b"]))["number"].tolist() == [8]


def test_files_of_another_asset_are_not_read_as_an_earlier_layout(
    base: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset(
        key=["rows", "a"],
        partitions_def=ODD,
        io_manager_key="tables",
        backfill_policy=ONE_RUN,
        metadata=METADATA,
    )
    def of_another(context: dg.AssetExecutionContext) -> Any:
        return pd.DataFrame({"key": context.partition_keys, "number": 0})

    materialise(base, instance, [of_another], ["x"])
    tables = open_tables(str(base))

    with pytest.raises(PermanentFailure, match="rows a/x is not stored"):
        tables.read(ROWS, ["a/x"])
    with pytest.raises(PermanentFailure, match="rows/a/x is not stored"):
        tables.read(dg.AssetKey(["rows", "a", "x"]))


def test_a_file_that_was_given_the_name_of_another_partition_is_refused(
    base: Path, instance: dg.DagsterInstance
) -> None:
    materialise(base, instance, [rows], ["x"])
    materialise(base, instance, [seen], ["x"])
    for name in ("rows/x.parquet", "seen/x.json"):
        (base / name).rename((base / name).with_stem("b|x"))

    with pytest.raises(PermanentFailure, match=r"holds the partition 'x', not rows b\|x"):
        open_tables(str(base)).read(ROWS, ["b|x"])
    with pytest.raises(PermanentFailure, match=r"holds the partition 'x', not seen b\|x"):
        open_records(str(base)).read(dg.AssetKey("seen"), "b|x", Seen)


READ_IN_ANOTHER_PROCESS = """
    import runpy, sys
    from pathlib import Path
    import dagster as dg

    tests = runpy.run_path(sys.argv[1])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("odd", tests["KEYS"])
        assets = [tests["rows"], tests["copied"]]
        result = tests["materialise"](Path(sys.argv[2]), instance, assets, tests["KEYS"])
    print(result.output_for_node("copied")["key"].tolist())
    for event in result.get_asset_materialization_events():
        print(event.materialization.tags["dagster/data_version"])
"""


def test_rows_and_versions_of_a_range_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Dagster gives partitions that are not time windows in the order of a set."""
    outputs = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(READ_IN_ANOTHER_PROCESS), __file__]
        child = subprocess.run(
            [*command, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(child.stdout)

    assert len(outputs) == 1
    assert outputs.pop().startswith(f"{sorted(KEYS)}")
