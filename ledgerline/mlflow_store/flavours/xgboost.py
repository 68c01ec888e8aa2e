"""Stores XGBoost's models in UBJSON, and also loads JSON files of other programs."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledgerline.mlflow_store.categories import CATEGORIES_KEY, with_categories
from ledgerline.mlflow_store.flavours.sklearn import Sklearn
from ledgerline.mlflow_store.stored_model import (
    PREDICT,
    Flavour,
    ModelRefusedError,
    Needs,
    Saved,
    StoredModel,
    bound,
    doubles,
    file_in,
    library,
)

REQUIREMENTS = ("numpy", "pandas", "scikit-learn", "xgboost")

FORMATS = (".ubj", ".json")

# XGBoost's formats do not store which value represents a missing one, and the estimator would treat it as a
# number. It is added to the description; None represents NaN.
MISSING_KEY = "missing"

BOOSTER = "xgboost.core.Booster"

# A description contains the class of its model, and MLflow would import any class.
CLASSES = (
    BOOSTER,
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRanker",
    "xgboost.sklearn.XGBRegressor",
)


class XGBoost(Flavour):
    """Flavour of XGBoost's Boosters and estimators."""

    name = "xgboost"
    takes = "XGBoost models"
    extra = "xgboost"

    def owns(self, model: Any) -> bool:
        """Return whether a model is a Booster or an estimator of XGBoost."""
        xgboost = sys.modules.get("xgboost")
        return xgboost is not None and isinstance(model, xgboost.Booster | xgboost.XGBModel)

    def stored(self, model: Any, method: str, categories: Sequence[str]) -> StoredModel:
        """Return the model. A Booster only has the method `predict`, which may return probabilities."""
        if _class_name(model) != BOOSTER:
            stored = bound(self.name, model, method)
            return replace(stored, answer=with_categories(doubles(stored.answer), categories))
        if method != PREDICT:
            raise ModelRefusedError(
                f"A Booster of XGBoost has no {method}: its predict returns what its objective "
                "defines, which may be probabilities.",
                'Log it with method="predict".',
            )
        matrix = library(self, "xgboost").DMatrix

        def answer(inputs: Any) -> Any:
            return model.predict(matrix(inputs, enable_categorical=True))

        return StoredModel(self.name, model, method, with_categories(doubles(answer), categories))

    def model_type(self, model: Any, method: str) -> str | None:
        """Return the kind of the estimator, or the kind of the Booster by its objective."""
        if _class_name(model) != BOOSTER:
            return Sklearn().model_type(model, method)
        objective = json.loads(model.save_config())["learner"]["objective"]["name"]
        return "classifier" if objective.startswith(("binary:", "multi:")) else "regressor"

    def needs(self, model: Any) -> Needs:
        """Return what loading the model needs: XGBoost, and scikit-learn, which its estimators import."""
        if _class_name(model) not in CLASSES:
            raise ModelRefusedError(
                f"A {_class_name(model)} cannot be restored from XGBoost's format.",
                f"Log a model of one of these classes: {', '.join(CLASSES)}.",
            )
        return Needs(REQUIREMENTS)

    def write(self, stored: StoredModel, folder: Path, saved: Saved) -> None:
        """Write the model in UBJSON."""
        from mlflow import xgboost

        xgboost.save_model(stored.model, str(folder), **saved.options)
        saved.add(self.name, folder, stored.method, **{MISSING_KEY: _missing(stored.model)})

    def read(self, folder: Path, config: Mapping[str, Any], method: str) -> StoredModel:
        """Load the model into an object of a known class."""
        class_name = config.get("model_class", BOOSTER)
        if class_name not in CLASSES:
            raise ModelRefusedError(
                f"{folder} holds a {class_name}; supported are {', '.join(CLASSES)}.",
                "Log a model of one of these classes.",
            )
        file = file_in(folder, config, "data")
        if file.suffix not in FORMATS:
            raise ModelRefusedError(
                f"{folder} is not in a format of XGBoost.", f"Save the model as {' or '.join(FORMATS)}."
            )
        model = getattr(library(self, "xgboost"), class_name.rpartition(".")[2])()
        model.load_model(file)
        if isinstance(config.get(MISSING_KEY), int | float) and class_name != BOOSTER:
            model.missing = config[MISSING_KEY]
        return self.stored(model, method, tuple(config.get(CATEGORIES_KEY, ())))


def _missing(model: Any) -> float | None:
    """Return the value that an estimator treats as missing; None represents NaN or the default."""
    missing = getattr(model, "missing", None)
    return None if missing is None or math.isnan(missing) else float(missing)


def _class_name(model: Any) -> str:
    return f"{type(model).__module__}.{type(model).__name__}"
