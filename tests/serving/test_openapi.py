"""Tests the OpenAPI document: valid, with the columns and examples of the active models."""

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import openapi_spec_validator
import pandas as pd
import pytest
import requests
from fastapi import FastAPI, Request
from jsonschema import Draft202012Validator
from mlflow.models import ModelSignature
from mlflow.types import Schema as Signature
from mlflow.types import TensorSpec

from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.versions import Version
from ledgerline.serving import openapi
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.open_inference import inference_of
from ledgerline.serving.rows import UNNAMED, Rows
from ledgerline.serving.schema import KINDS, Column, Schema, Tensor
from ledgerline.serving.scoring import rows_of_csv, rows_of_json
from tests.serving.conftest import MODEL, Running

MOST = 100

ROWS = Rows(
    {
        "double": np.array([1.5, np.nan]),
        "float": np.array([0.25, 0.5], dtype="float32"),
        "long": np.array([2**60, -1]),
        "integer": np.array([1, 2], dtype="int32"),
        "boolean": np.array([True, False]),
        "string": np.array(["JFK", np.nan], dtype="object"),
        "binary": np.array([b"\x00", b"\xff"], dtype="object"),
        "datetime": np.array(["2026-01-31T12:00:00", "2026-02-28T00:00:00.5"], dtype="datetime64[ns]"),
    },
    2,
)
OPTIONAL = ("double", "string")
COLUMNS = Schema(tuple(Column(kind, kind, required=kind not in OPTIONAL) for kind in KINDS))
PIXELS = Schema(tensor=Tensor("float32", (-1, 2)))


def loaded(name: str, schema: Schema = COLUMNS, example: Rows = ROWS, number: int = 1) -> LoadedModel:
    """Return a model in memory."""
    outputs = Signature([TensorSpec(np.dtype("float64"), (-1, 2))])
    now = datetime.now(UTC)
    version = Version(name, number, "", "", now, {})
    return LoadedModel(
        version,
        "",
        schema,
        ModelSignature(None, outputs),
        example,
        "",
        now,
        StoredModel("sklearn", None, "predict", lambda rows: rows),
    )


@pytest.fixture(scope="module")
def plain_document() -> dict[str, Any]:
    """Return the document that FastAPI makes."""
    app = FastAPI()

    @app.post("/invocations", **openapi.INVOCATIONS)
    async def invocations(request: Request) -> None: ...

    @app.post("/models/{name}/invocations", **openapi.INVOCATIONS)
    async def model_invocations(request: Request, name: str) -> None: ...

    @app.post("/v2/models/{name}/versions/{version}/infer", **openapi.INFER)
    async def infer(request: Request, name: str, version: str) -> None: ...

    return app.openapi()


