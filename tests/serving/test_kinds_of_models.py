"""Tests models of every flavour and kind of prediction with the real service and both protocols."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.mlflow_store.quantile_models import joined_quantiles
from ledgerline.registry.versions import Version
from ledgerline.testing.waiting import wait_until
from tests.serving.conftest import MODEL, Running, Serve, ServedModels, running, serving_settings
from tests.serving.test_following import get, refused

ROWS = 90
ASKED = 7


def inputs() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({"amount": random.gamma(2, size=ROWS), "age": random.uniform(0, 8, ROWS)})


def value() -> "pd.Series[float]":
    rows = inputs()
    return rows["amount"] * 3 + rows["age"]


def label() -> "np.ndarray[Any, Any]":
    return np.digitize(value(), [6, 12])


def ridge() -> Any:
    from sklearn.linear_model import Ridge

    return Ridge().fit(inputs(), value())


def three_classes() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(inputs(), np.array(["low", "middle", "high"])[label()])


def two_classes() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(5, random_state=0).fit(inputs(), label() > 0)


def three_quantiles() -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    return joined_quantiles(
        [
            GradientBoostingRegressor(loss="quantile", alpha=level, n_estimators=5).fit(inputs(), value())
            for level in (0.1, 0.5, 0.9)
        ]
    )


def lightgbm_regressor() -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=4, min_child_samples=5, verbose=-1).fit(inputs(), value())


def lightgbm_classifier() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1).fit(inputs(), label())


def lightgbm_booster() -> Any:
    import lightgbm

    parameters = {"objective": "binary", "min_data_in_leaf": 5, "verbose": -1}
    return lightgbm.train(parameters, lightgbm.Dataset(inputs(), label() > 0), num_boost_round=4)


def xgboost_regressor() -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=4).fit(inputs(), value())


def xgboost_quantiles() -> Any:
    from xgboost import XGBRegressor

    levels = [0.1, 0.5, 0.9]
    model = XGBRegressor(n_estimators=4, objective="reg:quantileerror", quantile_alpha=levels)
    return model.fit(inputs(), value())


def xgboost_classifier() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=4).fit(inputs(), label())


def onnx_regressor() -> Any:
    from skl2onnx import to_onnx

    return to_onnx(ridge(), inputs().head(1).to_numpy("float32"))


def onnx_classifier() -> Any:
    from skl2onnx import to_onnx

    return to_onnx(three_classes(), inputs().head(1).to_numpy("float32"), options={"zipmap": False})


@dataclass(frozen=True)
class Kind:
    """A model, and what its answers are like.

    Attributes:
        model: Makes it, fitted.
        platform: How it is stored, as its metadata name it.
        shape: The shape of the answer in its metadata.
        method: What it is asked.
        datatype: The type of the answer in the Open Inference Protocol.
    """

    model: Callable[[], Any]
    platform: str
    shape: tuple[int, ...]
    method: str = "predict"
    datatype: str = "FP64"


KINDS = {
    "regression-sklearn": Kind(ridge, "mlflow_sklearn", (-1,)),
    "regression-lightgbm": Kind(lightgbm_regressor, "mlflow_lightgbm", (-1,)),
    "regression-xgboost": Kind(xgboost_regressor, "mlflow_xgboost", (-1,)),
    "regression-onnx": Kind(onnx_regressor, "mlflow_onnx", (-1,)),
    "quantiles-sklearn": Kind(three_quantiles, "mlflow_sklearn", (-1, 3)),
    "quantiles-xgboost": Kind(xgboost_quantiles, "mlflow_xgboost", (-1, 3)),
    "binary-sklearn": Kind(two_classes, "mlflow_sklearn", (-1, 2), "predict_proba"),
    "binary-lightgbm": Kind(lightgbm_booster, "mlflow_lightgbm", (-1,)),
    "multiclass-sklearn": Kind(three_classes, "mlflow_sklearn", (-1, 3), "predict_proba"),
    "multiclass-lightgbm": Kind(lightgbm_classifier, "mlflow_lightgbm", (-1, 3), "predict_proba"),
    "multiclass-xgboost": Kind(xgboost_classifier, "mlflow_xgboost", (-1, 3), "predict_proba"),
    "multiclass-onnx": Kind(onnx_classifier, "mlflow_onnx", (-1, 3), "predict_proba"),
    "labels-sklearn": Kind(three_classes, "mlflow_sklearn", (-1,), datatype="BYTES"),
    "labels-xgboost": Kind(xgboost_classifier, "mlflow_xgboost", (-1,), datatype="INT64"),
}


@cache
def fitted(kind: Kind) -> Any:
    return kind.model()


def expected(kind: Kind) -> "np.ndarray[Any, Any]":
    """Return the prediction of the model itself for the first rows."""
    model, rows = fitted(kind), inputs().head(ASKED)
    if kind.platform == "mlflow_onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(model.SerializeToString())
        output = {"predict": 0, "predict_proba": 1}[kind.method]
        answer = session.run(None, {session.get_inputs()[0].name: rows.to_numpy("float32")})[output]
        return np.asarray(answer).reshape(ASKED, *kind.shape[1:])
    return np.asarray(getattr(model, kind.method)(rows))


def register(models: ServedModels, name: str, kind: Kind) -> Version:
    return models.version(name, model=fitted(kind), inputs=inputs(), method=kind.method)


def ask(service: Running, path: str, content: Any) -> tuple[int, str, Any]:
    """Status, version and content of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers.get("X-Model-Version", ""), json.loads(response.read())


