"""Models of every flavour: stored in a format that runs no code, read again, and answered by."""

import json
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
from ledgerline.mlflow_store.quantile_models import joined_quantiles
from ledgerline.mlflow_store.stored_model import ModelRefusedError

# MLflow hints that whole numbers cannot have gaps; here they have none.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*integer column:UserWarning")

Save = Callable[..., Path]

ROWS = 120


@pytest.fixture
def save(mlflow_database: str, tmp_path: Path) -> Save:
    """Write the files of a model, as a training run does: `save(model, inputs, method=...)`."""
    from ledgerline.mlflow_store import store

    client = store.connect(mlflow_database)
    experiment = store.experiment_id(client, "flavours", str(tmp_path / "artifacts"))

    def write(model: Any, inputs: pd.DataFrame, *, method: str = "predict") -> Path:
        run_id = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, "small", run_id)
        folder = tmp_path / logged.model_id
        model_files.save(model, folder, inputs, logged, run_id, method=method)
        return folder

    return write


@pytest.fixture(scope="module")
def inputs() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({"amount": random.gamma(2, size=ROWS), "age": random.uniform(0, 8, ROWS)})


@pytest.fixture(scope="module")
def value(inputs: pd.DataFrame) -> "pd.Series[float]":
    return inputs["amount"] * 3 + inputs["age"]


@pytest.fixture(scope="module")
def label(value: "pd.Series[float]") -> "np.ndarray[Any, Any]":
    """Three classes."""
    return np.digitize(value, [6, 12])


def lightgbm_estimator(name: str, **options: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, name)(n_estimators=3, min_child_samples=5, verbose=-1, **options)


def lightgbm_booster(inputs: pd.DataFrame, outcome: Any, **options: Any) -> Any:
    import lightgbm

    parameters = {"min_data_in_leaf": 5, "verbose": -1, **options}
    return lightgbm.train(parameters, lightgbm.Dataset(inputs, outcome), num_boost_round=3)


def xgboost_estimator(name: str, **options: Any) -> Any:
    import xgboost

    return getattr(xgboost, name)(n_estimators=3, **options)


def xgboost_booster(inputs: pd.DataFrame, outcome: Any, **options: Any) -> Any:
    import xgboost

    return xgboost.train(options, xgboost.DMatrix(inputs, outcome), num_boost_round=3)


def onnx_graph(model: Any, inputs: pd.DataFrame, **options: Any) -> Any:
    """A graph with one matrix as input."""
    from skl2onnx import to_onnx

    return to_onnx(model, inputs.head(1).to_numpy("float32"), **options)


def described(folder: Path) -> dict[str, Any]:
    """Return the description in the files."""
    return yaml.safe_load((folder / "MLmodel").read_text())


def describe(folder: Path, flavour: str, **changes: Any) -> None:
    """Change what the files say of themselves."""
    description = described(folder)
    description["flavors"][flavour].update(changes)
    (folder / "MLmodel").write_text(yaml.safe_dump(description))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def require_no_pickle(folder: Path) -> None:
    assert not [name for name in names(folder) if name.endswith((".pkl", ".pickle", ".joblib"))]
    assert "loader_module: mlflow.pyfunc" not in (folder / "MLmodel").read_text()