def operation(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    return document["paths"][path]["post"]


def examples(document: Mapping[str, Any], path: str, kind: str = "application/json") -> dict[str, Any]:
    found = operation(document, path)["requestBody"]["content"][kind]["examples"]
    return {name: example["value"] for name, example in found.items()}


def matches(document: Mapping[str, Any], name: str, value: Any) -> bool:
    """Return whether a value fits one of the schemas of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return Draft202012Validator(schema).is_valid(value)


def test_the_document_is_valid_with_any_models(plain_document: dict[str, Any]) -> None:
    pixels = loaded("pixels", PIXELS, Rows({UNNAMED: np.zeros((2, 2), "float32")}, 2))
    for models in ({}, {"late": loaded("late")}, {"late": loaded("late"), "pixels": pixels}):
        openapi_spec_validator.validate(openapi.with_examples(plain_document, models))


def test_the_document_of_fastapi_is_not_changed(plain_document: dict[str, Any]) -> None:
    before = copy.deepcopy(plain_document)

    openapi.with_examples(plain_document, {"late": loaded("late")})

    assert plain_document == before


def test_the_columns_have_their_types_and_are_marked_as_required(
    plain_document: dict[str, Any],
) -> None:
    document = openapi.with_examples(plain_document, {"late": loaded("late")})

    [records] = [
        one["properties"]["dataframe_records"]
        for one in document["components"]["schemas"]["Invocation"]["oneOf"]
        if "dataframe_records" in one["properties"]
    ]
    record = records["items"]
    assert record["required"] == [kind for kind in KINDS if kind not in OPTIONAL]
    assert record["properties"]["double"] == {"type": ["number", "null"]}
    assert record["properties"]["long"] == {"type": "integer"}
    assert record["properties"]["boolean"] == {"type": "boolean"}
    assert record["properties"]["binary"] == {"type": "string", "contentEncoding": "base64"}


def test_every_example_fits_its_schema_and_has_the_rows_of_the_model_s_example(
    plain_document: dict[str, Any],
) -> None:
    document = openapi.with_examples(plain_document, {"late": loaded("late")})

    bodies = examples(document, "/invocations")
    assert list(bodies) == ["dataframe_split", "dataframe_records", "instances", "inputs"]
    for body in bodies.values():
        assert matches(document, "Invocation", body)
        assert_same(rows_of_json(json.dumps(body).encode(), COLUMNS, MOST)[0])
    [text] = examples(document, "/invocations", "text/csv").values()
    assert_same(rows_of_csv(text.encode(), COLUMNS, MOST)[0])
    [body] = examples(document, "/v2/models/{name}/versions/{version}/infer").values()
    assert matches(document, "InferenceRequest", body)
    assert_same(inference_of(json.dumps(body).encode(), COLUMNS, MOST).rows)


def assert_same(found: Rows) -> None:
    frame, expected = COLUMNS.model_input(found), COLUMNS.model_input(ROWS)
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(expected, pd.DataFrame)
    pd.testing.assert_frame_equal(frame, expected)


def test_only_the_first_rows_of_an_example_are_in_the_document(plain_document: dict[str, Any]) -> None:
    many = loaded("pixels", PIXELS, Rows({UNNAMED: np.zeros((500, 2), "float32")}, 500))

    document = openapi.with_examples(plain_document, {"pixels": many})

    assert examples(document, "/invocations") == {"instances": {"instances": [[0.0, 0.0], [0.0, 0.0]]}}
    [body] = examples(document, "/v2/models/{name}/versions/{version}/infer").values()
    assert inference_of(json.dumps(body).encode(), PIXELS, MOST).rows.columns[UNNAMED].shape == (2, 2)


def test_a_body_of_two_forms_or_without_a_required_column_is_not_of_the_schema(
    plain_document: dict[str, Any],
) -> None:
    document = openapi.with_examples(plain_document, {"late": loaded("late")})
    records = examples(document, "/invocations")["instances"]["instances"]

    assert not matches(document, "Invocation", {"instances": records, "dataframe_records": records})
    assert not matches(document, "Invocation", {"instances": [{"string": "JFK"}]})
    assert not matches(document, "Invocation", {"instances": records, "params": {"threshold": 0.5}})


def test_the_bodies_of_several_models_are_distinguished(plain_document: dict[str, Any]) -> None:
    pixels = loaded("pixels", PIXELS, Rows({UNNAMED: np.zeros((2, 2), "float32")}, 2), number=7)

    document = openapi.with_examples(plain_document, {"late": loaded("late"), "pixels": pixels})

    assert set(examples(document, "/invocations")) == {
        "dataframe_split", "dataframe_records", "instances", "inputs"
    }  # fmt: skip
    named = examples(document, "/models/{name}/invocations")
    assert "late: inputs" in named
    assert all(matches(document, "NamedInvocation", body) for body in named.values())
    assert not matches(document, "Invocation", named["pixels: instances"])
    parameters = operation(document, "/v2/models/{name}/versions/{version}/infer")["parameters"]
    assert {one["name"]: one["schema"]["enum"] for one in parameters} == {
        "name": ["late", "pixels"],
        "version": ["1", "7"],
    }


def test_without_a_model_any_columns_are_described(plain_document: dict[str, Any]) -> None:
    document = openapi.with_examples(plain_document, {})

    assert matches(document, "Invocation", {"instances": [{"any": 1}]})
    assert "examples" not in operation(document, "/invocations")["requestBody"]["content"]["text/csv"]


def test_every_possible_status_is_described(plain_document: dict[str, Any]) -> None:
    document = openapi.with_examples(plain_document, {})

    everywhere = {"200", "400", "401", "408", "413", "415", "429", "503", "504"}
    assert set(operation(document, "/invocations")["responses"]) == everywhere
    assert set(operation(document, "/models/{name}/invocations")["responses"]) == everywhere | {"404"}


def test_each_example_of_the_document_can_be_tried_out_as_it_is(shared_service: Running) -> None:
    document = requests.get(f"{shared_service.url}/openapi.json", timeout=10).json()
    openapi_spec_validator.validate(document)

    tried = 0
    for path, methods in document["paths"].items():
        for kind, content in methods.get("post", {}).get("requestBody", {}).get("content", {}).items():
            for example in content["examples"].values():
                value = example["value"]
                answer = requests.post(
                    shared_service.url + path.replace("{name}", MODEL).replace("{version}", "1"),
                    data=value if isinstance(value, str) else json.dumps(value),
                    headers={"Content-Type": kind},
                    timeout=10,
                )
                assert answer.status_code == 200, answer.text
                [schema] = methods["post"]["responses"]["200"]["content"].values()
                assert matches(document, schema["schema"]["$ref"].rpartition("/")[2], answer.json())
                tried += 1
    assert tried == 2 * 5 + 2


def test_errors_match_the_document(shared_service: Running) -> None:
    document = requests.get(f"{shared_service.url}/openapi.json", timeout=10).json()

    ours = requests.post(
        f"{shared_service.url}/invocations", json={"instances": [{"hour": "noon"}]}, timeout=10
    )
    theirs = requests.post(f"{shared_service.url}/v2/models/{MODEL}/infer", json={}, timeout=10)

    assert ours.status_code == theirs.status_code == 400
    hour = {"row": 0, "column": "hour", "text": "'noon' is not an integer"}
    assert hour in ours.json()["problems"]
    assert matches(document, "Error", ours.json())
    assert matches(document, "InferenceError", theirs.json())
