"""Tests optional columns of every type of MLflow: with values, null, or absent."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving.conftest import Running, ServedModels, running, serving_settings
from tests.serving.echo_versions import MAYBE, VALUES, echo_version

ECHO = "echo"
SECONDS = 120.0

RETURNED = VALUES | {"binary": "bytes 00ff", "datetime": "moment 2013-05-01T12:00:00"}
REQUIRED = dict(VALUES)


@pytest.fixture(scope="module")
def service(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a model that returns its input, by MLflow's pyfunc."""
    folder = tmp_path_factory.mktemp("echo")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    models = ServedModels(f"sqlite:///{folder}/mlflow.db", folder)
    models.serve(echo_version(models, ECHO, list(VALUES)))
    names = {"LEDGERLINE_SERVING_MODELS": ECHO, "LEDGERLINE_SERVING_UNPICKLE": ECHO}
    with running(serving_settings(folder / "home", models.uri, **names)) as started:
        yield started


def returned_rows(service: Running, body: dict[str, Any], path: str = "/invocations") -> list[dict[str, Any]]:
    """Return the rows that the model was given."""
    answer = requests.post(f"{service.url}{path}", json=body, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    predictions = content["predictions"] if "predictions" in content else content["outputs"][0]["data"]
    return [json.loads(row) for row in predictions]


@pytest.mark.parametrize("kind", list(VALUES))
def test_an_optional_column_is_served_there_null_and_absent(service: Running, kind: str) -> None:
    name, value = MAYBE + kind, VALUES[kind]
    whole = RETURNED | {name: RETURNED[kind]}

    assert returned_rows(service, {"dataframe_records": [REQUIRED | {name: value}]}) == [whole]
    assert returned_rows(service, {"dataframe_records": [REQUIRED | {name: None}]}) == [RETURNED]
    assert returned_rows(service, {"dataframe_records": [REQUIRED]}) == [RETURNED]
    rows = [REQUIRED | {name: value}, REQUIRED | {name: None}, REQUIRED]
    assert returned_rows(service, {"dataframe_records": rows}) == [whole, RETURNED, RETURNED]
    assert returned_rows(service, {"inputs": {key: [row.get(key) for row in rows] for key in rows[0]}}) == [
        whole,
        RETURNED,
        RETURNED,
    ]


DATATYPES = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32", "boolean": "BOOL"}


@pytest.mark.parametrize("kind", list(VALUES))
def test_an_optional_tensor_is_served_there_null_and_absent(service: Running, kind: str) -> None:
    path, name = f"/v2/models/{ECHO}/infer", MAYBE + kind

    def body(**more: list[Any]) -> dict[str, Any]:
        columns = {key: [value] * 2 for key, value in REQUIRED.items()} | more
        return {
            "inputs": [
                {
                    "name": key,
                    "shape": [2],
                    "datatype": DATATYPES.get(key.removeprefix(MAYBE), "BYTES"),
                    "data": data,
                }
                for key, data in columns.items()
            ]
        }

    assert returned_rows(service, body(), path) == [RETURNED, RETURNED]
    assert returned_rows(service, body(**{name: [VALUES[kind], None]}), path) == [
        RETURNED | {name: RETURNED[kind]},
        RETURNED,
    ]
    assert returned_rows(service, body(**{name: [None, None]}), path) == [RETURNED, RETURNED]


@pytest.mark.parametrize("kind", list(VALUES))
def test_an_optional_column_of_csv_is_served_there_empty_and_absent(service: Running, kind: str) -> None:
    name = MAYBE + kind

    def rows(**more: str) -> list[dict[str, Any]]:
        fields = {key: str(value) for key, value in REQUIRED.items()} | more
        body = f"{','.join(fields)}\n{','.join(fields.values())}\n"
        headers = {"Content-Type": "text/csv"}
        answer = requests.post(f"{service.url}/invocations", body, headers=headers, timeout=SECONDS)
        assert answer.status_code == 200, answer.text
        return [json.loads(row) for row in answer.json()["predictions"]]

    assert rows() == [RETURNED]
    assert rows(**{name: ""}) == [RETURNED]
    assert rows(**{name: str(VALUES[kind])}) == [RETURNED | {name: RETURNED[kind]}]


def test_a_large_whole_number_stays_exact_beside_a_gap(service: Running) -> None:
    rows = [REQUIRED | {"maybe_long": 2**53 + 1}, REQUIRED]

    assert returned_rows(service, {"dataframe_records": rows})[0]["maybe_long"] == 2**53 + 1
