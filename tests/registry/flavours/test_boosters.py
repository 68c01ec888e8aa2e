"""Tests models of LightGBM and XGBoost: stored in formats that run no code, loaded, and used to predict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.mlflow_store.model_files import load
from ledgerline.mlflow_store.quantile_models import joined_quantiles
from ledgerline.mlflow_store.stored_model import ModelRefusedError
from tests.registry.flavours.estimators import (
    ROWS,
    Save,
    described,
    lightgbm_booster,
    lightgbm_estimator,
    names,
    require_no_pickle,
    xgboost_booster,
    xgboost_estimator,
)

# MLflow hints that whole numbers cannot have gaps; here they have none.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*integer column:UserWarning")


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
