"""Tests the input schema of a model's signature, compared with MLflow's checks."""

import base64
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, TensorSpec
from mlflow.types import Schema as Signature
from mlflow.types.schema import Array

from ledgerline.serving.request_errors import (
    MAX_LISTED_PROBLEMS,
    Problem,
    RowsRefusedError,
    abbreviated,
)
from ledgerline.serving.rows import UNNAMED, joined
from ledgerline.serving.schema import (
    INT32,
    INT64,
    KINDS,
    Column,
    Schema,
    Tensor,
    UnsupportedSignatureError,
    schema_of,
)

unsaved = settings(database=None, deadline=None)

OUTPUT = Signature([TensorSpec(np.dtype("float64"), (-1,))])


def signature(*columns: Any) -> ModelSignature:
    return ModelSignature(Signature(list(columns)), OUTPUT)


def column(kind: str, *, required: bool = True) -> Schema:
    return Schema((Column("x", kind, required),))


def array(kind: str, values: list[Any], *, required: bool = True) -> Any:
    return column(kind, required=required).rows({"x": values}, len(values)).columns["x"]


def problems(schema: Schema, values: list[Any]) -> list[str]:
    with pytest.raises(RowsRefusedError) as refused:
        schema.rows({"x": values}, len(values))
    return [str(problem) for problem in refused.value.problems]


# Signatures


def test_every_kind_of_column_of_mlflow_is_known_or_refused() -> None:
    known = {kind.name for kind in DataType}

    assert set(KINDS) == known
    for kind in known:
        assert schema_of(signature(ColSpec(DataType[kind], "x", required=False))).columns == (
            Column("x", kind, required=False),
        )


def test_the_signature_that_mlflow_infers_is_understood() -> None:
    rows = pd.DataFrame({"gap": [1.0, math.nan], "text": ["a", "b"], "sure": [True, False]})

    schema = schema_of(infer_signature(rows, np.zeros(2)))

    assert schema.columns == (
        Column("gap", "double", required=False),
        Column("text", "string", required=True),
        Column("sure", "boolean", required=True),
    )
    assert schema_of(infer_signature(np.zeros((3, 2)), np.zeros(3))).tensor == Tensor("float64", (-1, 2))


@pytest.mark.parametrize(
    ("unusable", "message"),
    [
        (None, "no signature"),
        (ModelSignature(Signature([ColSpec(DataType.double, "x")])), "no signature of inputs and outputs"),
        (ModelSignature(None, OUTPUT, ParamSchema([])), "no signature of inputs and outputs"),
        (signature(ColSpec(DataType.double)), "Column 0 of the signature has no name"),
        (signature(ColSpec(Array(DataType.double), "x")), "Column x of the signature is"),
        (signature(TensorSpec(np.dtype("float64"), (-1,), "x")), "named tensors"),
        (
            signature(
                TensorSpec(np.dtype("float64"), (-1,), "x"), TensorSpec(np.dtype("float64"), (-1,), "y")
            ),
            "named tensors",
        ),
    ],
)
def test_a_signature_that_requests_cannot_be_checked_by_is_refused(
    unusable: ModelSignature | None, message: str
) -> None:
    with pytest.raises(UnsupportedSignatureError, match=message):
        schema_of(unusable)


