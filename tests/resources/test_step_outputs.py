"""Tests outputs of steps: tables of every library are stored as they are, all else is refused clearly."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ledgerline.dagster.storage.arrow_types import arrow_type
from ledgerline.dagster.storage.io_managers import TableStorage, open_tables
from tests.resources.test_arrow_types import TYPES

KEYS = ["2013-01-01", "2013-01-02"]
DAYS = dg.StaticPartitionsDefinition(KEYS)
ROWS = dg.AssetKey("rows")
SCHEMA = dg.TableSchema([dg.TableColumn("day", "string"), dg.TableColumn("flight", "int16")])
DECLARED = {"dagster/column_schema": SCHEMA, "partition_expr": "day"}
GOOD = {"day": KEYS, "flight": [1, 2]}


class Handed:
    """A fake of a polars data frame: it hands out its rows by Arrow's protocol."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


class Converted:
    """A fake of a polars data frame of before it had the protocol."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def to_arrow(self) -> pa.Table:
        return self.rows


def store(
    base: Path, output: object, metadata: dict[str, Any] | None = None, *, partitioned: bool = True
) -> dg.ExecuteInProcessResult:
    """Materialise an asset that returns this."""

    @dg.asset(
        partitions_def=DAYS if partitioned else None,
        backfill_policy=dg.BackfillPolicy.single_run() if partitioned else None,
        io_manager_key="tables",
        metadata=DECLARED if metadata is None else metadata,
    )
    def rows() -> Any:
        return output

    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    return dg.materialize(
        [rows],
        resources={"tables": TableStorage(base=str(base))},
        tags=tags if partitioned else None,
        raise_on_error=False,
    )


def reason_of(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    failure = result.failure_data_for_node("rows")
    assert failure is not None
    assert failure.error is not None
    assert failure.user_failure_data is not None, (
        failure.error.to_string()
    )  # a failure of ours, not a raw error
    return failure.user_failure_data.description or ""


def content(base: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in base.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "output",
    [
        pd.DataFrame(GOOD),
        pa.table(GOOD),
        pa.table(GOOD).to_batches()[0],
        pa.RecordBatchReader.from_batches(pa.table(GOOD).schema, pa.table(GOOD).to_batches()),
        pa.table({"flight": [2, 1], "day": pa.array(KEYS[::-1]).dictionary_encode()}),
        Handed(pa.table({"day": pa.array(KEYS, pa.string_view()), "flight": [1, 2]})),
        Converted(pa.table({"day": pa.array(KEYS, pa.large_string()), "flight": [1, 2]})),
    ],
    ids=["pandas", "Table", "RecordBatch", "RecordBatchReader", "categories", "by protocol", "by to_arrow"],
)
def test_a_table_of_any_library_is_stored_with_the_declared_columns(tmp_path: Path, output: object) -> None:
    assert store(tmp_path, output).success

    stored = list(open_tables(str(tmp_path)).stored(ROWS, KEYS))
    assert [part.to_pylist() for part in stored] == [
        [{"day": KEYS[0], "flight": 1}],
        [{"day": KEYS[1], "flight": 2}],
    ]
    assert {str(part.schema.field("flight").type) for part in stored} == {"int16"}


def versions(result: dg.ExecuteInProcessResult) -> list[str]:
    """The version of each partition, in their order; Dagster reports them in that of a set."""
    reported = {
        str(event.partition): str(event.materialization.metadata["content_sha256"].value)
        for event in result.get_asset_materialization_events()
    }
    return [reported[key] for key in sorted(reported)]


def test_equal_rows_have_one_version_in_every_library(tmp_path: Path) -> None:
    outputs = [pd.DataFrame(GOOD), pa.table(GOOD), Handed(pa.table(GOOD)), pd.DataFrame(GOOD).iloc[::-1]]

    assert len({tuple(versions(store(tmp_path, output))) for output in outputs}) == 1


NESTED = {
    "list<item: double>": [[1.0, 2.0], []],
    "list<item: float>": [np.array([1, 2], "float32"), None],
    "fixed_size_list<item: float>[2]": [np.array([1, 2], "float32"), None],
    "struct<a: int64, b: string>": [{"a": 1, "b": "x"}, {"a": None, "b": "y"}],
    "map<string, double>": [{"a": 1.0}, {}],
    "decimal128(10, 2)": [Decimal("1.10"), None],
    "timestamp[us, tz=Europe/Berlin]": [pd.Timestamp("2013-07-01 12:00", tz="Europe/Berlin"), None],
    "date32[day]": [datetime.date(2013, 7, 1), None],
    "time64[us]": [datetime.time(12, 30), None],
    "duration[us]": [datetime.timedelta(hours=1), None],
    "binary": [b"\x00\x01", None],
    "dictionary<values=string, indices=int32, ordered=0>": ["a", None],
    "int64": [2**60 + 1, None],
}


@pytest.mark.parametrize(("kind", "values"), NESTED.items())
def test_values_of_a_declared_type_survive_the_way_to_a_file_and_back(
    tmp_path: Path, kind: str, values: list[Any]
) -> None:
    schema = dg.TableSchema([dg.TableColumn("day", "string"), dg.TableColumn("value", kind)])
    metadata = {"dagster/column_schema": schema, "partition_expr": "day"}
    first = store(tmp_path, pd.DataFrame({"day": KEYS, "value": pd.Series(values, dtype="object")}), metadata)
    assert first.success

    back = open_tables(str(tmp_path)).read(ROWS, KEYS, schema)
    given = pa.array(values, arrow_type(kind))
    assert pa.array(back["value"].tolist(), given.type, from_pandas=True).to_pylist() == given.to_pylist()
    assert versions(store(tmp_path, back, metadata)) == versions(first)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if "not null" not in str(kind)], ids=str)
def test_gaps_of_every_type_that_can_be_declared_are_written_and_read(
    tmp_path: Path, kind: pa.DataType
) -> None:
    schema = dg.TableSchema([dg.TableColumn("value", str(kind))])
    output = pa.table({"value": pa.nulls(3, kind)})

    assert store(tmp_path, output, {"dagster/column_schema": schema}, partitioned=False).success
    assert open_tables(str(tmp_path)).read(ROWS, None, schema)["value"].isna().all()


def test_columns_of_lists_and_dictionaries_need_no_declaration(tmp_path: Path) -> None:
    output = pd.DataFrame(
        {"day": KEYS, "embedding": [np.zeros(3), np.ones(3)], "facts": [{"a": 1}, {"a": 2}]}
    )

    assert store(tmp_path, output, {"partition_expr": "day"}).success
    back = open_tables(str(tmp_path)).read(ROWS, KEYS)
    assert [list(vector) for vector in back["embedding"]] == [[0, 0, 0], [1, 1, 1]]
    assert back["facts"].tolist() == [{"a": 1}, {"a": 2}]


def test_partitions_may_be_dates_and_numbers(tmp_path: Path) -> None:
    dates = pa.table(
        {"day": pa.array([datetime.date(2013, 1, 2), datetime.date(2013, 1, 1)]), "flight": [2, 1]}
    )
    assert store(tmp_path, dates, {"partition_expr": "day"}).success
    assert open_tables(str(tmp_path)).read(ROWS, KEYS)["flight"].tolist() == [1, 2]


WRONG: dict[str, tuple[object, dict[str, Any], str]] = {
    "None": (None, DECLARED, "rows returned None, which is not a table. Return a pandas or polars DataFrame"),
    "a Series": (pd.Series([1]), DECLARED, "rows returned a Series (pandas"),
    "an array": (pa.array([1]), DECLARED, "rows returned a Int64Array (pyarrow.lib), which is not a table."),
    "a dict": (dict(GOOD), DECLARED, "rows returned a dict (builtins), which is not a table."),
    "the class": (pd.DataFrame, DECLARED, "rows returned a type (builtins), which is not a table."),
    "mixed types": (
        pd.DataFrame({"day": KEYS, "x": [1, "a"]}),
        {"partition_expr": "day"},
        "The rows of rows cannot be stored: ",
    ),
    "mixed types, declared": (
        pd.DataFrame({"day": KEYS, "flight": [1, "a"]}),
        DECLARED,
        "The rows of rows do not have the declared types: ",
    ),
    "text for numbers": (
        pa.table({"day": KEYS, "flight": ["1", "2"]}),
        DECLARED,
        "The rows of rows do not have the declared types: column 'flight' is of type string, not int16",
    ),
    "too large": (
        pa.table({"day": KEYS, "flight": [1, 70_000]}),
        DECLARED,
        "The rows of rows do not have the declared types: Integer value 70000 not in range",
    ),
    "a name twice": (
        pd.DataFrame([["2013-01-01", 1, 2]], columns=["day", "flight", "flight"]),
        DECLARED,
        "The rows of rows have more than one column flight.",
    ),
    "a name twice, Arrow": (
        pa.Table.from_arrays([pa.array(KEYS), pa.array([1, 2]), pa.array([1, 2])], ["day", "x", "x"]),
        {"partition_expr": "day"},
        "The rows of rows have more than one column x.",
    ),
    "numbers as names": (
        pd.DataFrame([["2013-01-01", 1]]),
        {"partition_expr": "day"},
        "The rows of rows have columns whose names are not text: 0, 1.",
    ),
    "levels of names": (
        pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
        {"partition_expr": "day"},
        "The rows of rows have columns whose names are not text: ('a', 'b').",
    ),
    "an index with a name": (
        pd.DataFrame({"day": KEYS, "flight": [1, 2]}).set_index("flight"),
        {"partition_expr": "day"},
        "The rows of rows have an index (flight), which is not stored.",
    ),
    "no partition_expr": (
        pd.DataFrame(GOOD),
        {"dagster/column_schema": SCHEMA},
        "rows has partitions, and does not say which column holds their keys.",
    ),
    "an odd partition_expr": (
        pd.DataFrame(GOOD),
        {"partition_expr": 7},
        "rows has partitions, and says with 7, which is not the name of a column, which column holds",
    ),
    "partition_expr of no column": (
        pd.DataFrame(GOOD),
        {"partition_expr": "date"},
        "The rows of rows have no column 'date', which must contain the partition key.",
    ),
    "a column of times": (
        pd.DataFrame({"day": pd.to_datetime(KEYS)}),
        {"partition_expr": "day"},
        "The column 'day' of rows must contain the partition key and is of type timestamp[ns].",
    ),
    "a column of lists": (
        pd.DataFrame({"day": [[key] for key in KEYS]}),
        {"partition_expr": "day"},
        "The column 'day' of rows must contain the partition key and is of type list<item: string>.",
    ),
    "rows of another day": (
        pd.DataFrame({"day": [*KEYS, "2013-01-03"]}),
        {"partition_expr": "day"},
        "1 rows of rows belong to none of the partitions 2013-01-01, 2013-01-02.",
    ),
    "rows of no day": (
        pd.DataFrame({"day": [*KEYS, None]}),
        {"partition_expr": "day"},
        "1 rows of rows belong to none of the partitions 2013-01-01, 2013-01-02.",
    ),
    "a type that Parquet does not have": (
        pa.table({"day": KEYS, "x": pa.nulls(2, pa.month_day_nano_interval())}),
        {"partition_expr": "day"},
        "rows cannot be stored as Parquet: ",
    ),
    "a name of no type": (
        pd.DataFrame({"day": KEYS}),
        {"dagster/column_schema": dg.TableSchema([dg.TableColumn("day", "text")]), "partition_expr": "day"},
        "rows declares a column 'day' of the type 'text': ",
    ),
}


@pytest.mark.parametrize(("output", "metadata", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_output_is_named_and_replaces_nothing(
    tmp_path: Path, output: object, metadata: dict[str, Any], sentence: str
) -> None:
    store(tmp_path, pd.DataFrame(GOOD))
    before = content(tmp_path)
    assert len(before) == len(KEYS)

    assert reason_of(store(tmp_path, output, metadata)).startswith(sentence)
    assert content(tmp_path) == before


def test_a_version_changes_when_a_value_inside_of_a_list_does(tmp_path: Path) -> None:
    frames = [pd.DataFrame({"day": KEYS, "x": [[1.0, 2.0], [value]]}) for value in (3.0, 4.0)]

    first, second = (versions(store(tmp_path, frame, {"partition_expr": "day"})) for frame in frames)

    assert first[0] == second[0]
    assert first[1] != second[1]


def test_partitions_stored_with_types_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    for key, value in zip(KEYS, ["text", 1], strict=True):
        folder = tmp_path / "rows"
        folder.mkdir(exist_ok=True)
        pd.DataFrame({"day": [key], "x": [value]}).to_parquet(folder / f"{key}.parquet")

    with pytest.raises(dg.Failure, match="The partitions of rows do not have the same types: "):
        open_tables(str(tmp_path)).read(ROWS, KEYS)
