"""Tests clients of other projects with the real service: their requests and its responses are valid."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests

from tests.serving.conftest import HOST, MODEL, Running, flight_rows

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from tritonclient.http import InferenceServerClient

SCHEMATHESIS_SECONDS = 120

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def reference(shared_service: Running) -> "PyFuncModel":
    """Return the active version, loaded by MLflow itself."""
    from mlflow import pyfunc

    current = shared_service.service.default.current
    assert current is not None
    with pytest.MonkeyPatch.context() as patch:
        # MLflow trusts no model's own list of types; this one was made here.
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        return pyfunc.load_model(current.version.location)


@pytest.fixture(scope="module")
def rows() -> "pd.DataFrame":
    """Rows with gaps that the model was not trained on."""
    return flight_rows(40, seed=7)


@pytest.fixture(scope="module")
def expected(reference: "PyFuncModel", rows: "pd.DataFrame") -> np.ndarray:
    """Return MLflow's prediction for the rows."""
    predicted = reference.predict(rows)
    assert len(np.unique(predicted[:, 1])) > 5
    return predicted


# MLflow's own client


@pytest.fixture
def scoring_client(shared_service: Running) -> "ScoringServerClient":
    """MLflow's client of its own scoring server."""
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient(HOST, shared_service.port)
    client.wait_server_ready(timeout=10)
    return client


def test_mlflows_client_receives_the_predictions_of_mlflow(
    scoring_client: "ScoringServerClient", rows: "pd.DataFrame", expected: np.ndarray
) -> None:
    answer = scoring_client.invoke(rows)

    assert np.array_equal(answer.get_predictions("ndarray"), expected)
    frame = answer.get_predictions("dataframe")
    assert np.array(frame).tolist() == expected.tolist()


def test_mlflow_s_client_may_leave_optional_columns_out_and_send_them_in_any_order(
    scoring_client: "ScoringServerClient", reference: "PyFuncModel", rows: "pd.DataFrame"
) -> None:
    fewer = rows[["holiday", "hour", "distance", "temp"]]

    answer = scoring_client.invoke(fewer)

    whole = rows.assign(carrier=np.nan, origin=np.nan, wind_speed=np.nan).astype(rows.dtypes)
    assert np.array_equal(answer.get_predictions("ndarray"), reference.predict(whole))


def test_mlflow_s_client_may_send_empty_params(
    scoring_client: "ScoringServerClient", rows: "pd.DataFrame", expected: np.ndarray
) -> None:
    assert np.array_equal(scoring_client.invoke(rows, params={}).get_predictions("ndarray"), expected)


def test_mlflow_s_client_may_send_rows_as_records(
    scoring_client: "ScoringServerClient", rows: "pd.DataFrame", expected: np.ndarray
) -> None:
    answer = scoring_client.invoke(rows.to_dict(orient="records"))

    assert np.array_equal(answer.get_predictions("ndarray"), expected)


def test_mlflows_client_reads_the_version_of_mlflow(scoring_client: "ScoringServerClient") -> None:
    import mlflow

    scoring_client.ping()
    assert scoring_client.get_version() == mlflow.__version__


def test_mlflow_s_client_gets_the_problems(
    scoring_client: "ScoringServerClient", rows: "pd.DataFrame"
) -> None:
    with pytest.raises(Exception, match=r"error code 400, .*row 3, column distance: a value is required"):
        scoring_client.invoke(rows.assign(distance=rows["distance"].where(rows.index != 3)))


def test_mlflows_request_of_an_input_example_is_answered(
    shared_service: Running, http: requests.Session, rows: "pd.DataFrame", expected: np.ndarray
) -> None:
    from mlflow.models import convert_input_example_to_serving_input

    for url in (f"{shared_service.url}/invocations", f"{shared_service.url}/models/{MODEL}/invocations"):
        answer = http.post(url, data=convert_input_example_to_serving_input(rows), headers=JSON)
        assert np.array_equal(np.array(answer.json()["predictions"]), expected)


@pytest.mark.parametrize("orient", ["split", "records"])
def test_requests_of_mlflows_parser_have_the_same_response(
    shared_service: Running,
    http: requests.Session,
    reference: "PyFuncModel",
    rows: "pd.DataFrame",
    orient: str,
) -> None:
    from mlflow.pyfunc.scoring_server import invocations

    records = json.loads(rows.to_json(orient="records", double_precision=15))
    content = {"columns": list(rows), "data": [list(record.values()) for record in records]}
    body = json.dumps({f"dataframe_{orient}": content if orient == "split" else records})

    theirs = invocations(body, "application/json", reference, reference.metadata.get_input_schema())
    ours = http.post(f"{shared_service.url}/invocations", data=body, headers=JSON)

    assert ours.json() == json.loads(theirs.response)


def test_csv_has_the_same_response_as_of_mlflow(
    shared_service: Running, http: requests.Session, reference: "PyFuncModel", rows: "pd.DataFrame"
) -> None:
    from mlflow.pyfunc.scoring_server import invocations

    body = rows.to_csv(index=False)

    theirs = invocations(body, "text/csv", reference, reference.metadata.get_input_schema())
    ours = http.post(
        f"{shared_service.url}/invocations", data=body, headers={"Content-Type": "text/csv; charset=utf-8"}
    )

    assert ours.json() == json.loads(theirs.response)


# NVIDIA's client of the Open Inference Protocol


