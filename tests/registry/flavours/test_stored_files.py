"""Tests the files of a model of each flavour: which libraries they name, and which of them are refused."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ledgerline.mlflow_store import model_files
from ledgerline.mlflow_store.model_files import folder_sha256, load
from ledgerline.mlflow_store.stored_model import ModelRefusedError
from tests.registry.flavours.estimators import (
    Save,
    described,
    lightgbm_booster,
    lightgbm_estimator,
    onnx_graph,
    xgboost_booster,
    xgboost_estimator,
)


def describe(folder: Path, flavour: str, **changes: Any) -> None:
    """Change the description in the files."""
    description = described(folder)
    description["flavors"][flavour].update(changes)
    (folder / "MLmodel").write_text(yaml.safe_dump(description))


@pytest.fixture
def each_flavour(save: Save, inputs: pd.DataFrame, value: Any) -> dict[str, Path]:
    """The files of a regressor of each flavour."""
    from sklearn.linear_model import Ridge

    ridge = Ridge().fit(inputs, value)
    return {
        "sklearn": save(ridge, inputs),
        "lightgbm": save(lightgbm_estimator("LGBMRegressor").fit(inputs, value), inputs),
        "xgboost": save(xgboost_estimator("XGBRegressor").fit(inputs, value), inputs),
        "onnx": save(onnx_graph(Ridge().fit(inputs.to_numpy(), value), inputs), inputs),
    }


def test_a_client_with_mlflow_alone_gets_the_same_predictions(
    each_flavour: dict[str, Path], inputs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    for folder in each_flavour.values():
        answer = pyfunc.load_model(str(folder)).predict(inputs)

        np.testing.assert_array_equal(np.asarray(answer).reshape(-1), load(folder).answer(inputs))


def test_the_files_name_the_libraries_that_they_need(each_flavour: dict[str, Path]) -> None:
    needed = {
        name: {line.split("==")[0] for line in (folder / "requirements.txt").read_text().split()}
        for name, folder in each_flavour.items()
    }

    assert needed["sklearn"] == {"mlflow", "numpy", "pandas", "scikit-learn", "skops"}
    assert needed["lightgbm"] == needed["sklearn"] | {"lightgbm"}
    assert needed["xgboost"] <= {"mlflow", "numpy", "pandas", "scikit-learn", "xgboost", "xgboost-cpu"}
    assert needed["onnx"] == {"mlflow", "numpy", "pandas", "onnx", "onnxruntime"}


def test_a_file_outside_of_the_model_is_not_read(each_flavour: dict[str, Path], tmp_path: Path) -> None:
    keys = {"sklearn": "pickled_model", "lightgbm": "data", "xgboost": "data", "onnx": "data"}
    for name, folder in each_flavour.items():
        file = folder / described(folder)["flavors"][name][keys[name]]
        outside = tmp_path / f"outside{file.suffix}"
        shutil.move(file, outside)
        for path in (f"../{outside.name}", str(outside), ""):
            describe(folder, name, **{keys[name]: path})
            with pytest.raises(ModelRefusedError, match="names the file"):
                load(folder)


def test_a_file_that_is_damaged_is_refused(each_flavour: dict[str, Path]) -> None:
    for name, folder in each_flavour.items():
        config = described(folder)["flavors"][name]
        file = folder / (config.get("data") or config["pickled_model"])
        before = folder_sha256(folder)
        file.write_bytes(file.read_bytes()[:40])

        assert folder_sha256(folder) != before
        with pytest.raises(ModelRefusedError, match=f"cannot be loaded as {name}|ONNX Runtime cannot load"):
            load(folder)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "onnx"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    each_flavour: dict[str, Path], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime" if library == "onnx" else library, None)

    with pytest.raises(ModelRefusedError, match=rf"pip install 'ledgerline-mlops\[{library}\]'"):
        load(each_flavour[library])


def test_a_class_that_a_description_names_is_not_imported(
    each_flavour: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_code.py").write_text("raise AssertionError('It was imported.')")
    monkeypatch.syspath_prepend(tmp_path)
    describe(each_flavour["xgboost"], "xgboost", model_class="strange_code.Model")

    with pytest.raises(ModelRefusedError, match=r"holds a strange_code\.Model; supported are xgboost"):
        load(each_flavour["xgboost"])


@pytest.mark.parametrize("serialisation", ["cloudpickle", "pickle"])
def test_a_pickled_estimator_of_lightgbm_is_refused(
    inputs: pd.DataFrame, value: Any, tmp_path: Path, serialisation: str
) -> None:
    from mlflow import lightgbm

    model = lightgbm_estimator("LGBMRegressor").fit(inputs, value)
    lightgbm.save_model(
        model, str(tmp_path / "pickled"), serialization_format=serialisation, pip_requirements=[]
    )

    with pytest.raises(ModelRefusedError, match="pickled models are not loaded"):
        load(tmp_path / "pickled")


def test_a_model_that_mlflow_stored_is_loaded(inputs: pd.DataFrame, value: Any, tmp_path: Path) -> None:
    from mlflow import lightgbm

    model = lightgbm_estimator("LGBMRegressor").fit(inputs, value)
    lightgbm.save_model(model, str(tmp_path / "by mlflow"), pip_requirements=[])

    np.testing.assert_array_equal(load(tmp_path / "by mlflow").answer(inputs), model.predict(inputs))


def test_a_method_that_is_not_known_is_not_called(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    from sklearn.linear_model import Ridge

    folder = save(Ridge().fit(inputs, value), inputs)
    describe(folder, "python_function", predict_fn="fit")

    with pytest.raises(ModelRefusedError, match="has no fit"):
        load(folder)


MODEL_TYPES: Sequence[tuple[str, str | None]] = [
    ("sklearn classifier", "classifier"),
    ("sklearn regressor", "regressor"),
    ("sklearn clustering", None),
    ("lightgbm classifier", "classifier"),
    ("lightgbm booster of classes", "classifier"),
    ("lightgbm booster of values", "regressor"),
    ("xgboost regressor", "regressor"),
    ("xgboost booster of classes", "classifier"),
    ("xgboost booster of values", "regressor"),
    ("onnx classifier", "classifier"),
    ("onnx regressor", "regressor"),
]


@pytest.mark.parametrize(("name", "model_type"), MODEL_TYPES)
def test_mlflow_records_the_type_of_the_model(
    inputs: pd.DataFrame, value: Any, label: Any, name: str, model_type: str | None
) -> None:
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    models: dict[str, Callable[[], Any]] = {
        "sklearn classifier": lambda: make_pipeline(LogisticRegression()).fit(inputs, label),
        "sklearn regressor": lambda: make_pipeline(Ridge()).fit(inputs, value),
        "lightgbm classifier": lambda: lightgbm_estimator("LGBMClassifier").fit(inputs, label),
        "lightgbm booster of classes": lambda: lightgbm_booster(inputs, label > 0, objective="binary"),
        "lightgbm booster of values": lambda: lightgbm_booster(inputs, value, objective="quantile"),
        "xgboost regressor": lambda: xgboost_estimator("XGBRegressor").fit(inputs, value),
        "xgboost booster of classes": lambda: xgboost_booster(inputs, label > 0, objective="binary:logistic"),
        "xgboost booster of values": lambda: xgboost_booster(inputs, value),
        "onnx classifier": lambda: onnx_graph(LogisticRegression().fit(inputs.to_numpy(), label), inputs),
        "onnx regressor": lambda: onnx_graph(Ridge().fit(inputs.to_numpy(), value), inputs),
        "sklearn clustering": lambda: KMeans(2).fit(inputs),
    }
    model = models[name]()

    assert model_files.flavour_of(model).model_type(model, "predict") == model_type