# Values


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("double", [1, 2.5, 10**15], [1.0, 2.5, 1e15]),
        ("float", [1, 0.5, math.inf], [1.0, 0.5, math.inf]),
        ("long", [*INT64, 0], [*INT64, 0]),
        ("integer", [*INT32], [*INT32]),
        ("boolean", [True, False], [True, False]),
        ("string", ["", "ö", "\0"], ["", "ö", "\0"]),
        ("binary", ["AP8=", ""], [b"\x00\xff", b""]),
    ],
)
def test_values_of_each_kind_are_converted_for_the_model(
    kind: str, values: list[Any], expected: list[Any]
) -> None:
    found = array(kind, values)

    assert found.dtype == np.dtype(KINDS[kind].dtype)
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_array_is_as_mlflow_would_have_it(kind: str) -> None:
    """MLflow enforces its own signature on the frame, and finds nothing to change."""
    from mlflow.models.utils import _enforce_schema

    values = {
        "boolean": [True, False],
        "string": ["a", "b"],
        "binary": ["AP8=", "AAAA"],
        "datetime": ["2026-01-31T12:00:00", "2026-02-28T00:00:00"],
    }.get(kind, [1, 2])
    schema = schema_of(signature(ColSpec(DataType[kind], "x")))

    frame = schema.model_input(schema.rows({"x": values}, 2))

    assert isinstance(frame, pd.DataFrame)
    enforced = _enforce_schema(frame, Signature([ColSpec(DataType[kind], "x")]))
    assert isinstance(enforced, pd.DataFrame)
    pd.testing.assert_frame_equal(enforced, frame)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_gap_is_accepted_in_optional_columns_and_named_in_others(kind: str) -> None:
    for missing in (None, math.nan):
        assert pd.isna(array(kind, [missing, missing], required=False)).all()
        assert problems(column(kind), [missing]) == ["row 0, column x: a value is required"]
    assert len(column(kind, required=False).rows({}, 3).columns["x"]) == 3


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("double", "1.5", "'1.5' is not a number"),
        ("double", True, "True is not a number"),
        ("double", 10**400, "is not a number: int too large"),
        ("double", [1.0], "[1.0] is not a number"),
        ("float", 10**400, "is not a number"),
        ("float", -1e39, "-1e+39 is not a number: it is not between"),
        ("long", 1.5, "1.5 is not an integer"),
        ("long", 1.0, "1.0 is not an integer"),
        ("long", 2**63, "it is not between -9223372036854775808 and 9223372036854775807"),
        ("integer", 2**31, "it is not between -2147483648 and 2147483647"),
        ("boolean", 1, "1 is not true or false"),
        ("boolean", "true", "'true' is not true or false"),
        ("string", 7, "7 is not a string"),
        ("string", {"a": 1}, "{'a': 1} is not a string"),
        ("binary", "ä", "is not bytes in base64"),
        ("datetime", 2026, "2026 is not a datetime"),
        ("datetime", "", "is not a datetime"),
        ("datetime", "now", "'now' is not a datetime"),
        ("datetime", "NaT", "'NaT' is not a datetime"),
        ("datetime", "2026-13-01", "'2026-13-01' is not a datetime"),
        ("datetime", "2026-02-30", "'2026-02-30' is not a datetime"),
        ("datetime", "2026-01-31T25:00", "'2026-01-31T25:00' is not a datetime"),
        ("datetime", "0001-01-01T00:00:00", "'0001-01-01T00:00:00' is not a datetime"),
        ("datetime", "9999-12-31T00:00:00", "'9999-12-31T00:00:00' is not a datetime"),
    ],
)
def test_a_value_of_another_kind_is_named_by_row_and_column(kind: str, wrong: Any, message: str) -> None:
    good = {"boolean": True, "string": "a", "binary": "AAAA", "datetime": "2026-01-31"}.get(kind, 1)

    [found] = problems(column(kind), [good, wrong, good])

    assert found.startswith("row 1, column x: ")
    assert message in found


def test_a_datetime_with_a_time_zone_is_converted_to_utc() -> None:
    found = array("datetime", ["2026-01-31T12:00:00+01:00", "2026-01-31 11:00:00", "2026-01-31T11:00:00Z"])

    assert (found == np.datetime64("2026-01-31T11:00:00")).all()


@pytest.mark.parametrize(
    "written",
    [
        "2013-05-01",
        "2013-05-01T00:00",
        "2013-05-01 00:00:00",
        "2013-05-01T00:00:00.000000000",
        "2013-05-01T00:00:00Z",
        "2013-05-01T02:00:00.5+02:00",
        "2013-04-30T19:00-0500",
        "2013-05-01T00:00:00+00",
    ],
)
def test_a_moment_is_a_date_of_iso_8601_with_or_without_a_time(written: str) -> None:
    fraction = np.timedelta64(500, "ms") if ".5" in written else np.timedelta64(0)
    assert array("datetime", [written]) == [np.datetime64("2013-05-01") + fraction]


