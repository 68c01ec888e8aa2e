"""Tests bodies and responses of the Open Inference Protocol, without a service."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.versions import Version
from ledgerline.serving import open_inference
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.open_inference import DATATYPES, Inference, inference_of
from ledgerline.serving.request_errors import BodyRefusedError, RowsRefusedError, TooManyRowsError
from ledgerline.serving.rows import UNNAMED, Rows, output_rows
from ledgerline.serving.schema import KINDS, Column, Schema, Tensor

unsaved = settings(database=None, deadline=None)

MOST = 1000

FLIGHTS = Schema(
    (
        Column("carrier", "string", required=False),
        Column("temp", "double", required=False),
        Column("distance", "double", required=True),
        Column("hour", "long", required=True),
        Column("holiday", "boolean", required=True),
    )
)
PIXELS = Schema(tensor=Tensor("float32", (-1, 2, 2)))


def tensor(
    name: str, datatype: str, data: Sequence[Any], shape: Sequence[int] | None = None
) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "data": data, "shape": shape or [len(data)]}


def flights(**changed: Any) -> dict[str, Any]:
    """A request for two flights; a tensor that is None is left out."""
    tensors = {
        "carrier": tensor("carrier", "BYTES", ["AA", None]),
        "temp": tensor("temp", "FP64", [51.5, None]),
        "distance": tensor("distance", "FP64", [700, 1200.5]),
        "hour": tensor("hour", "INT64", [7, 22]),
        "holiday": tensor("holiday", "BOOL", [True, False]),
    }
    return {"inputs": [one for one in (tensors | changed).values() if one is not None]}


def read(content: Any, schema: Schema = FLIGHTS) -> Inference:
    return inference_of(json.dumps(content).encode(), schema, MOST)


def refusal(content: Any, schema: Schema = FLIGHTS) -> str:
    with pytest.raises((BodyRefusedError, RowsRefusedError, TooManyRowsError)) as refused:
        read(content, schema)
    return str(refused.value)


def test_a_tensor_for_each_column_makes_rows() -> None:
    found = read(flights() | {"id": "42", "outputs": [{"name": "predictions"}]})

    frame = FLIGHTS.model_input(found.rows)
    assert isinstance(frame, pd.DataFrame)
    expected = pd.DataFrame(
        {
            "carrier": pd.Series(["AA", np.nan], dtype="object"),
            "temp": [51.5, np.nan],
            "distance": [700.0, 1200.5],
            "hour": [7, 22],
            "holiday": [True, False],
        }
    )
    pd.testing.assert_frame_equal(frame, expected)
    assert (found.id, found.outputs, found.unknown) == ("42", ("predictions",), [])


def test_a_column_may_be_flat_or_nested_and_have_a_second_axis_of_one() -> None:
    flat = read(flights(hour=tensor("hour", "INT64", [7, 22], [2, 1])))
    nested = read(flights(hour=tensor("hour", "INT64", [[7], [22]], [2, 1])))

    assert flat.rows.columns["hour"].tolist() == nested.rows.columns["hour"].tolist() == [7, 22]


def test_any_number_fits_a_double() -> None:
    for datatype in (*open_inference.INTEGERS, *open_inference.FLOATS):
        found = read(flights(distance=tensor("distance", datatype, [70, 120])))
        assert found.rows.columns["distance"].tolist() == [70.0, 120.0]


def test_parameters_are_accepted_everywhere_and_ignored() -> None:
    content = flights(hour=tensor("hour", "INT64", [7, 22]) | {"parameters": {"content_type": "np"}})
    content |= {
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}],
    }

    assert read(content).rows.count == 2


def test_optional_columns_may_be_left_out_and_unknown_ones_are_named() -> None:
    gate = tensor("gate", "FP64", [1, 2, 3, 4], [2, 2])

    found = read(flights(carrier=None, gate=gate))

    assert found.unknown == ["gate"]
    assert pd.isna(found.rows.columns["carrier"]).all()


def test_moments_are_text() -> None:
    schema = Schema((Column("at", "datetime", required=True),))

    found = read({"inputs": [tensor("at", "BYTES", ["2026-01-31T12:00:00+01:00"])]}, schema)

    assert found.rows.columns["at"][0] == np.datetime64("2026-01-31T11:00:00")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tensor("hour", "FP64", [7.0, 22.0]), "its datatype is FP64, the model takes long: send INT64"),
        (tensor("temp", "BYTES", ["1", "2"]), "its datatype is BYTES, the model takes double: send FP64"),
        (tensor("hour", "INT65", [7, 22]), "inputs[3].datatype is 'INT65'; it should be 'BOOL', 'INT8'"),
        (tensor("hour", "INT64", [7, 22, 23], [2]), "it has 3 values, its shape [2] needs 2"),
        (tensor("hour", "INT64", [7, 22, 23]), "it has 3 rows, carrier has 2"),
        (tensor("hour", "INT64", [[7]], [2, 1]), "it has 1 rows, its shape [2, 1] needs 2"),
        (tensor("hour", "INT64", [7] * 4, [2, 2]), "its shape is [2, 2]; a column has [rows] or [rows, 1]"),
        (tensor("hour", "INT64", [7, 22], [2, 0]), "its shape is [2, 0]"),
        (
            tensor("hour", "INT64", [7, 22], [-2]),
            "inputs[3].shape[0] is -2; it should be greater than or equal to 0",
        ),
        (
            {"name": "hour", "shape": 2, "datatype": "INT64", "data": []},
            "inputs[3].shape is 2; it should be a list",
        ),
        (
            {"name": "hour", "shape": [2], "datatype": "INT64", "data": "7"},
            "inputs[3].data is '7'; it should be a list",
        ),
    ],
)
def test_a_problem_of_a_tensor_names_it(wrong: dict[str, Any], message: str) -> None:
    assert f"column {wrong['name']}: {message}" in refusal(flights(**{wrong["name"]: wrong}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tensor("hour", "INT64", [7, None]), "a value is required"),
        (tensor("hour", "INT64", [7, 2.5]), "2.5 is not an integer"),
        (tensor("hour", "INT8", [7, 300]), "300 is not an integer between -128 and 127"),
        (tensor("hour", "UINT64", [7, 2**63]), "9223372036854775808 is not an integer"),
        (tensor("holiday", "BOOL", [True, 1]), "1 is not true or false"),
        (tensor("temp", "FP64", [1.0, True]), "True is not a number"),
        (tensor("temp", "FP64", [1.0, [2.0]]), "[2.0] is not a number"),
        (tensor("carrier", "BYTES", ["AA", 7]), "7 is not a string"),
        (tensor("hour", "INT64", [[7], [1, 2]], [2, 1]), "its data are not of its shape [2, 1]"),
    ],
)
def test_a_problem_of_a_value_names_its_row(wrong: dict[str, Any], message: str) -> None:
    assert f"row 1, column {wrong['name']}: {message}" in refusal(flights(**{wrong["name"]: wrong}))


def test_each_column_is_there_once() -> None:
    assert refusal(flights(hour=None)) == "column hour: the column is required."
    again = tensor("hour", "INT64", [7, 22])
    assert refusal(flights(again=again)) == "column hour: the tensor occurs twice."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "The body is []; it should be an object. Send a JSON object whose inputs are tensors"),
        ({}, "inputs is missing"),
        ({"inputs": []}, "inputs is []; it should be a list with at least one item"),
        ({"inputs": {}}, "inputs is {}; it should be a list"),
        ({"inputs": ["hour"]}, "inputs[0] is 'hour'; it should be an object"),
        ({"inputs": [{"shape": [1], "datatype": "INT64", "data": [1]}]}, "inputs[0].name is missing"),
        (flights() | {"id": 42}, "id is 42; it should be a string"),
        (flights() | {"outputs": False}, "outputs is False; it should be a list"),
        (flights() | {"outputs": ["predictions"]}, "outputs[0] is 'predictions'; it should be an object"),
        (flights() | {"parameters": []}, "parameters is []; it should be an object"),
        ({"inputs": [tensor("hour", "INT64", [])]}, "The body has no rows"),
        ({"inputs": [tensor("hour", "INT64", [1], [MOST + 1])]}, f"Send at most {MOST} at once"),
    ],
)
def test_a_body_that_is_not_of_the_protocol_is_refused(content: Any, message: str) -> None:
    assert message in refusal(content)


def test_binary_tensors_are_refused_with_a_remedy() -> None:
    binary = {"name": "hour", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}}

    assert "inputs[3].parameters: binary tensors are not supported; send their data as JSON" in refusal(
        flights(hour=binary)
    )
    with pytest.raises(BodyRefusedError, match="send their data as JSON"):
        open_inference.require_no_binary({"Inference-Header-Content-Length": "12"})
    open_inference.require_no_binary({})


def test_several_bad_rows_are_named_in_their_order() -> None:
    content = flights(temp=tensor("temp", "FP64", [1.0, "warm"]), hour=tensor("hour", "INT64", ["early", 22]))

    with pytest.raises(RowsRefusedError) as refused:
        read(content)

    assert [(problem.row, problem.column) for problem in refused.value.problems] == [(0, "hour"), (1, "temp")]


def test_a_model_of_one_array_accepts_a_tensor_of_any_name() -> None:
    flat = read({"inputs": [tensor("x", "FP32", [1, 2, 3, 4, 5, 6, 7, None], [2, 2, 2])]}, PIXELS)
    nested = read({"inputs": [tensor("y", "INT8", [[[1, 2], [3, 4]]], [1, 2, 2])]}, PIXELS)

    array = flat.rows.columns[UNNAMED]
    assert (array.dtype, array.shape, flat.rows.count) == (np.dtype("float32"), (2, 2, 2), 2)
    assert array.ravel()[:7].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.isnan(array[1, 1, 1])
    assert nested.rows.columns[UNNAMED].tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([tensor("x", "FP32", [1] * 4, [1, 4])], "column x: its shape is [1, 4], the model takes [-1, 2, 2]"),
        ([tensor("x", "FP32", [1] * 6, [1, 2, 3])], "column x: the shape is (1, 2, 3)"),
        ([tensor("x", "BYTES", ["a"] * 4, [1, 2, 2])], "column x: the values are"),
        ([tensor("x", "INT8", [1, 2, 3, None] * 2, [2, 2, 2])], "row 0, column x: a value is required"),
        (
            [tensor("x", "FP64", [1, 2, 3, 4, 5, 6, 7, "8"], [2, 2, 2])],
            "row 1, column x: '8' is not a number",
        ),
        ([tensor("x", "FP32", [1], [1, 1, 1])] * 2, "the tensor occurs twice"),
        ([tensor("x", "FP32", [1], [1]), tensor("y", "FP32", [1], [1])], "takes one tensor; the body has 2"),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(inputs: list[Any], message: str) -> None:
    assert message in refusal({"inputs": inputs}, PIXELS)


def test_a_number_too_large_for_an_array_of_whole_numbers_is_refused() -> None:
    schema = Schema(tensor=Tensor("int32", (-1,)))

    assert "column x: some values are not between" in refusal(
        {"inputs": [tensor("x", "INT64", [2**40])]}, schema
    )


def test_a_shape_of_many_axes_costs_nothing() -> None:
    shape = [2**63] * 10_000

    assert "its shape is" in refusal(flights(hour=tensor("hour", "INT64", [1], [2, *shape])))


def test_requesting_an_unknown_output_is_refused() -> None:
    asked = read(flights() | {"outputs": [{"name": "score"}]})

    open_inference.require_outputs(asked, ("score", "label"))
    with pytest.raises(BodyRefusedError, match="The model has no output 'score'; it has predictions"):
        open_inference.require_outputs(asked, ("predictions",))


def asked_for(*outputs: str, id: str | None = None) -> Inference:  # noqa: A002
    return Inference(Rows({}, 0), id, outputs, [])


def outputs_of(output: Any, *names: str) -> list[dict[str, Any]]:
    count = len(output)
    return json.loads(open_inference.response_body(output_rows(output, count), "m", 3, asked_for(*names)))[
        "outputs"
    ]


def test_an_answer_names_the_model_its_version_and_the_request() -> None:
    content = json.loads(
        open_inference.response_body(output_rows(np.array([0.1, np.nan]), 2), "late", 7, asked_for(id="42"))
    )

    assert content == {
        "model_name": "late",
        "model_version": "7",
        "id": "42",
        "outputs": [{"name": "predictions", "datatype": "FP64", "shape": [2], "data": [0.1, None]}],
    }


def test_an_array_is_flat_with_its_shape() -> None:
    assert outputs_of(np.asfortranarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])) == [
        {"name": "predictions", "datatype": "FP64", "shape": [3, 2], "data": [1, 2, 3, 4, 5, 6]}
    ]


def test_a_frame_is_a_tensor_for_each_column() -> None:
    frame = pd.DataFrame(
        {
            "score": np.array([0.5, 0.25], dtype="float32"),
            "label": ["late", None],
            "seats": pd.Series([180, pd.NA], dtype="object"),
            "sure": [True, False],
            "at": pd.Series([pd.Timestamp("2026-01-31T12:00:00"), pd.NaT]),
            "stops": [["JFK"], []],
        }
    )

    found = {tensor["name"]: (tensor["datatype"], tensor["data"]) for tensor in outputs_of(frame)}

    assert found == {
        "score": ("FP32", [0.5, 0.25]),
        "label": ("BYTES", ["late", None]),
        "seats": ("INT64", [180, None]),
        "sure": ("BOOL", [True, False]),
        "at": ("BYTES", ["2026-01-31T12:00:00", None]),
        "stops": ("BYTES", ['["JFK"]', "[]"]),
    }
    assert [tensor["name"] for tensor in outputs_of(frame, "sure", "score")] == ["sure", "score"]


def test_the_only_output_has_the_name_that_the_signature_gave_it() -> None:
    array = np.array([0.5])

    assert [one["name"] for one in outputs_of(pd.Series(array, name="score"))] == ["score"]
    assert [one["name"] for one in outputs_of(array, "score")] == ["score"]
    assert [one["name"] for one in outputs_of(array)] == ["predictions"]


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_every_number_is_returned_unchanged(datatype: str) -> None:
    numpy_name = {"BOOL": "bool"}.get(datatype, datatype.lower().replace("fp", "float"))
    values = np.array([0, 1, 100], dtype=numpy_name)

    [found] = outputs_of(values.astype(values.dtype.newbyteorder(">")))

    assert found["datatype"] == datatype
    assert np.array_equal(np.array(found["data"], dtype=numpy_name), values)


def test_metadata_describe_the_inputs_and_outputs_of_a_model() -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType
    from mlflow.types import Schema as Signature

    kinds = [ColSpec(DataType[kind], kind, required=kind != "double") for kind in KINDS]
    signature = ModelSignature(
        Signature(list(kinds)),
        Signature([ColSpec(DataType.double, "score"), ColSpec(DataType.string, "why")]),
    )
    schema = Schema(tuple(Column(kind, kind, required=kind != "double") for kind in KINDS))
    version = Version("late", 7, "", "", datetime.now(UTC), {})
    loaded = LoadedModel(
        version,
        "",
        schema,
        signature,
        Rows({}, 0),
        "",
        datetime.now(UTC),
        StoredModel("sklearn", None, "predict", lambda rows: rows),
    )

    found = open_inference.model_metadata(loaded)

    assert (found["name"], found["versions"], found["platform"]) == ("late", ["7"], "mlflow_sklearn")
    assert {one["name"]: one["datatype"] for one in found["inputs"]} == {
        "double": "FP64",
        "float": "FP32",
        "long": "INT64",
        "integer": "INT32",
        "boolean": "BOOL",
        "string": "BYTES",
        "binary": "BYTES",
        "datetime": "BYTES",
    }
    assert found["inputs"][0] == {
        "name": "double",
        "datatype": "FP64",
        "shape": [-1],
        "parameters": {"optional": True},
    }
    assert found["outputs"] == [
        {"name": "score", "datatype": "FP64", "shape": [-1]},
        {"name": "why", "datatype": "BYTES", "shape": [-1]},
    ]
    assert open_inference.output_names(signature) == ("score", "why")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
ANY_TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([column.name for column in FLIGHTS.columns]) | ANY_JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | ANY_JSON,
        "datatype": st.sampled_from(list(DATATYPES)) | ANY_JSON,
        "data": st.lists(ANY_JSON, max_size=4) | ANY_JSON,
        "parameters": ANY_JSON,
    },
)


@unsaved
@given(
    st.lists(ANY_TENSOR, max_size=4),
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), ANY_JSON),
    st.sampled_from([FLIGHTS, PIXELS, Schema(tensor=Tensor("object", (-1,)))]),
)
def test_any_json_is_read_or_refused(inputs: Any, more: dict[str, Any], schema: Schema) -> None:
    with suppress(BodyRefusedError, RowsRefusedError, TooManyRowsError):
        found = read({"inputs": inputs} | more, schema)
        assert 0 < found.rows.count <= MOST
        assert all(len(values) == found.rows.count for values in found.rows.columns.values())


@unsaved
@given(st.data())
def test_rows_survive_the_way_through_a_request(data: st.DataObject) -> None:
    strategies: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
        "carrier": ("BYTES", st.none() | st.text()),
        "temp": ("FP64", st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        "distance": ("FP64", st.floats(allow_nan=False, allow_infinity=False)),
        "hour": ("INT64", st.integers(-(2**63), 2**63 - 1)),
        "holiday": ("BOOL", st.booleans()),
    }
    count = data.draw(st.integers(1, 5))
    sent = {
        name: data.draw(st.lists(one, min_size=count, max_size=count))
        for name, (_, one) in strategies.items()
    }
    inputs = [tensor(name, strategies[name][0], values) for name, values in sent.items()]

    found = read({"inputs": inputs}).rows

    got = {
        name: [None if gone else value for value, gone in zip(values.tolist(), pd.isna(values), strict=True)]
        for name, values in found.columns.items()
    }
    assert got == sent
