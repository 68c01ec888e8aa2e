"""Tests bodies and responses of MLflow's scoring protocol, compared with MLflow's scoring server."""

import io
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, DataType
from mlflow.types import Schema as Signature

from ledgerline.serving import scoring
from ledgerline.serving.request_errors import BodyRefusedError, RowsRefusedError, TooManyRowsError
from ledgerline.serving.rows import UNNAMED, Rows, output_rows
from ledgerline.serving.schema import Column, Schema, Tensor
from ledgerline.serving.scoring import rows_of_csv, rows_of_json

unsaved = settings(database=None, deadline=None)

MOST = 100

FLIGHTS = Schema(
    (
        Column("carrier", "string", required=False),
        Column("temp", "double", required=False),
        Column("hour", "long", required=True),
        Column("holiday", "boolean", required=True),
    )
)
SIGNATURE = Signature([ColSpec(DataType[one.type], one.name, one.required) for one in FLIGHTS.columns])
NAMES = [column.name for column in FLIGHTS.columns]
RECORD = {"carrier": "AA", "temp": 51.5, "hour": 7, "holiday": True}
PIXELS = Schema(tensor=Tensor("float32", (-1, 2)))

RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            # MLflow drops NUL at the end of a text.
            "carrier": st.text(st.characters(codec="utf-8", exclude_characters="\0")),
            "temp": st.floats(allow_nan=False, allow_infinity=False),
            "hour": st.integers(-(2**63), 2**63 - 1),
            "holiday": st.booleans(),
        }
    ),
    min_size=1,
    max_size=5,
)
FORMS = {
    scoring.SPLIT: lambda records: {
        "columns": NAMES,
        "data": [[record[name] for name in NAMES] for record in records],
    },
    scoring.RECORDS: list,
    scoring.INSTANCES: list,
    scoring.INPUTS: lambda records: {name: [record[name] for record in records] for name in NAMES},
}