@pytest.fixture
def inference_client(shared_service: Running) -> Iterator["InferenceServerClient"]:
    """The client of the Triton inference server."""
    from tritonclient.http import InferenceServerClient

    with InferenceServerClient(f"{HOST}:{shared_service.port}") as client:
        yield client


TRITON_TYPES = {"O": "BYTES", "f": "FP64", "i": "INT64", "b": "BOOL"}


def tensors(rows: "pd.DataFrame", *, binary: bool = False) -> list[Any]:
    """Return the rows as that client sends them: it has no missing texts, so the column is left out."""
    from tritonclient.http import InferInput

    found = []
    for name, values in rows.items():
        array = values.to_numpy()
        one = InferInput(str(name), list(array.shape), TRITON_TYPES[array.dtype.kind])
        found.append(one.set_data_from_numpy(array, binary_data=binary))
    return found


def test_triton_s_client_finds_the_model_ready(inference_client: "InferenceServerClient") -> None:
    assert inference_client.is_server_live()
    assert inference_client.is_server_ready()
    assert inference_client.is_model_ready(MODEL)
    assert inference_client.is_model_ready(MODEL, "1")
    assert not inference_client.is_model_ready(MODEL, "2")
    assert not inference_client.is_model_ready("another")


def test_tritons_client_reads_the_inputs_of_the_model(
    inference_client: "InferenceServerClient", reference: "PyFuncModel"
) -> None:
    assert inference_client.get_server_metadata()["name"] == "ledgerline"
    metadata = inference_client.get_model_metadata(MODEL, "1")

    assert metadata["versions"] == ["1"]
    assert metadata["platform"] == "mlflow_sklearn"
    taken = reference.metadata.get_input_schema()
    assert taken is not None
    assert [one["name"] for one in metadata["inputs"]] == taken.input_names()
    assert metadata["outputs"] == [{"name": "predictions", "datatype": "FP64", "shape": [-1, 2]}]


def test_tritons_client_receives_the_predictions_of_mlflow(
    inference_client: "InferenceServerClient", reference: "PyFuncModel", rows: "pd.DataFrame"
) -> None:
    from tritonclient.http import InferRequestedOutput

    whole = rows.dropna(subset=["carrier", "origin"]).reset_index(drop=True)
    assert whole["temp"].isna().any()

    answer = inference_client.infer(
        MODEL,
        tensors(whole),
        request_id="42",
        outputs=[InferRequestedOutput("predictions", binary_data=False)],
    )

    assert np.array_equal(np.asarray(answer.as_numpy("predictions")), reference.predict(whole))
    assert {name: answer.get_response()[name] for name in ("id", "model_name", "model_version")} == {
        "id": "42",
        "model_name": MODEL,
        "model_version": "1",
    }


def test_triton_s_client_may_name_the_version_and_no_outputs(
    inference_client: "InferenceServerClient", reference: "PyFuncModel", rows: "pd.DataFrame"
) -> None:
    numbers = rows.drop(columns=["carrier", "origin"])

    answer = inference_client.infer(MODEL, tensors(numbers), model_version="1")

    whole = rows.assign(carrier=np.nan, origin=np.nan).astype(rows.dtypes)
    assert np.array_equal(np.asarray(answer.as_numpy("predictions")), reference.predict(whole))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritons_client_may_compress_requests(
    inference_client: "InferenceServerClient", rows: "pd.DataFrame", algorithm: str
) -> None:
    numbers = rows.drop(columns=["carrier", "origin"])

    plain, packed = (
        inference_client.infer(MODEL, tensors(numbers), request_compression_algorithm=how)
        for how in (None, algorithm)
    )

    assert np.array_equal(
        np.asarray(packed.as_numpy("predictions")), np.asarray(plain.as_numpy("predictions"))
    )


def test_triton_s_client_gets_the_problems(
    inference_client: "InferenceServerClient", rows: "pd.DataFrame"
) -> None:
    from tritonclient.http import InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    numbers = rows.drop(columns=["carrier", "origin"])

    def message(model: str, *arguments: Any, **options: Any) -> str:
        with pytest.raises(InferenceServerException) as refused:
            inference_client.infer(model, *arguments, **options)
        return str(refused.value)

    gap = numbers.assign(distance=numbers["distance"].where(numbers.index != 3))
    assert "row 3, column distance: a value is required" in message(MODEL, tensors(gap))
    assert "binary_data=False" in message(MODEL, tensors(numbers, binary=True))
    assert "no output 'score'; it has predictions" in message(
        MODEL, tensors(numbers), outputs=[InferRequestedOutput("score", binary_data=False)]
    )
    assert "No model 'another' is served here" in message("another", tensors(numbers))
    assert "Version '2'" in message(MODEL, tensors(numbers), model_version="2")


# Schemathesis


def test_the_service_conforms_to_its_openapi_document(shared_service: Running, tmp_path: Path) -> None:
    """Run Schemathesis' command with every check that can hold.

    JSON Schema cannot express that all columns have the same number of values, so that
    `positive_data_acceptance` would fail.
    """
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file=schemathesis.toml",
        "run",
        f"{shared_service.url}/openapi.json",
        "--exclude-checks=positive_data_acceptance",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=4",
        "--generation-deterministic",
        "--no-shrink",
        "--continue-on-failure",
        "--no-color",
    ]
    (tmp_path / "schemathesis.toml").touch()

    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=SCHEMATHESIS_SECONDS, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "19 selected / 19 total" in ended.stdout
