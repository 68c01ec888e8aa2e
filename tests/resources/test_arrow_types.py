"""Tests names of Arrow types: each is read as its type, and no other text is."""

import dagster as dg
import pyarrow as pa
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.arrow_tables import arrow_schema
from ledgerline.dagster.storage.arrow_types import arrow_type

TYPES = [
    pa.null(),
    pa.bool_(),
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(16),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time64("ns"),
    pa.timestamp("ns"),
    pa.timestamp("us", tz="UTC"),
    pa.timestamp("us", tz="Europe/Berlin"),
    pa.timestamp("ms", tz="+05:30"),
    pa.duration("us"),
    pa.decimal32(5, 2),
    pa.decimal64(10, 2),
    pa.decimal128(10, 2),
    pa.decimal256(50, 0),
    pa.list_(pa.float64()),
    pa.list_(pa.field("element", pa.int8(), nullable=False)),
    pa.large_list(pa.string()),
    pa.list_view(pa.int8()),
    pa.large_list_view(pa.int8()),
    pa.list_(pa.float32(), 768),
    pa.struct([("a", pa.int64()), pa.field("b: c, d<", pa.string(), nullable=False)]),
    pa.map_(pa.string(), pa.float64()),
    pa.map_(pa.field("k", pa.string(), nullable=False), pa.field("val", pa.int8())),
    pa.map_(pa.string(), pa.int8(), keys_sorted=True),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.decimal128(3, 1), ordered=True),
    pa.uuid(),
    pa.json_(),
    pa.bool8(),
    pa.struct([("x", pa.list_(pa.struct([("y", pa.map_(pa.string(), pa.list_(pa.decimal128(4, 1), 2)))])))]),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_type_is_read_from_its_own_name(kind: pa.DataType) -> None:
    assert arrow_type(str(kind)) == kind


@pytest.mark.parametrize(
    ("alias", "kind"),
    [("float64", pa.float64()), ("date32", pa.date32()), ("timestamp[us]", pa.timestamp("us"))],
)
def test_an_alias_of_pyarrow_is_read_too(alias: str, kind: pa.DataType) -> None:
    assert arrow_type(alias) == kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        "strng",
        "VARCHAR",
        "int64 not null",
        "list<double>",
        "list<item: doubl>",
        "list<item: int8>>",
        "struct<>",
        "decimal128(99, 2)",
        "timestamp",
        "timestamp[us, tz=Mars/Base]",
        "timestamp[us, tz=Europe]",
        "timestamp[us, tz=../../etc/passwd]",
        "month_day_nano_interval",
        "dense_union<a: int8=0>",
    ],
)
def test_a_name_of_no_type_is_refused_and_its_column_named(name: str) -> None:
    with pytest.raises(PermanentFailure) as failure:
        arrow_schema(dg.TableSchema([dg.TableColumn("price", name)]), "sales")

    assert failure.value.problem.startswith(f"sales declares a column 'price' of the type {name!r}: ")
    assert "as pyarrow prints it" in failure.value.remedy