def in_scoring() -> dict[str, Any]:
    rows = inputs().head(ASKED)
    return {"dataframe_split": {"columns": list(rows), "data": rows.to_numpy().tolist()}}


def in_tensors() -> dict[str, Any]:
    rows = inputs().head(ASKED)
    return {
        "inputs": [
            {"name": name, "datatype": "FP64", "shape": [ASKED], "data": rows[name].tolist()} for name in rows
        ]
    }


@pytest.fixture(scope="module")
def service(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a model of each kind, each under its name."""
    import shutil

    folder = tmp_path_factory.mktemp("every-kind")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    models = ServedModels(uri, folder)
    for name, kind in KINDS.items():
        models.serve(register(models, name, kind))
    names = ",".join(KINDS)
    with running(serving_settings(folder / "home", uri, LEDGERLINE_SERVING_MODELS=names)) as started:
        yield started


@pytest.mark.parametrize("name", KINDS)
def test_both_protocols_return_the_prediction_of_the_model(service: Running, name: str) -> None:
    kind = KINDS[name]

    status, version, scored = ask(service, f"/models/{name}/invocations", in_scoring())
    inferred_status, _, inferred = ask(service, f"/v2/models/{name}/infer", in_tensors())

    assert (status, version, inferred_status) == (200, "1", 200)
    answer = expected(kind)
    assert len(np.unique(answer)) > 1
    assert scored["predictions"] == answer.tolist()
    (output,) = inferred["outputs"]
    assert (output["name"], output["datatype"]) == ("predictions", kind.datatype)
    assert output["shape"] == [ASKED, *kind.shape[1:]]
    assert output["data"] == answer.reshape(-1).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_the_metadata_describe_the_response(service: Running, name: str) -> None:
    status, metadata = get(service, f"/v2/models/{name}")

    assert status == 200
    assert metadata["platform"] == KINDS[name].platform
    assert metadata["inputs"] == [
        {"name": column, "datatype": "FP64", "shape": [-1]} | one
        for column, one in zip(("amount", "age"), metadata["inputs"], strict=True)
    ]
    (output,) = metadata["outputs"]
    assert (output["name"], output["datatype"]) == ("predictions", KINDS[name].datatype)
    assert output["shape"] == list(KINDS[name].shape)


@pytest.mark.parametrize("name", ["regression-lightgbm", "multiclass-xgboost", "quantiles-sklearn"])
def test_rows_that_the_model_does_not_accept_are_refused(service: Running, name: str) -> None:
    rows = {"dataframe_records": [{"amount": 1.0, "age": "old"}, {"amount": None, "age": 3}]}

    status, _, problem = ask(service, f"/models/{name}/invocations", rows)

    assert status == 400
    text = json.dumps(problem)
    assert "'old' is not a number" in text
    assert "a value is required" in text


def test_versions_of_other_libraries_follow_each_other_without_a_change_for_clients(
    serve: Serve, served_models: ServedModels
) -> None:
    """All of one kind: they take the same columns, and give numbers of the same type and shape."""
    versions = [register(served_models, MODEL, KINDS[f"regression-{name}"]) for name in LIBRARIES]
    served_models.serve(versions[0])
    with serve() as service:
        for library, version in zip(LIBRARIES, versions, strict=True):
            served_models.serve(version)
            wanted = str(version.number)
            wait_until(lambda wanted=wanted: ask(service, "/invocations", in_scoring())[1] == wanted, library)
            answer = ask(service, "/invocations", in_scoring())[2]
            assert answer["predictions"] == expected(KINDS[f"regression-{library}"]).tolist()


LIBRARIES = ("sklearn", "lightgbm", "xgboost", "onnx")


def test_versions_of_other_kinds_follow_each_other_where_that_is_allowed(
    serve: Serve, served_models: ServedModels
) -> None:
    names = ["multiclass-lightgbm", "regression-onnx", "quantiles-xgboost", "labels-sklearn"]
    versions = [register(served_models, MODEL, KINDS[name]) for name in names]
    served_models.serve(versions[0])
    with serve(LEDGERLINE_SERVING_SIGNATURE="any") as service:
        for name, version in zip(names, versions, strict=True):
            served_models.serve(version)
            wanted = str(version.number)
            wait_until(lambda wanted=wanted: ask(service, "/invocations", in_scoring())[1] == wanted, name)
            answer = ask(service, "/invocations", in_scoring())[2]
            assert answer["predictions"] == expected(KINDS[name]).tolist()
            assert get(service, f"/v2/models/{MODEL}")[1]["outputs"][0]["shape"] == list(KINDS[name].shape)


def test_a_version_of_another_kind_is_refused_unless_that_is_allowed(
    serve: Serve, served_models: ServedModels
) -> None:
    first = register(served_models, MODEL, KINDS["regression-sklearn"])
    second = register(served_models, MODEL, KINDS["quantiles-xgboost"])
    served_models.serve(first)
    with serve() as service:
        served_models.serve(second)
        wait_until(lambda: "cannot use version 2" in refused(service, 2), "version 2 is refused")
        assert "shape (-1, 3)" in refused(service, 2)
        assert ask(service, "/invocations", in_scoring())[1] == "1"


@pytest.mark.parametrize("name", ["multiclass-xgboost", "multiclass-onnx", "multiclass-sklearn"])
def test_a_model_that_may_run_code_answers_the_same_if_it_does_not_need_to(
    serve: Serve, served_models: ServedModels, name: str
) -> None:
    """MLflow's own pyfunc would answer labels for XGBoost's, and all outputs of a graph."""
    served_models.serve(register(served_models, MODEL, KINDS[name]))
    with serve(LEDGERLINE_SERVING_UNPICKLE=MODEL) as service:
        answer = ask(service, "/invocations", in_scoring())[2]

    assert answer["predictions"] == expected(KINDS[name]).tolist()


def test_a_library_that_serving_lacks_is_named_in_the_refusal(
    serve: Serve, served_models: ServedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    first = register(served_models, MODEL, KINDS["regression-sklearn"])
    second = register(served_models, MODEL, KINDS["regression-lightgbm"])
    served_models.serve(first)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with serve() as service:
        served_models.serve(second)
        wait_until(lambda: "ledgerline-mlops[lightgbm]" in refused(service, 2), "the extra is named")
        assert ask(service, "/invocations", in_scoring())[1] == "1"