def frame(content: Any, schema: Schema = FLIGHTS) -> pd.DataFrame:
    """Return the input of the model."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    found = schema.model_input(rows_of_json(body, schema, MOST)[0])
    assert isinstance(found, pd.DataFrame)
    return found


def refusal(content: Any, schema: Schema = FLIGHTS) -> str:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises((BodyRefusedError, RowsRefusedError, TooManyRowsError)) as refused:
        rows_of_json(body, schema, MOST)
    return str(refused.value)


# JSON


@unsaved
@given(st.sampled_from(list(FORMS)), RECORDS)
def test_every_form_makes_the_rows_that_mlflow_makes_of_it(form: str, records: list[dict[str, Any]]) -> None:
    content = {form: FORMS[form](records)}

    theirs = _enforce_schema(scoring_server.infer_and_parse_data(content, SIGNATURE), SIGNATURE)

    assert isinstance(theirs, pd.DataFrame)
    pd.testing.assert_frame_equal(frame(content), theirs[NAMES], check_exact=True)


@unsaved
@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_of_columns_does_not_matter(records: list[dict[str, Any]], random: Any) -> None:
    mixed = []
    for record in records:
        items = list(record.items())
        random.shuffle(items)
        mixed.append(dict(items))

    pd.testing.assert_frame_equal(frame({"instances": mixed}), frame({"dataframe_records": records}))


def test_nan_counts_as_a_number_as_python_s_clients_write_it() -> None:
    body = b'{"instances": [{"temp": NaN, "hour": 7, "holiday": true}]}'

    assert math.isnan(frame(body)["temp"][0])


def test_columns_missing_in_a_record_are_missing_values() -> None:
    found = frame({"instances": [RECORD, {"hour": 22, "holiday": False}]})

    assert found.isna().to_numpy().tolist() == [[False] * 4, [True, True, False, False]]


def test_a_single_value_is_a_column_of_one_row() -> None:
    pd.testing.assert_frame_equal(frame({"inputs": RECORD}), frame({"instances": [RECORD]}))


def test_a_split_without_columns_has_those_of_the_model_in_their_order() -> None:
    pd.testing.assert_frame_equal(
        frame({"dataframe_split": {"data": [list(RECORD.values())]}}), frame({"instances": [RECORD]})
    )


def test_columns_that_the_model_does_not_have_are_named() -> None:
    _, unknown = rows_of_json(json.dumps({"instances": [RECORD | {"gate": 7}]}).encode(), FLIGHTS, MOST)

    assert unknown == ["gate"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The body is not JSON"),
        (b"\xff", "The body is not JSON"),
        (b"{", "The body is not JSON"),
        (b'{"instances": ["\\ud800"]}', "The body is not JSON"),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "The body is not JSON"),
        (b'{"instances": [{"hour": ' + b"9" * 5000 + b"}]}", "The body is not JSON"),
        ('{"instances": []}'.encode("utf-16"), "The body is not JSON"),
        ([], "The body is not a JSON object. Send a JSON object with one of dataframe_split"),
        ({}, "The body has none of the forms"),
        ({"instances": [], "inputs": []}, "The body has instances and inputs"),
        ({"instances": [RECORD], "params": {"threshold": 1}}, "The model takes no params"),
        ({"instances": [RECORD], "params": False}, "The model takes no params"),
        ({"instances": []}, "The body has no rows"),
        ({"inputs": {}}, "The body has no rows"),
        ({"inputs": []}, "The body has no rows"),
        ({"instances": RECORD}, "not a list of objects"),
        ({"instances": [RECORD, 7]}, "row 1: it is not an object"),
        ({"inputs": 7}, "inputs is neither an object of columns"),
        ({"inputs": {"hour": [7], "holiday": [True, False]}}, "The columns of inputs have 1 and 2 rows"),
        ({"dataframe_split": []}, "dataframe_split is []; it should be an object"),
        ({"dataframe_split": {"data": [[1]], "columns": [1]}},
        "dataframe_split.columns[0] is 1; it should be a string"),
        ({"dataframe_split": {"data": [[1]], "columns": ["x", "x"]}},
        "column x: the column occurs twice"),
        ({"dataframe_split": {"data": [[1, 2]], "columns": ["x"]}}, "row 0: it has 2 values for 1 columns"),
        ({"dataframe_split": {"data": [1], "columns": ["x"]}}, "row 0: it is not a list of values"),
        ({"instances": [RECORD] * (MOST + 1)}, f"The body has {MOST + 1} rows. Send at most {MOST} at once"),
    ],
)  # fmt: skip
def test_invalid_bodies_of_the_protocol_are_refused_with_the_expected_form(
    content: Any, message: str
) -> None:
    assert message in refusal(content)


def test_one_array_is_sent_as_instances_or_inputs() -> None:
    for form in (scoring.INSTANCES, scoring.INPUTS):
        rows, unknown = rows_of_json(json.dumps({form: [[1, 2], [3, 4]]}).encode(), PIXELS, MOST)
        assert (rows.columns[UNNAMED].tolist(), rows.count, unknown) == ([[1, 2], [3, 4]], 2, [])
    assert "Send it as instances or inputs" in refusal({"dataframe_records": [{"x": 1}]}, PIXELS)
    assert "The body has no rows" in refusal({"instances": {"x": 1}}, PIXELS)
    assert "Send JSON" in csv_refusal("x\n1\n", PIXELS)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*NAMES, "columns", "data"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@unsaved
@given(st.dictionaries(st.sampled_from([*FORMS, "params"]), ANY_JSON), st.sampled_from([FLIGHTS, PIXELS]))
def test_any_json_is_read_or_refused(content: Any, schema: Schema) -> None:
    try:
        rows, _ = rows_of_json(json.dumps(content).encode(), schema, MOST)
    except (BodyRefusedError, RowsRefusedError, TooManyRowsError):
        return
    assert 0 < rows.count <= MOST
    assert all(len(values) == rows.count for values in rows.columns.values())


# CSV


def csv_refusal(text: str | bytes, schema: Schema = FLIGHTS) -> str:
    with pytest.raises((BodyRefusedError, RowsRefusedError, TooManyRowsError)) as refused:
        rows_of_csv(text if isinstance(text, bytes) else text.encode(), schema, MOST)
    return str(refused.value)


# With what has to be quoted, and never what pandas takes for a gap.
CSV_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])).map('"x", {}x'.format)


@unsaved
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "carrier": CSV_TEXTS,
                "temp": st.floats(-1e6, 1e6),
                "hour": st.integers(-(2**63), 2**63 - 1),
                "holiday": st.booleans(),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_csv_makes_the_rows_that_mlflow_makes_of_it(records: list[dict[str, Any]]) -> None:
    text = pd.DataFrame(records).to_csv(index=False)

    theirs = _enforce_schema(scoring_server.parse_csv_input(io.StringIO(text), SIGNATURE), SIGNATURE)
    ours = FLIGHTS.model_input(rows_of_csv(text.encode(), FLIGHTS, MOST)[0])

    assert isinstance(theirs, pd.DataFrame)
    assert isinstance(ours, pd.DataFrame)
    # pandas reads numbers with small errors by default.
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-12)


def test_an_empty_field_of_csv_is_missing_and_a_byte_order_mark_is_not_part_of_the_name() -> None:
    rows, unknown = rows_of_csv(b"\xef\xbb\xbfcarrier,temp,hour,holiday,gate\n,,7,TRUE,a\n\n", FLIGHTS, MOST)

    assert unknown == ["gate"]
    assert [pd.isna(values[0]) for values in rows.columns.values()] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The body is empty"),
        (b"\xff\xfe", "The body is not CSV in UTF-8"),
        ('hour\n"7\n', "The body is not CSV in UTF-8"),
        ("hour,holiday\n", "The body has no rows"),
        ("hour,hour\n7,7\n", "column hour: the column occurs twice"),
        ("hour,holiday\n7\n", "row 0: it has 1 values for 2 columns"),
        ("hour,holiday\n7,true\nnoon,true\n", "row 1, column hour: 'noon' is not of type long"),
        ("hour,holiday\n7.5,true\n", "row 0, column hour: '7.5' is not of type long"),
        ("hour,holiday\n7,maybe\n", "row 0, column holiday: 'maybe' is not of type boolean"),
        ("hour,holiday\n99999999999999999999,true\n", "row 0, column hour: 99999999999999999999 is not a"),
        ("temp,hour,holiday\nwarm,7,true\n", "row 0, column temp: 'warm' is not of type double"),
        ("hour,holiday\n,true\n", "row 0, column hour: a value is required"),
        ("hour\n7\n", "column holiday: the column is required"),
        ("hour,holiday\n" + "7,true\n" * (MOST + 1), f"Send at most {MOST}"),
    ],
)  # fmt: skip
def test_csv_that_the_model_does_not_accept_is_refused(text: str | bytes, message: str) -> None:
    assert message in csv_refusal(text)


def csv_column(kind: str, fields: list[str]) -> list[Any]:
    """Return the values that fields of CSV are read as, in a column that may have gaps."""
    schema = Schema((Column("x", kind, required=False), Column("y", "string", required=True)))
    body = "x,y\n" + "".join(f"{field},a\n" for field in fields)
    return list(rows_of_csv(body.encode(), schema, MOST)[0].columns["x"])


@pytest.mark.parametrize("kind", ["double", "float"])
@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("1", 1), ("-1.5", -1.5), ("+5", 5), ("007", 7), (".5", 0.5), ("5.", 5), ("1e3", 1000),
        ("1E+3", 1000),
        ("2.5e-05", 2.5e-05), ("-0", 0), ("inf", math.inf), ("-inf", -math.inf), ("Infinity", math.inf),
        ("-Infinity", -math.inf), ('"1.5"', 1.5),
    ],
)  # fmt: skip
def test_csv_has_numbers_as_programs_write_them(kind: str, field: str, number: float) -> None:
    assert csv_column(kind, [field, field]) == pytest.approx([number] * 2)


@pytest.mark.parametrize("kind", ["long", "integer"])
@pytest.mark.parametrize(("field", "number"), [("1", 1), ("-1", -1), ("+5", 5), ("007", 7), ("-0", 0)])
def test_csv_has_whole_numbers_as_programs_write_them(kind: str, field: str, number: int) -> None:
    assert csv_column(kind, [field]) == [number]


NO_NUMBERS = [
    "1_000", " 1", "1 ", "\t1", "1\xa0", "0x10", "0b1", "\uff11", "\u0661", "--5", "+-5", "1,5", "1.5.5",
    "1e", "e5", ".", "+",
    "\u22125", "infinity", "Inf", "INF", "nan ", "NAN", "Nan", "null ", "NULL", "None", "true", "1f",
    "1d", "1L", "#N/A",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["double", "float", "long", "integer"])
@pytest.mark.parametrize("field", NO_NUMBERS)
def test_numbers_that_only_python_or_pandas_accept_are_refused_in_csv(kind: str, field: str) -> None:
    with pytest.raises(RowsRefusedError, match=rf"row 0, column x: .* is not of type {kind}"):
        csv_column(kind, [f'"{field}"'])


@pytest.mark.parametrize("field", ["1e3", "1.0", "1.", "inf", "1e400", "9" * 33])
@pytest.mark.parametrize("kind", ["long", "integer"])
def test_a_whole_number_of_csv_has_digits_only(kind: str, field: str) -> None:
    with pytest.raises(RowsRefusedError, match=f"is not of type {kind}"):
        csv_column(kind, [field])


@pytest.mark.parametrize("number", ["1e400", "-1e309", "9" * 400])
def test_a_number_beyond_the_range_of_floats_is_not_infinite(number: str) -> None:
    with pytest.raises(RowsRefusedError, match="is not of type double"):
        csv_column("double", [number])
    if "e" in number:
        assert "no float can hold" in refusal(f'{{"inputs": {{"temp": [{number}]}}}}'.encode())


@pytest.mark.parametrize(
    ("field", "truth"),
    [("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("FALSE", False)],
)
def test_csv_has_truth_values_as_programs_write_them(field: str, truth: bool) -> None:
    assert csv_column("boolean", [field]) == [truth]
    for wrong in (field.swapcase().title().swapcase(), f" {field}", field[0], "1", "0", "yes"):
        with pytest.raises(RowsRefusedError, match="is not of type boolean"):
            csv_column("boolean", [wrong])


@pytest.mark.parametrize("kind", ["double", "float", "long", "integer", "boolean", "datetime"])
@pytest.mark.parametrize("field", ["", '""', "NA", '"NA"', "NaN", "nan", "null"])
def test_a_missing_value_of_csv_is_empty_or_named(kind: str, field: str) -> None:
    assert pd.isna(csv_column(kind, [field])).all()


@pytest.mark.parametrize("field", ["NA", "NaN", "nan", "null", "N/A", "None", " "])
def test_a_text_of_csv_is_missing_only_if_it_is_empty(field: str) -> None:
    assert csv_column("string", [field, ""])[0] == field
    assert pd.isna(csv_column("string", [field, ""])[1])


@unsaved
@given(st.binary() | st.text().map(str.encode) | st.text("\",\r\n\0'x7").map(str.encode))
def test_any_bytes_are_read_as_csv_or_refused(body: bytes) -> None:
    for head in (b"", b"hour,holiday,carrier\n"):
        try:
            rows, _ = rows_of_csv(head + body, FLIGHTS, MOST)
        except (BodyRefusedError, RowsRefusedError, TooManyRowsError):
            continue
        assert 0 < rows.count <= MOST


# Answers


def theirs(output: Any) -> Any:
    """Return a response of MLflow's scoring server, with null for NaN, which is not JSON."""
    text = io.StringIO()
    scoring_server.predictions_to_json(output, text)
    return json.loads(text.getvalue(), parse_constant=lambda constant: None)


