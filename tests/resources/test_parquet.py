"""Tests frames as Parquet bytes: what is kept, what is refused, and hashes of content."""

import io
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage import arrow_tables, digests, parquet, partition_rows

REQUIRED = dg.TableColumnConstraints(nullable=False)
SCHEMA = dg.TableSchema(
    [
        dg.TableColumn("date", "string", constraints=REQUIRED),
        dg.TableColumn("flight", "int16", constraints=REQUIRED),
        dg.TableColumn("time_hour", "timestamp[us, tz=UTC]", constraints=REQUIRED),
        dg.TableColumn("delay", "int16"),
        dg.TableColumn("seats", "double"),
        dg.TableColumn("late", "bool"),
    ]
)


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": ["2013-01-01", "2013-01-01", "2013-01-02"],
            "flight": pd.Series([11, 12, 11], dtype="int16"),
            "time_hour": pd.to_datetime(["2013-01-01T10:00Z", "2013-01-01T11:00Z", "2013-01-02T10:00Z"]),
            "delay": [5.0, None, -3.0],
            "seats": [182.0, None, 55.0],
            "late": pd.array([True, None, False], dtype="boolean"),
        }
    )


def stored(rows: pd.DataFrame) -> bytes:
    return parquet.serialise("flights", arrow_tables.to_arrow("flights", rows, SCHEMA))


def read(content: bytes) -> pd.DataFrame:
    table, _ = parquet.parse(content, "flights/2013-01-01.parquet")
    return arrow_tables.to_frame(arrow_tables.conform(table, "flights/2013-01-01.parquet", SCHEMA))


def test_types_and_gaps_survive_a_round_trip(rows: pd.DataFrame):
    back = read(stored(rows))

    assert list(back.columns) == [column.name for column in SCHEMA.columns]
    assert back["flight"].dtype == "int16"
    assert back["late"].dtype == "boolean"
    assert str(back["time_hour"].dtype) == "datetime64[us, UTC]"
    assert back["late"].tolist() == [True, pd.NA, False]
    assert back["time_hour"].tolist() == rows["time_hour"].tolist()
    pd.testing.assert_frame_equal(back, rows, check_dtype=False)


def test_a_second_round_trip_changes_nothing(rows: pd.DataFrame):
    once = read(stored(rows))

    pd.testing.assert_frame_equal(read(stored(once)), once)
    assert digests.frame_sha256(read(stored(once))) == digests.frame_sha256(once)


def test_columns_are_stored_in_the_declared_order(rows: pd.DataFrame):
    assert stored(rows[sorted(rows.columns)]) == stored(rows)


def test_without_a_schema_columns_are_inferred(rows: pd.DataFrame):
    table = arrow_tables.to_arrow("flights", rows, None)

    assert table.column_names == list(rows.columns)


def test_missing_and_undeclared_columns_are_named(rows: pd.DataFrame):
    with pytest.raises(PermanentFailure) as failure:
        arrow_tables.to_arrow("flights", rows.drop(columns="seats").assign(gate="B12"), SCHEMA)

    assert failure.value.problem == (
        "The rows of flights do not have the declared columns: missing ['seats'], not declared ['gate']."
    )


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("date", [20130101, 20130101, 20130102]),
        ("flight", ["AA11", "AA12", "AA11"]),
        ("flight", [11, 12, 40_000]),
        ("delay", [5.5, None, -3.0]),
        ("late", ["yes", "no", "no"]),
    ],
)
def test_values_of_another_type_are_refused_with_their_column(rows: pd.DataFrame, column: str, values: Any):
    with pytest.raises(PermanentFailure, match="flights do not have the declared types") as failure:
        arrow_tables.to_arrow("flights", rows.assign(**{column: values}), SCHEMA)

    assert column in failure.value.problem


def test_a_table_is_cut_into_its_partitions(rows: pd.DataFrame):
    table = arrow_tables.to_arrow("flights", rows, SCHEMA)

    arranged, lengths = partition_rows.arrange("flights", table, "date", ["2013-01-02", "2013-01-01"])

    assert lengths == [1, 2]
    assert arranged["date"].to_pylist() == ["2013-01-02", "2013-01-01", "2013-01-01"]
    assert arranged["flight"].to_pylist() == [11, 11, 12]


def test_a_partition_without_rows_is_refused_and_named(rows: pd.DataFrame):
    table = arrow_tables.to_arrow("flights", rows, SCHEMA)

    with pytest.raises(PermanentFailure, match="flights has no rows for partition 2013-01-03"):
        partition_rows.arrange("flights", table, "date", ["2013-01-01", "2013-01-02", "2013-01-03"])


def test_many_empty_partitions_are_counted(rows: pd.DataFrame):
    table = arrow_tables.to_arrow("flights", rows, SCHEMA)
    empty = [f"2013-03-{day:02}" for day in range(1, 11)]

    with pytest.raises(PermanentFailure, match=r"partition 2013-03-01, .*2013-03-05 and 5 more"):
        partition_rows.arrange("flights", table, "date", ["2013-01-01", "2013-01-02", *empty])


