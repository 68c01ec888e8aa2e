"""Tests the files of a model: their use by clients, refused ones, and their hash."""

import functools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from assets.features import CATEGORICAL_FEATURES, FEATURES
from ledgerline.mlflow_store.flavours.sklearn import REQUIREMENTS
from ledgerline.mlflow_store.model_files import (
    ADDED_BY_REGISTRY,
    folder_sha256,
    load,
    save,
)
from ledgerline.mlflow_store.stored_model import ModelRefusedError

if TYPE_CHECKING:
    from mlflow.models import Model


@pytest.fixture
def copied_model(saved_model: Path, tmp_path: Path) -> Path:
    """The files of the model, to be changed."""
    return Path(shutil.copytree(saved_model, tmp_path / "copy"))


@pytest.fixture
def description(saved_model: Path) -> "Model":
    from mlflow.models import Model

    return Model.load(str(saved_model))


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that lets MLflow read models of any kind, as MLflow's own default is."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")


def pipeline_with(function: object) -> Pipeline:
    """A pipeline that would call this function; it is not fitted, which would call it too."""
    steps = [("call", FunctionTransformer(function)), ("answer", DummyClassifier())]
    return Pipeline(steps)


def save_with_mlflow(model: Any, folder: Path, **options: Any) -> None:
    """Save a model as an attacker would, so that it is accepted."""
    from mlflow import sklearn

    sklearn.save_model(model, str(folder), pip_requirements=["scikit-learn"], **options)


def test_a_loaded_model_predicts_as_the_saved_one(saved_model: Path, model: Any, inputs: pd.DataFrame):
    loaded = load(saved_model)

    np.testing.assert_array_equal(loaded.answer(inputs), model.predict_proba(inputs))


@pytest.mark.usefixtures("trusting")
def test_a_client_with_mlflow_alone_receives_probabilities(
    saved_model: Path, model: Any, inputs: pd.DataFrame
):
    from mlflow import pyfunc

    answers = pyfunc.load_model(str(saved_model)).predict(inputs.head(20))

    np.testing.assert_array_equal(answers, model.predict_proba(inputs.head(20)))


def test_columns_with_gaps_are_optional_and_others_required(description: "Model", inputs: pd.DataFrame):
    assert description.signature is not None
    required = {column.name: column.required for column in description.signature.inputs}

    assert list(required) == list(FEATURES)
    assert required == {name: not inputs[name].isna().any() for name in FEATURES}
    assert required["carrier"]
    assert not required["manufacturer"]


def test_categories_are_strings_and_numbers_doubles(description: "Model"):
    assert description.signature is not None
    types = {column.name: str(column.type) for column in description.signature.inputs}

    assert types == {
        name: "DataType.string" if name in CATEGORICAL_FEATURES else "DataType.double" for name in FEATURES
    }


@pytest.mark.usefixtures("trusting")
def test_a_client_may_leave_out_optional_columns(saved_model: Path, inputs: pd.DataFrame):
    from mlflow import pyfunc

    gaps = inputs.head(3).assign(manufacturer=None, wind_gust=np.nan)

    assert pyfunc.load_model(str(saved_model)).predict(gaps).shape == (3, 2)


def test_the_files_name_their_run_and_their_requirements(saved_model: Path, description: "Model"):
    assert description.model_id is not None
    assert description.run_id is not None
    requirements = (saved_model / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in requirements} == {"mlflow", *REQUIREMENTS}
    assert (saved_model / "input_example.json").exists()
    assert not list(saved_model.rglob("*.pkl"))


@pytest.mark.parametrize("serialisation", ["cloudpickle", "pickle"])
def test_a_pickled_model_is_refused(model: Any, tmp_path: Path, serialisation: str):
    save_with_mlflow(model, tmp_path / "pickled", serialization_format=serialisation)

    with pytest.raises(ModelRefusedError, match="pickled models are not loaded"):
        load(tmp_path / "pickled")


@pytest.mark.parametrize(
    ("function", "type_name"),
    [(os.getcwd, "posix.getcwd"), (functools.partial(os.getcwd), "posix.getcwd")],
    ids=["a function", "a function inside a partial"],
)
def test_a_type_that_is_not_trusted_is_refused_when_it_is_loaded_even_if_the_files_trust_it(
    tmp_path: Path, function: object, type_name: str
):
    import skops.io

    model = pipeline_with(function)
    types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    save_with_mlflow(
        model, tmp_path / "strange", serialization_format="skops", skops_trusted_types=list(types)
    )
    assert type_name in (tmp_path / "strange" / "MLmodel").read_text()

    with pytest.raises(ModelRefusedError, match=rf"not trusted: .*{type_name}.*Call your own functions"):
        load(tmp_path / "strange")


def test_a_type_that_is_not_trusted_is_refused_when_it_is_saved(tmp_path: Path, inputs: pd.DataFrame):
    logged: Any = None  # it is refused before it is needed

    with pytest.raises(ModelRefusedError, match=r"not trusted: .*posix\.getcwd"):
        save(pipeline_with(os.getcwd), tmp_path / "strange", inputs, logged, "run")

    assert not (tmp_path / "strange").exists()


def test_the_hash_of_a_copy_is_the_same(saved_model: Path, copied_model: Path):
    assert folder_sha256(copied_model) == folder_sha256(saved_model)
    assert len(folder_sha256(saved_model)) == 64


def test_one_changed_byte_anywhere_changes_the_hash(saved_model: Path, copied_model: Path):
    files = sorted(path for path in copied_model.rglob("*") if path.is_file())
    assert len(files) >= 5

    for file in files:
        before = file.read_bytes()
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert folder_sha256(copied_model) != folder_sha256(saved_model), file.name
        file.write_bytes(before)


def test_an_added_a_removed_and_a_moved_file_change_the_hash(saved_model: Path, copied_model: Path):
    registered = folder_sha256(saved_model)

    (copied_model / "code.py").write_bytes(b"")
    added = folder_sha256(copied_model)
    (copied_model / "code.py").unlink()
    (copied_model / "conda.yaml").rename(copied_model / "conda2.yaml")
    moved = folder_sha256(copied_model)
    (copied_model / "conda2.yaml").unlink()
    removed = folder_sha256(copied_model)

    assert len({registered, added, moved, removed}) == 4


def test_the_note_that_the_registry_adds_does_not_change_the_hash(saved_model: Path, copied_model: Path):
    (copied_model / ADDED_BY_REGISTRY).write_text("version: 1")

    assert folder_sha256(copied_model) == folder_sha256(saved_model)
