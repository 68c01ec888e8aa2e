"""Tests the real service with any body: it responds with a prediction, or with an error in JSON."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import MODEL, Running

PATHS = ("/invocations", f"/models/{MODEL}/invocations", f"/v2/models/{MODEL}/infer")
COLUMNS = ("carrier", "origin", "temp", "wind_speed", "distance", "hour", "holiday")
ROW = ("AA", "JFK", 51.5, 9.2, 700.5, 7, False)
DATATYPES = ("BYTES", "BYTES", "FP64", "FP64", "FP64", "INT64", "BOOL")
REQUIRED = ("distance", "hour", "holiday")

EXTREMES = (10**400, -(10**400), 2**63, 2**64, 1e308, math.inf, -math.inf, math.nan, "\ud800", "\0")
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(EXTREMES)
)  # fmt: skip
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FORMS = st.sampled_from(
    ["dataframe_split", "dataframe_records", "instances", "inputs", "outputs", "params", "id", "parameters"]
)

# Each example is a request, and the service is the same for all.
BOUNDED = settings(
    max_examples=60, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ask(
    service: Running, http: requests.Session, path: str, body: bytes, kind: str | None
) -> requests.Response:
    """Send a request; the response must be a prediction, or an error in JSON that is the client's."""
    headers = {"Content-Type": kind} if kind is not None else {}
    response = http.post(f"{service.url}{path}", data=body, headers=headers, timeout=30)
    content = response.json()
    if response.status_code == 200:
        assert "predictions" in content or "outputs" in content
    else:
        assert response.status_code in (400, 413, 415), (response.status_code, content)
        message = content["error"] if path.startswith("/v2") else content["message"]
        assert message
        assert set(content) <= (
            {"error"} if path.startswith("/v2") else {"error_code", "message", "problems"}
        )
    return response


def written(content: Any) -> bytes:
    """Write JSON as a lenient client does: with NaN and infinity, and with escaped lone surrogates."""
    return json.dumps(content).encode()


@BOUNDED
@given(st.sampled_from(PATHS), ANY_JSON | st.dictionaries(FORMS, ANY_JSON, max_size=3))
def test_any_json_gets_an_answer(
    shared_service: Running, http: requests.Session, path: str, content: Any
) -> None:
    ask(shared_service, http, path, written(content), "application/json")


@BOUNDED
@given(
    st.sampled_from(PATHS),
    st.binary(max_size=200),
    st.sampled_from(
        ["application/json", "text/csv", "application/json; charset=utf-8", "", None, "text/html"]
    ),
)
def test_any_bytes_of_any_type_get_an_answer(
    shared_service: Running, http: requests.Session, path: str, body: bytes, kind: str | None
) -> None:
    ask(shared_service, http, path, body, kind)


def body_with(path: str, form: str, cells: list[list[Any]]) -> Any:
    """Rows in one of the forms."""
    if path.startswith("/v2"):
        return {
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype,
                    "shape": [len(cells)],
                    "data": [row[column] for row in cells],
                }
                for column, (name, datatype) in enumerate(zip(COLUMNS, DATATYPES, strict=True))
            ]
        }
    if form == "dataframe_split":
        return {form: {"columns": COLUMNS, "data": cells}}
    if form == "inputs":
        return {form: {name: [row[column] for row in cells] for column, name in enumerate(COLUMNS)}}
    return {form: [dict(zip(COLUMNS, row, strict=True)) for row in cells]}


ONE_FORM = st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"])


def has_half_a_character(value: Any) -> bool:
    """Return whether a value cannot be encoded in UTF-8, which makes the body wrong."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def fits(column: str, value: Any) -> bool:
    """Return whether a value fits a column of the signature."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return column not in REQUIRED
    match column:
        case "carrier" | "origin":
            return isinstance(value, str) and not has_half_a_character(value)
        case "hour":
            return type(value) is int and -(2**63) <= value < 2**63
        case "holiday":
            return isinstance(value, bool)
        case _:
            return type(value) is float or (type(value) is int and abs(value) < 10**308)