def test_rows_of_no_partition_are_refused_and_counted(rows: pd.DataFrame):
    table = arrow_tables.to_arrow("flights", rows, SCHEMA)

    with pytest.raises(PermanentFailure) as failure:
        partition_rows.arrange("flights", table, "date", ["2013-01-02"])

    assert failure.value.problem == "2 rows of flights belong to none of the partitions 2013-01-02."
    assert "'date'" in failure.value.remedy


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_refused_and_named(rows: pd.DataFrame, kept: int):
    with pytest.raises(PermanentFailure, match=r"flights/2013-01-01.parquet is not a whole Parquet file"):
        read(stored(rows)[:kept])


def test_a_file_without_a_declared_column_is_refused_and_named(rows: pd.DataFrame):
    older = pa.Table.from_pandas(rows.drop(columns=["seats", "late"]), preserve_index=False)

    with pytest.raises(PermanentFailure, match=r"2013-01-01.parquet has no column seats, late\."):
        read(parquet.serialise("flights", older))


def test_a_file_with_values_that_do_not_fit_is_refused_and_named(rows: pd.DataFrame):
    older = pa.Table.from_pandas(rows.assign(flight=[11, 12, 40_000]), preserve_index=False)

    with pytest.raises(PermanentFailure, match=r"2013-01-01.parquet does not have the declared types"):
        read(parquet.serialise("flights", older))


def test_a_file_with_gaps_in_a_required_column_is_refused(rows: pd.DataFrame):
    older = pa.Table.from_pandas(
        rows.assign(date=pd.Series(["2013-01-01", None, None])), preserve_index=False
    )

    with pytest.raises(PermanentFailure, match=r"does not have the declared types.*'date'"):
        read(parquet.serialise("flights", older))


def test_columns_of_a_file_that_are_not_declared_any_more_are_left_out(rows: pd.DataFrame):
    newer = pa.Table.from_pandas(rows.assign(gate="B12"), preserve_index=False)

    assert "gate" not in read(parquet.serialise("flights", newer))


def test_the_same_rows_have_the_same_digest(rows: pd.DataFrame):
    digest = digests.frame_sha256(read(stored(rows)))

    assert len(digest) == 64
    assert digests.frame_sha256(read(stored(rows.copy()))) == digest
    assert digests.frame_sha256(read(stored(rows)).set_index(pd.Index([7, 8, 9]))) == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(seats=[182.0, None, 56.0]),
        lambda rows: rows.assign(seats=[182.0, 0.0, 55.0]),
        lambda rows: rows.assign(late=pd.array([True, False, False], dtype="boolean")),
        lambda rows: rows.assign(flight=rows["flight"].astype("int32")),
        lambda rows: rows.rename(columns={"delay": "arr_delay"}),
        lambda rows: rows[sorted(rows.columns)],
        lambda rows: rows.iloc[::-1],
        lambda rows: rows.head(2),
    ],
    ids=["a value", "a gap", "a boolean", "a type", "a name", "column order", "row order", "a row less"],
)
def test_other_content_has_another_digest(rows: pd.DataFrame, change):
    assert digests.frame_sha256(change(rows)) != digests.frame_sha256(rows)


def test_the_combined_digest_of_one_partition_is_that_of_the_partition():
    assert digests.combined_sha256({"2013-01-01": "abc"}) == "abc"


def test_the_combined_digest_depends_on_each_partition():
    both = {"2013-01-01": "abc", "2013-01-02": "def"}

    assert digests.combined_sha256(both) == digests.combined_sha256(dict(both))
    assert digests.combined_sha256(both) != digests.combined_sha256(both | {"2013-01-02": "deg"})
    assert digests.combined_sha256(both) != digests.combined_sha256(
        {"2013-01-01": "abc", "2013-01-03": "def"}
    )


def test_a_gap_in_a_required_column_is_refused(rows: pd.DataFrame):
    with pytest.raises(PermanentFailure, match="table"):
        arrow_tables.to_arrow("table", rows.assign(flight=pd.Series([11, None, 11], dtype="Int16")), SCHEMA)


def test_a_stored_column_of_a_type_that_cannot_be_converted_is_named():
    table = pa.table({"flight": pa.array([0], pa.timestamp("us"))})
    schema = dg.TableSchema([dg.TableColumn("flight", "int16")])

    with pytest.raises(PermanentFailure, match=r"file\.parquet"):
        arrow_tables.conform(table, "file.parquet", schema)


def test_a_flipped_bit_in_the_data_of_a_column_is_noticed(rows: pd.DataFrame):
    content = stored(rows)
    row_group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    for number in range(row_group.num_columns):
        column = row_group.column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        damaged = bytearray(content)
        damaged[start + column.total_compressed_size - 1] ^= 1  # the last byte of its last page

        with pytest.raises(PermanentFailure, match=r"file\.parquet is not a whole Parquet file"):
            parquet.parse(bytes(damaged), "file.parquet")