# ---- Boosters and estimators of LightGBM and XGBoost


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_a_loaded_regressor_predicts_the_same(
    save: Save, inputs: pd.DataFrame, value: Any, library: str
) -> None:
    make = {"lightgbm": lightgbm_estimator, "xgboost": xgboost_estimator}[library]
    model = make({"lightgbm": "LGBMRegressor", "xgboost": "XGBRegressor"}[library]).fit(inputs, value)

    stored = load(folder := save(model, inputs))

    assert (stored.flavour, stored.method) == (library, "predict")
    assert type(stored.model) is type(model)
    answer = stored.answer(inputs)
    np.testing.assert_array_equal(answer, model.predict(inputs))
    assert answer.shape == (ROWS,)
    assert len(np.unique(answer)) > 3
    require_no_pickle(folder)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_predicts_the_probability_of_each_class(
    save: Save, inputs: pd.DataFrame, label: Any, library: str, classes: int
) -> None:
    make = {"lightgbm": lightgbm_estimator, "xgboost": xgboost_estimator}[library]
    outcome = np.minimum(label, classes - 1)
    model = make({"lightgbm": "LGBMClassifier", "xgboost": "XGBClassifier"}[library]).fit(inputs, outcome)

    stored = load(save(model, inputs, method="predict_proba"))

    answer = stored.answer(inputs)
    np.testing.assert_array_equal(answer, model.predict_proba(inputs))
    assert answer.shape == (ROWS, classes)
    assert stored.model.classes_.tolist() == list(range(classes))


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_a_classifier_stored_for_labels_predicts_labels(
    save: Save, inputs: pd.DataFrame, label: Any, library: str
) -> None:
    make = {"lightgbm": lightgbm_estimator, "xgboost": xgboost_estimator}[library]
    model = make({"lightgbm": "LGBMClassifier", "xgboost": "XGBClassifier"}[library]).fit(inputs, label)

    answer = load(save(model, inputs)).answer(inputs)

    assert set(answer.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(answer, model.predict(inputs))


def test_the_text_labels_of_a_lightgbm_classifier_are_kept(
    save: Save, inputs: pd.DataFrame, label: Any
) -> None:
    model = lightgbm_estimator("LGBMClassifier").fit(inputs, np.array(["low", "middle", "high"])[label])

    stored = load(save(model, inputs))

    assert stored.model.classes_.tolist() == ["high", "low", "middle"]
    assert set(stored.answer(inputs).tolist()) == {"high", "low", "middle"}


def test_a_booster_of_lightgbm_is_stored_as_text(save: Save, inputs: pd.DataFrame, label: Any) -> None:
    model = lightgbm_booster(inputs, label, objective="multiclass", num_class=3)

    stored = load(folder := save(model, inputs))

    assert (folder / "model.lgb").read_text().startswith("tree\n")
    answer = stored.answer(inputs)
    np.testing.assert_allclose(answer, model.predict(inputs), rtol=1e-12)
    assert answer.shape == (ROWS, 3)


def test_a_booster_of_xgboost_is_stored_as_ubjson(save: Save, inputs: pd.DataFrame, label: Any) -> None:
    model = xgboost_booster(inputs, label, objective="multi:softprob", num_class=3)

    stored = load(folder := save(model, inputs))

    assert "model.ubj" in names(folder)
    answer = stored.answer(inputs)
    assert answer.shape == (ROWS, 3)
    np.testing.assert_array_equal(answer, load(folder).answer(inputs))
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)


def test_a_json_file_of_xgboost_is_read_too(
    save: Save, inputs: pd.DataFrame, value: Any, tmp_path: Path
) -> None:
    from mlflow import xgboost

    model = xgboost_estimator("XGBRegressor").fit(inputs, value)
    xgboost.save_model(model, str(tmp_path / "json"), model_format="json", pip_requirements=[])

    np.testing.assert_array_equal(load(tmp_path / "json").answer(inputs), model.predict(inputs))


def test_one_xgboost_model_predicts_several_quantiles(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    model = xgboost_estimator(
        "XGBRegressor", objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9]
    ).fit(inputs, value)

    stored = load(folder := save(model, inputs))

    answer = stored.answer(inputs)
    np.testing.assert_array_equal(answer, model.predict(inputs))
    assert answer.shape == (ROWS, 3)
    assert (answer[:, 0] < answer[:, 2]).mean() > 0.9
    outputs = json.loads(described(folder)["signature"]["outputs"])
    assert outputs[0]["tensor-spec"]["shape"] == [-1, 3]


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_a_booster_has_no_probabilities_beside_its_prediction(
    save: Save, inputs: pd.DataFrame, label: Any, library: str
) -> None:
    model = (
        lightgbm_booster(inputs, label > 0, objective="binary")
        if library == "lightgbm"
        else xgboost_booster(inputs, label > 0, objective="binary:logistic")
    )

    with pytest.raises(ModelRefusedError, match=r'Booster.* has no predict_proba.*method="predict"'):
        save(model, inputs, method="predict_proba")

    answer = load(save(model, inputs)).answer(inputs)
    assert answer.shape == (ROWS,)
    assert 0 < answer.min() < answer.max() < 1