@dataclass(frozen=True)
class Cell:
    """A value in a place."""

    row: int
    column: str
    value: Any


CELLS = st.builds(
    Cell,
    st.integers(0, 2),
    st.sampled_from(COLUMNS),
    SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS, max_size=2),
)


@settings(BOUNDED, max_examples=150)
@given(st.sampled_from(PATHS), ONE_FORM, CELLS)
def test_a_wrong_cell_is_named_by_row_and_column(
    shared_service: Running, http: requests.Session, path: str, form: str, cell: Cell
) -> None:
    rows: list[list[Any]] = [list(ROW), list(ROW), list(ROW)]
    rows[cell.row][COLUMNS.index(cell.column)] = cell.value
    body = written(body_with(path, form, rows))

    response = ask(shared_service, http, path, body, "application/json")

    if response.status_code == 200:
        assert fits(cell.column, cell.value)
    elif not fits(cell.column, cell.value) and not has_half_a_character(cell.value):
        content = response.json()
        message = content["error"] if path.startswith("/v2") else content["message"]
        assert f"row {cell.row}, column {cell.column}: " in message
        if not path.startswith("/v2"):
            problem = content["problems"][0]
            assert (problem["row"], problem["column"]) == (cell.row, cell.column)


@BOUNDED
@given(st.sampled_from(PATHS), ONE_FORM, st.data())
def test_a_damaged_body_gets_an_answer(
    shared_service: Running, http: requests.Session, path: str, form: str, data: st.DataObject
) -> None:
    body = bytearray(written(body_with(path, form, [list(ROW), list(ROW)])))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body) - 1))
        body[start : start + data.draw(st.integers(0, 5))] = data.draw(
            st.sampled_from([b"", b"null", b"[]", b"{}", b'"', b"1e999", b"-", b"\xff", b",", b"]"])
        )

    ask(shared_service, http, path, bytes(body), "application/json")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("depth", [100, 900, 1020, 5000, 200_000])
def test_deeply_nested_bodies_are_refused_and_other_requests_are_answered(
    shared_service: Running, http: requests.Session, path: str, depth: int
) -> None:
    deep = b"[" * depth + b"]" * depth
    for body in (
        deep,
        b'{"inputs": ' + deep + b"}",
        b'{"instances": [{"distance": ' + deep + b', "hour": 1, "holiday": true}]}',
        b'{"dataframe_split": {"columns": ["hour"], "data": [[' + deep + b"]]}}",
        b'{"inputs": [{"name": "hour", "datatype": "INT64", "shape": [1], "data": [' + deep + b"]}]}",
        b'{"inputs": [{"name": "hour", "datatype": ' + deep + b', "shape": [1], "data": [1]}]}',
        b'{"a": ' * depth + b"1" + b"}" * depth,
    ):
        assert ask(shared_service, http, path, body, "application/json").status_code == 400


def test_a_column_that_is_there_twice_is_refused(shared_service: Running, http: requests.Session) -> None:
    content = {"dataframe_split": {"columns": ["hour", "hour"], "data": [[1, 2]]}}

    response = ask(shared_service, http, "/invocations", written(content), "application/json")

    assert response.json()["problems"] == [{"row": None, "column": "hour", "text": "the column occurs twice"}]


def test_csv_names_the_row_of_a_field_that_is_not_a_number(
    shared_service: Running, http: requests.Session
) -> None:
    body = b"distance,hour,holiday\n700,7,false\n800,noon,true\n"

    response = ask(shared_service, http, "/invocations", body, "text/csv")

    assert (response.json()["problems"][0]["row"], response.json()["problems"][0]["column"]) == (1, "hour")


@pytest.mark.parametrize(
    "kind", [None, "", "application/x-www-form-urlencoded", "text/plain", "application/xml"]
)
def test_another_type_of_body_is_refused_with_the_accepted_ones(
    shared_service: Running, http: requests.Session, kind: str | None
) -> None:
    response = ask(shared_service, http, "/invocations", b"hour=7", kind)

    assert response.status_code == 415
    assert "application/json" in response.json()["message"]
