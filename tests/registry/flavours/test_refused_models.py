"""Tests which models are not stored, since they could not be loaded or served."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.mlflow_store.model_files import load
from ledgerline.mlflow_store.stored_model import ModelRefusedError
from tests.registry.flavours.estimators import ROWS, Save, lightgbm_estimator, xgboost_estimator

# MLflow hints that whole numbers cannot have gaps; here they have none.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*integer column:UserWarning")


def test_a_custom_objective_is_not_stored(save: Save, inputs: pd.DataFrame, value: Any) -> None:
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
