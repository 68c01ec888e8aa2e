"""Tests models that predict several quantiles, joined of one model for each level."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.mlflow_store.model_files import load
from ledgerline.mlflow_store.quantile_models import joined_quantiles
from tests.registry.flavours.estimators import ROWS, Save, described, lightgbm_estimator


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