@pytest.mark.parametrize(
    "written",
    [
        "12:00", "12:00:00", "noon", "now", "today", "NaT", "nat", "tomorrow", "2013", "2013-05",
        "201305", "20130501",
        "20130501T120000", "2013-W18-3", "2013W183", "2013-121", "2013121", "5/1/2013", "01/05/2013",
        "1.5.2013",
        "May 1, 2013", "1 May 2013", "2013/05/01", "2013-5-1", "13-05-01", "1367366400",
        "1367366400000000000", "0",
        " 2013-05-01", "2013-05-01 ", "2013-05-01T", "2013-05-01T12", "2013-05-01T12:00 PM",
        "2013-05-01 12:00 UTC",
        "2013-05-01T12:00:00 Europe/Berlin", "2013-05-01T12:00:00[UTC]", "2013-05-01t12:00:00z",
        "-2013-05-01",
        "+2013-05-01", "2013Q2", "2Q2013", "P1D", "\uff12013-05-01", "2013-05-01T12:00:00,5",
        "2013-05-01T12:00:00.",
    ],
)  # fmt: skip
def test_texts_that_pandas_would_guess_to_be_moments_are_refused(written: str) -> None:
    [found] = problems(column("datetime"), [written])

    assert f"'{written}' is not a datetime like 2026-01-31T12:00:00: it is not an ISO 8601 date" in found


@pytest.mark.parametrize("kind", ["long", "integer"])
def test_whole_numbers_with_gaps_are_floats_to_the_model_unless_they_would_change(kind: str) -> None:
    schema = column(kind, required=False)

    def frame(values: list[Any]) -> pd.DataFrame:
        found = schema.model_input(schema.rows({"x": values}, len(values)))
        assert isinstance(found, pd.DataFrame)
        return found

    assert frame([1, 2])["x"].dtype == KINDS[kind].dtype
    assert frame([1, None])["x"].dtype == "float64"
    assert frame([None, None])["x"].dtype == "float64"
    assert frame([1, None])["x"].tolist()[0] == 1
    if kind == "long":
        large = frame([2**53 + 1, None])["x"]
        assert int(large[0]) == 2**53 + 1
        assert pd.isna(large[1])


def test_a_whole_number_is_exact_beside_a_gap_in_another_request() -> None:
    schema = column("long", required=False)
    parts = [schema.rows({"x": [value]}, 1) for value in (2**60 + 1, None, 3)]

    frame = schema.model_input(joined(parts))

    assert isinstance(frame, pd.DataFrame)
    assert [int(value) for value in frame["x"][[0, 2]]] == [2**60 + 1, 3]


def test_columns_that_are_missing_are_named_and_others_left_out() -> None:
    schema = Schema((Column("x", "double", required=True), Column("y", "string", required=False)))

    assert [str(one) for one in refused_by(schema, {"z": [1]}, 1)] == ["column x: the column is required"]
    rows = schema.rows({"z": [1], "x": [2]}, 1)
    assert list(rows.columns) == ["x", "y"]
    assert schema.unknown(["z", "x"]) == ["z"]


def refused_by(schema: Schema, columns: dict[str, list[Any]], count: int) -> list[Problem]:
    with pytest.raises(RowsRefusedError) as refused:
        schema.rows(columns, count)
    return list(refused.value.problems)


