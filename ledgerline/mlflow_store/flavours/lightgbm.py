"""Stores LightGBM's models: Boosters in LightGBM's text format, and estimators in skops format."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledgerline.mlflow_store.categories import CATEGORIES_KEY, with_categories
from ledgerline.mlflow_store.flavours.sklearn import Sklearn, load_skops
from ledgerline.mlflow_store.stored_model import (
    PREDICT,
    Flavour,
    ModelRefusedError,
    Needs,
    Saved,
    StoredModel,
    bound,
    file_in,
    library,
)

REQUIREMENTS = ("numpy", "pandas", "lightgbm")

TEXT_FORMAT = ".lgb"

# Objectives that predict probabilities.
CLASSIFYING = ("binary", "multiclass", "multiclassova", "cross_entropy")


class LightGBM(Flavour):
    """Flavour of LightGBM's Boosters and estimators."""

    name = "lightgbm"
    takes = "LightGBM models"
    extra = "lightgbm"

    def owns(self, model: Any) -> bool:
        """Return whether a model is a Booster or an estimator of LightGBM."""
        lightgbm = sys.modules.get("lightgbm")
        return lightgbm is not None and isinstance(model, lightgbm.Booster | lightgbm.LGBMModel)

    def stored(self, model: Any, method: str, categories: Sequence[str]) -> StoredModel:
        """Return the model. A Booster only has the method `predict`, which may return probabilities."""
        if not _is_booster(model):
            names = model.booster_.feature_name()
        elif method == PREDICT:
            names = model.feature_name()
        else:
            raise ModelRefusedError(
                f"A Booster of LightGBM has no {method}: its predict returns what its objective "
                "defines, which may be probabilities.",
                'Log it with method="predict".',
            )
        stored = bound(self.name, model, method)
        return replace(stored, answer=with_categories(_in_order(stored.answer, names), categories))

    def model_type(self, model: Any, method: str) -> str | None:
        """Return the kind of the estimator, or the kind of the Booster by its objective."""
        if not _is_booster(model):
            return Sklearn().model_type(model, method)
        return "classifier" if _objective(model) in CLASSIFYING else "regressor"

    def needs(self, model: Any) -> Needs:
        """Return what loading the model needs: LightGBM, and skops for an estimator."""
        return Needs(REQUIREMENTS) if _is_booster(model) else Sklearn().needs(model)

    def write(self, stored: StoredModel, folder: Path, saved: Saved) -> None:
        """Write the model. An estimator also gets scikit-learn's flavour, whose pyfunc has other methods."""
        from mlflow import lightgbm

        model = stored.model
        if _is_booster(model):
            lightgbm.save_model(model, str(folder), **saved.options)
        else:
            saved.description.add_flavor(
                self.name,
                lgb_version=library(self, "lightgbm").__version__,
                data="model.skops",
                model_class=f"{type(model).__module__}.{type(model).__name__}",
                code=None,
                serialization_format="skops",
                skops_trusted_types=list(saved.needs.types),
            )
            Sklearn().write(stored, folder, saved)
        saved.add(self.name, folder, stored.method)

    def read(self, folder: Path, config: Mapping[str, Any], method: str) -> StoredModel:
        """Load the text of a Booster, or a file in skops format."""
        lightgbm = library(self, "lightgbm")
        file = file_in(folder, config, "data")
        if file.suffix == TEXT_FORMAT:
            model = lightgbm.Booster(model_file=file)
        elif config.get("serialization_format") == "skops":
            model = load_skops(file)
        else:
            raise ModelRefusedError(
                f"{folder} is not a LightGBM model in text or skops format; pickled models are not loaded.",
                "Log a Booster, or an estimator in skops format.",
            )
        return self.stored(model, method, tuple(config.get(CATEGORIES_KEY, ())))


def _is_booster(model: Any) -> bool:
    return isinstance(model, sys.modules["lightgbm"].Booster)


def _objective(booster: Any) -> str:
    """Return the name of an objective, without the parameters that follow it in the text of the model."""
    for line in booster.model_to_string(num_iteration=1).splitlines():
        if line.startswith("objective="):
            return line.removeprefix("objective=").split()[0]
    return ""  # It is a custom function, which the text does not contain.


def _in_order(answer: Callable[[Any], Any], names: Sequence[str]) -> Callable[[Any], Any]:
    """Return a function that sorts columns as in training: LightGBM uses their positions, not their names."""
    known = set(names)

    def answer_in_order(inputs: Any) -> Any:
        columns = list(getattr(inputs, "columns", names))
        if columns != names and set(columns) == known:
            inputs = inputs[names]
        return answer(inputs)

    return answer_in_order