def test_the_value_that_means_a_missing_one_to_an_xgboost_estimator_is_kept(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    """XGBoost's own format forgets it, and a loaded estimator takes it for a number."""
    rows = inputs.assign(amount=inputs["amount"].where(np.arange(ROWS) % 3 > 0, -999.0))
    model = xgboost_estimator("XGBRegressor", missing=-999.0).fit(rows, value)

    stored = load(save(model, rows))

    np.testing.assert_array_equal(stored.answer(rows), model.predict(rows))
    gaps = rows.assign(amount=-999.0)
    assert (stored.answer(gaps) != stored.answer(rows.assign(amount=-998.0))).any()


def test_an_xgboost_estimator_that_stopped_early_predicts_with_its_best_trees(
    save: Save, inputs: pd.DataFrame, label: Any
) -> None:
    model = xgboost_estimator("XGBClassifier", early_stopping_rounds=1)
    model.set_params(n_estimators=60).fit(
        inputs, label, eval_set=[(inputs[::5], label[::5] * 0)], verbose=False
    )
    assert model.best_iteration < len(model.get_booster().get_dump()) // 3 - 1

    stored = load(save(model, inputs, method="predict_proba"))

    np.testing.assert_array_equal(stored.answer(inputs), model.predict_proba(inputs))


@pytest.fixture(scope="module")
def categories(inputs: pd.DataFrame) -> pd.DataFrame:
    """Rows with categories of texts, with gaps, and of whole numbers."""
    kinds = pd.Series(np.array(["bread", "rolls", "cake"])[np.arange(ROWS) % 3]).where(
        np.arange(ROWS) % 7 > 0
    )
    shops = pd.Series(np.array([10, 20, 30])[np.arange(ROWS) // 3 % 3])
    return inputs.assign(kind=kinds.astype("category"), shop=shops.astype("category"))


def sent(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows as serving makes them of a request."""
    kinds = np.array(frame["kind"].tolist(), dtype="object")
    return frame.assign(kind=pd.Series(kinds), shop=pd.Series(frame["shop"].tolist(), dtype="int64"))


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "a booster of lightgbm", "a booster of xgboost"])
def test_categories_are_found_in_the_values_that_a_client_sends(
    save: Save, categories: pd.DataFrame, value: Any, library: str
) -> None:
    outcome = value + 9 * (categories["kind"] == "cake") + 5 * (categories["shop"] == 20)
    models: dict[str, Callable[[], Any]] = {
        "lightgbm": lambda: lightgbm_estimator("LGBMRegressor", min_data_per_group=1, cat_smooth=0),
        "xgboost": lambda: xgboost_estimator("XGBRegressor", enable_categorical=True),
    }
    if library in models:
        model = models[library]().fit(categories, outcome)
        expected = model.predict(categories)
    elif library == "a booster of lightgbm":
        model = lightgbm_booster(categories, outcome, min_data_per_group=1, cat_smooth=0)
        expected = model.predict(categories)
    else:
        import xgboost

        matrix = xgboost.DMatrix(categories, outcome, enable_categorical=True)
        model = xgboost.train({}, matrix, num_boost_round=3)
        expected = model.predict(matrix)

    stored = load(folder := save(model, categories))

    rows = sent(categories)
    assert rows["kind"].dtype == "object"
    np.testing.assert_allclose(stored.answer(rows), expected, rtol=1e-6)
    # One row, which does not have all categories, is predicted, too; and the categories matter.
    np.testing.assert_allclose(stored.answer(rows[5:6]), expected[5:6], rtol=1e-6)
    assert abs(stored.answer(rows.assign(kind="cake")) - stored.answer(rows.assign(kind="bread"))).max() > 1
    columns = {each["name"]: each for each in json.loads(described(folder)["signature"]["inputs"])}
    assert (columns["kind"]["type"], columns["kind"]["required"]) == ("string", False)
    assert columns["shop"]["type"] == "long"


@pytest.mark.parametrize("library", ["sklearn", "lightgbm", "xgboost", "joined"])
def test_estimators_in_scikit_learns_format_find_categories_too(
    save: Save, categories: pd.DataFrame, value: Any, library: str
) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline

    outcome = value + 9 * (categories["kind"] == "cake")
    options = {"min_data_per_group": 1, "cat_smooth": 0}
    models: dict[str, Callable[[], Any]] = {
        "sklearn": lambda: HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=5),
        "lightgbm": lambda: make_pipeline(lightgbm_estimator("LGBMRegressor", **options)),
        "xgboost": lambda: make_pipeline(xgboost_estimator("XGBRegressor", enable_categorical=True)),
        "joined": lambda: lightgbm_estimator("LGBMRegressor", **options),
    }
    model = models[library]().fit(categories, outcome)
    model = joined_quantiles([model, model]) if library == "joined" else model

    stored = load(save(model, categories))

    rows = sent(categories)
    assert stored.flavour == "sklearn"
    np.testing.assert_allclose(stored.answer(rows), model.predict(categories), rtol=1e-6)
    np.testing.assert_allclose(stored.answer(rows[5:6]), model.predict(categories)[5:6], rtol=1e-6)
    assert abs(stored.answer(rows.assign(kind="cake")) - stored.answer(rows.assign(kind="bread"))).max() > 1


@pytest.mark.parametrize("name", ["a booster", "an estimator"])
def test_lightgbm_gets_columns_in_the_order_of_its_training(
    save: Save, inputs: pd.DataFrame, value: Any, name: str
) -> None:
    """LightGBM itself goes by the places of columns, and answers something else without a word."""
    model = (
        lightgbm_booster(inputs, value)
        if name == "a booster"
        else lightgbm_estimator("LGBMRegressor").fit(inputs, value)
    )

    stored = load(save(model, inputs[["age", "amount"]]))

    np.testing.assert_array_equal(stored.answer(inputs[["age", "amount"]]), stored.answer(inputs))
    np.testing.assert_allclose(stored.answer(inputs), model.predict(inputs), rtol=1e-12)


# ---- ONNX


def test_an_onnx_classifier_predicts_labels_or_probabilities(
    save: Save, inputs: pd.DataFrame, label: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(inputs.to_numpy(), label)
    graph = onnx_graph(model, inputs, options={"zipmap": False})

    labels = load(save(graph, inputs)).answer(inputs)
    probabilities = load(save(graph, inputs, method="predict_proba")).answer(inputs)

    np.testing.assert_array_equal(labels, model.predict(inputs.to_numpy()))
    np.testing.assert_allclose(probabilities, model.predict_proba(inputs.to_numpy()), atol=1e-5)


def test_probabilities_that_are_a_map_by_class_become_a_matrix(
    save: Save, inputs: pd.DataFrame, label: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(inputs.to_numpy(), np.array(["low", "middle", "high"])[label])

    answer = load(save(onnx_graph(model, inputs), inputs, method="predict_proba")).answer(inputs)

    np.testing.assert_allclose(answer, model.predict_proba(inputs.to_numpy()), atol=1e-5)


def test_an_onnx_regressor_predicts_one_value_for_each_row(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import Ridge

    model = Ridge().fit(inputs.to_numpy(), value)

    stored = load(folder := save(onnx_graph(model, inputs), inputs))

    assert stored.flavour == "onnx"
    answer = stored.answer(inputs)
    assert answer.shape == (ROWS,)
    np.testing.assert_allclose(answer, model.predict(inputs.to_numpy()), rtol=1e-4)
    require_no_pickle(folder)


def test_an_onnx_model_of_several_outputs_by_row_predicts_a_matrix(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(inputs.to_numpy(), np.column_stack([value - 1, value, value + 1]))

    answer = load(save(onnx_graph(model, inputs), inputs)).answer(inputs)

    np.testing.assert_allclose(answer, model.predict(inputs.to_numpy()), rtol=1e-4)


def test_an_onnx_model_with_an_input_for_each_column_takes_texts_and_numbers(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = inputs.assign(kind=pd.Series(np.array(["bread", "cake"])[np.arange(ROWS) % 2], dtype="object"))
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    model = make_pipeline(columns, Ridge()).fit(rows, value + 5 * (rows["kind"] == "cake"))
    taken: Any = [
        (name, StringTensorType([None, 1]) if name == "kind" else DoubleTensorType([None, 1]))
        for name in ("age", "kind", "amount")
    ]
    graph = to_onnx(model, initial_types=taken)

    answer = load(save(graph, rows)).answer(rows)

    np.testing.assert_allclose(answer, model.predict(rows), rtol=1e-4)


def test_an_onnx_regressor_has_no_probabilities(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    from sklearn.tree import DecisionTreeRegressor

    graph = onnx_graph(DecisionTreeRegressor(max_depth=2).fit(inputs.to_numpy(), value), inputs)

    with pytest.raises(ModelRefusedError, match=r"has no predict_log_proba: its outputs are variable"):
        save(graph, inputs, method="predict_log_proba")


# ---- What every flavour has


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
        for said in (f"../{outside.name}", str(outside), ""):
            describe(folder, name, **{keys[name]: said})
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
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(
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


def test_an_objective_of_ones_own_is_not_stored(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    def objective(truth: Any, answer: Any) -> tuple[Any, Any]:
        return answer - truth, np.ones_like(answer)

    model = lightgbm_estimator("LGBMRegressor", objective=objective).fit(inputs, value)

    with pytest.raises(ModelRefusedError, match=r"not trusted: .*objective"):
        save(model, inputs)


def test_a_class_derived_from_xgboosts_is_not_stored(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    from xgboost import XGBRegressor

    class Ours(XGBRegressor):
        pass

    with pytest.raises(ModelRefusedError, match=r"Ours cannot be restored"):
        save(Ours(n_estimators=3).fit(inputs, value), inputs)


@pytest.mark.parametrize(
    "model", [object(), "a text", np.zeros(3), print, Path], ids=lambda model: type(model).__name__
)
def test_an_object_that_is_not_a_model_is_refused_with_a_list_of_models(
    save: Save, inputs: pd.DataFrame, model: Any
) -> None:
    with pytest.raises(ModelRefusedError, match=r"scikit-learn.*|LightGBM.*XGBoost.*ONNX.*scikit-learn"):
        save(model, inputs)


def test_a_method_that_a_model_does_not_have_is_refused_with_those_it_has(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import Ridge

    with pytest.raises(ModelRefusedError, match=r"Ridge has no predict_proba; its methods are predict\."):
        save(Ridge().fit(inputs, value), inputs, method="predict_proba")


def test_a_model_that_is_not_fitted_is_refused(save: Save, inputs: pd.DataFrame) -> None:
    from sklearn.linear_model import Ridge

    with pytest.raises(ModelRefusedError, match="cannot predict for the first of its inputs: NotFittedError"):
        save(Ridge(), inputs)


def test_a_prediction_that_is_not_by_row_is_refused(save: Save, inputs: pd.DataFrame, label: Any) -> None:
    """It would be a list with an array for each output."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multioutput import MultiOutputClassifier

    model = MultiOutputClassifier(LogisticRegression()).fit(inputs, np.column_stack([label, label > 0]))

    with pytest.raises(
        ModelRefusedError, match="predict_proba of the model returns a list of 2 for 5 inputs"
    ):
        save(model, inputs, method="predict_proba")
    assert load(save(model, inputs)).answer(inputs).shape == (ROWS, 2)


def test_a_model_that_its_format_cannot_hold_is_refused(save: Save, inputs: pd.DataFrame) -> None:
    """A method that was put on an estimator is not in XGBoost's format."""
    model = xgboost_estimator("XGBRegressor").fit(inputs, inputs["age"])
    model.predict = lambda rows: np.zeros(len(rows))

    with pytest.raises(
        ModelRefusedError, match=r"after it is loaded from its files, and \[0\.0, 0\.0, .* before"
    ):
        save(model, inputs)


def test_a_graph_that_onnx_runtime_does_not_know_is_refused(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.linear_model import Ridge

    graph = onnx_graph(Ridge().fit(inputs.to_numpy(), value), inputs)
    graph.opset_import[0].version = 99

    with pytest.raises(ModelRefusedError, match="ONNX Runtime cannot load the model"):
        save(graph, inputs)


@pytest.mark.parametrize("place", ["inside", "beside", "absolute"])
def test_the_numbers_of_a_graph_are_read_from_files_of_the_model_only(
    save: Save, inputs: pd.DataFrame, tmp_path: Path, place: str
) -> None:
    """MLflow itself writes them to a second file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((2, 400), "float32"), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["sums"])],
        "sums",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [None, 400])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = save(model, inputs)
    assert load(folder).answer(inputs).shape == (ROWS, 400)
    file = "weights.bin"
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location=file, size_threshold=0)
    if place == "inside":
        np.testing.assert_allclose(
            load(folder).answer(inputs)[:, 0], inputs.to_numpy().sum(axis=1), rtol=1e-5
        )
        return
    outside = Path(shutil.move(folder / file, tmp_path / file))
    changed = onnx.load(folder / "model.onnx", load_external_data=False)
    for entry in changed.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = f"../{file}" if place == "beside" else str(outside)
    (folder / "model.onnx").write_bytes(changed.SerializeToString())

    with pytest.raises(ModelRefusedError, match="External data path validation failed"):
        load(folder)


def test_a_method_that_is_not_known_is_not_called(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    from sklearn.linear_model import Ridge

    folder = save(Ridge().fit(inputs, value), inputs)
    describe(folder, "python_function", predict_fn="fit")

    with pytest.raises(ModelRefusedError, match="has no fit"):
        load(folder)


@pytest.mark.parametrize(
    "strange", [[1, "two"] * (ROWS // 2), [{"a": 1}, 2] * (ROWS // 2)], ids=["numbers and texts", "no values"]
)
def test_inputs_that_no_signature_describes_are_refused(
    save: Save, inputs: pd.DataFrame, value: Any, strange: list[Any]
) -> None:
    """Serving could not check the rows of a request, and would refuse the version later."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    rows = inputs.assign(strange=pd.Series(strange, dtype="object"))
    columns = ColumnTransformer([("numbers", "passthrough", ["amount", "age"])])

    with pytest.raises(ModelRefusedError, match="MLflow cannot infer a signature for the inputs"):
        save(make_pipeline(columns, Ridge()).fit(rows, value), rows)


@pytest.mark.parametrize("codes", [[0, 1], [0.5, 1.5]], ids=["whole", "fractions"])
def test_a_model_that_cannot_predict_for_the_types_of_its_signature_is_refused(
    save: Save, inputs: pd.DataFrame, value: Any, codes: list[Any]
) -> None:
    """Serving gives a model numbers where the signature says numbers, also if it was trained with objects."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rows = inputs.assign(code=pd.Series(codes * (ROWS // 2), dtype="object"))
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=float("nan"), encoded_missing_value=-1
    )
    columns = ColumnTransformer([("codes", encoder, ["code"]), ("numbers", "passthrough", ["amount"])])
    model = make_pipeline(columns, Ridge())

    with pytest.raises(
        ModelRefusedError, match=r"A service would send the model code as .* convert categories"
    ):
        save(model.fit(rows, value), rows)


def test_the_same_categories_as_numbers_or_as_texts_are_taken(
    save: Save, inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    columns = ColumnTransformer(
        [("codes", OrdinalEncoder(), ["code"]), ("numbers", "passthrough", ["amount"])]
    )
    for codes in ([0, 1], [True, False], ["0", "1"]):
        rows = inputs.assign(code=codes * (ROWS // 2))
        folder = save(make_pipeline(columns, Ridge()).fit(rows, value), rows)
        assert len(load(folder).answer(rows)) == len(rows)
        shutil.rmtree(folder)


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
def test_mlflow_learns_what_kind_of_model_it_is(
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


# ---- Quantiles of models of one level each


def quantile_regressor(level: float) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    trees = HistGradientBoostingRegressor(loss="quantile", quantile=level, max_iter=10, min_samples_leaf=5)
    return make_pipeline(StandardScaler(), trees)


def test_joined_quantiles_predict_a_column_for_each_level_here_and_with_mlflows_pyfunc(
    save: Save, inputs: pd.DataFrame, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    estimators = [quantile_regressor(level).fit(inputs, value) for level in (0.1, 0.5, 0.9)]
    model = joined_quantiles(estimators)

    stored = load(folder := save(model, inputs))

    expected = np.column_stack([each.predict(inputs) for each in estimators])
    for answer in (model.predict(inputs), stored.answer(inputs)):
        assert answer.shape == (ROWS, 3)
        np.testing.assert_array_equal(answer, expected)
    outputs = json.loads(described(folder)["signature"]["outputs"])
    assert outputs[0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 3]}
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    np.testing.assert_array_equal(pyfunc.load_model(str(folder)).predict(inputs), expected)


def test_quantiles_of_lightgbm_are_joined_too(save: Save, inputs: pd.DataFrame, value: Any) -> None:
    estimators = [
        lightgbm_estimator("LGBMRegressor", objective="quantile", alpha=level).fit(inputs, value)
        for level in (0.1, 0.9)
    ]

    answer = load(save(joined_quantiles(estimators), inputs)).answer(inputs)

    np.testing.assert_allclose(answer, np.column_stack([each.predict(inputs) for each in estimators]))


def test_joined_quantiles_need_fitted_estimators_of_the_same_columns(
    inputs: pd.DataFrame, value: Any
) -> None:
    from sklearn.exceptions import NotFittedError

    fitted = quantile_regressor(0.1).fit(inputs, value)
    other = quantile_regressor(0.9).fit(inputs[["age"]], value)

    with pytest.raises(ValueError, match="There are no estimators"):
        joined_quantiles([])
    with pytest.raises(NotFittedError):
        joined_quantiles([fitted, quantile_regressor(0.9)])
    with pytest.raises(ValueError, match=r"different columns: \['amount', 'age'\], \['age'\]"):
        joined_quantiles([fitted, other])