def test_the_first_of_many_problems_are_listed_and_all_are_counted() -> None:
    schema = Schema((Column("x", "double", required=True), Column("y", "double", required=True)))
    wrong: list[Any] = ["?"] * 1000

    with pytest.raises(RowsRefusedError) as refused:
        schema.rows({"x": wrong, "y": wrong}, 1000)

    assert [(one.row, one.column) for one in refused.value.problems[:3]] == [(0, "x"), (0, "y"), (1, "x")]
    assert len(refused.value.problems) == MAX_LISTED_PROBLEMS
    assert str(refused.value) == "row 0, column x: '?' is not a number (and 1999 more)."


def test_large_and_deep_values_are_printed_briefly() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10_000_000, list(range(1_000_000)), deep, {str(key): key for key in range(1000)}):
        assert len(abbreviated(value)) <= 41
    assert abbreviated("JFK") == "'JFK'"
    # Freed level by level: all at once is too deep for some Pythons.
    while deep:
        deep = deep[0]


@unsaved
@given(
    st.sampled_from(list(KINDS)),
    st.booleans(),
    st.lists(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
        min_size=1,
    ),
)
def test_any_value_is_accepted_or_named(kind: str, required: bool, values: list[Any]) -> None:
    schema = column(kind, required=required)
    try:
        found = schema.rows({"x": values}, len(values)).columns["x"]
    except RowsRefusedError as error:
        named = {problem.row for problem in error.problems}
    else:
        assert len(found) == len(values)
        named = set()
    for row, value in enumerate(values[:MAX_LISTED_PROBLEMS]):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if missing:
            assert (row in named) == (required and bool(named))
        elif type(value) not in KINDS[kind].accepted:
            assert row in named or len(named) == MAX_LISTED_PROBLEMS


@unsaved
@given(st.lists(st.binary(), min_size=1))
def test_bytes_are_preserved(values: list[bytes]) -> None:
    assert array("binary", [base64.b64encode(value).decode() for value in values]).tolist() == values


@unsaved
@given(
    st.lists(
        st.datetimes(min_value=pd.Timestamp("1700-01-01"), max_value=pd.Timestamp("2200-01-01")), min_size=1
    )
)
def test_datetimes_are_preserved(values: list[Any]) -> None:
    found = array("datetime", [value.isoformat() for value in values])

    assert [pd.Timestamp(one) for one in found] == [pd.Timestamp(value) for value in values]


# One array


def tensor(dtype: str, *shape: int) -> Schema:
    return Schema(tensor=Tensor(dtype, shape))


def test_an_array_takes_the_type_of_the_model() -> None:
    rows = tensor("float32", -1, 2).array_rows([[1, 2], [3, 4.5]])

    assert rows.count == 2
    assert rows.columns[UNNAMED].dtype == np.dtype("float32")
    assert tensor("object", -1).array_rows(["a", "b"]).columns[UNNAMED].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (tensor("float64", -1, 2), [[1, 2], [3]], "rows have different shapes"),
        (tensor("float64", -1, 2), [[1, 2, 3]], r"the shape is \(1, 3\), the model takes \(any, 2\)"),
        (tensor("float64", -1, 2), [1, 2], r"the shape is \(2,\)"),
        (tensor("float64", -1), ["a"], "the model takes float64"),
        (tensor("float64", -1), [None], "the model takes float64"),
        (tensor("float64", -1), [10**400], "the model takes float64"),
        (tensor("int64", -1), [1.5], "the values are float64, the model takes int64"),
        (tensor("int32", -1), [2**40], "not between -2147483648 and 2147483647"),
        (tensor("uint8", -1), [-1], "not between 0 and 255"),
        (tensor("int64", -1), [2**63], "not between"),
        (tensor("bool", -1), [1], "the model takes bool"),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(schema: Schema, values: Any, message: str) -> None:
    with pytest.raises(RowsRefusedError, match=message):
        schema.array_rows(values)


def test_columns_and_arrays_are_not_interchangeable() -> None:
    with pytest.raises(RowsRefusedError, match="the model takes columns: x"):
        column("double").array_rows([1])
    with pytest.raises(RowsRefusedError, match="takes one array; send an array instead of columns"):
        tensor("float64", -1).rows({"x": [1]}, 1)