@pytest.mark.parametrize(
    "output",
    [
        np.array([0.1, math.nan, -math.inf]),
        np.array([[0.1, 0.2], [0.3, 0.4]]),
        np.array([[[1], [2]]], dtype="int8"),
        np.array([0.1, 1e-30], dtype="float32"),
        np.array(["late", None], dtype="object"),
        np.array(["late", "on time"]),
        np.array([True, False]),
        [0.1, 0.2],
        pd.Series([0.1, 0.2], name="score"),
        pd.DataFrame({"score": [0.1, math.nan], "why": ["wind", None]}),
        pd.DataFrame({"at": pd.to_datetime(["2026-01-31T12:00:00", "2026-02-28T00:00:00"])}),
        pd.DataFrame({"at": [datetime(2026, 1, 31, tzinfo=UTC)], "stops": [["JFK", "EWR"]]}),
        pd.DataFrame({"seats": pd.array([180, 90], dtype="Int64"), "sure": [True, False]}),
    ],
    ids=lambda output: type(output).__name__,
)
def test_responses_are_those_of_mlflows_scoring_server(output: Any) -> None:
    assert json.loads(scoring.response_body(output_rows(output, len(output)))) == theirs(output)


def test_missing_values_of_a_response_are_null() -> None:
    frame = pd.DataFrame(
        {
            "at": pd.Series([pd.NaT, pd.Timestamp("2026-01-31")]),
            "seats": pd.Series([pd.NA, 180], dtype="object"),
            "score": [math.nan, 0.5],
            "why": [None, "wind"],
        }
    )

    predictions = json.loads(scoring.response_body(output_rows(frame, 2)))["predictions"]

    assert predictions == [
        dict.fromkeys(frame),
        {"at": "2026-01-31T00:00:00", "seats": 180, "score": 0.5, "why": "wind"},
    ]


def test_bytes_in_an_answer_are_base64() -> None:
    output = pd.DataFrame({"image": [b"\x00\xff"]})

    assert json.loads(scoring.response_body(output_rows(output, 1))) == {"predictions": [{"image": "AP8="}]}


@unsaved
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_returned_to_the_last_digit(values: list[float]) -> None:
    outputs: Mapping[str, Any] = {UNNAMED: np.array(values)}

    assert json.loads(scoring.response_body(Rows(outputs, len(values))))["predictions"] == values
