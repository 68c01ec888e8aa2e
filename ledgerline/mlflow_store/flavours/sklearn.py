"""Stores scikit-learn's estimators and pipelines in skops format, with the types of trusted_types.py only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledgerline.mlflow_store.categories import CATEGORIES_KEY, with_categories
from ledgerline.mlflow_store.stored_model import (
    Flavour,
    ModelRefusedError,
    Needs,
    Saved,
    StoredModel,
    bound,
    file_in,
)
from ledgerline.mlflow_store.trusted_types import TRUSTED_TYPES

REQUIREMENTS = ("numpy", "pandas", "scikit-learn", "skops")
BOOSTERS = ("lightgbm", "xgboost")  # libraries whose estimators may be steps of a pipeline


class Sklearn(Flavour):
    """Flavour of scikit-learn's estimators and pipelines, which may contain those of other libraries."""

    name = "sklearn"
    takes = "scikit-learn estimators and pipelines"

    def owns(self, model: Any) -> bool:
        """Return whether a model is an estimator. If it is one, scikit-learn has already been imported."""
        return hasattr(model, "__sklearn_tags__") and not isinstance(model, type)

    def stored(self, model: Any, method: str, categories: Sequence[str]) -> StoredModel:
        """Return the model. An estimator of another library in a pipeline may need categories."""
        stored = bound(self.name, model, method)
        return replace(stored, answer=with_categories(stored.answer, categories))

    def model_type(self, model: Any, method: str) -> str | None:
        """Return the kind that scikit-learn reports."""
        from sklearn.base import is_classifier, is_regressor

        if is_classifier(model):
            return "classifier"
        return "regressor" if is_regressor(model) else None

    def needs(self, model: Any) -> Needs:
        """Return what loading needs: scikit-learn, skops, and the libraries of boosters in a pipeline."""
        types = _types_to_trust(model)
        libraries = {name.partition(".")[0] for name in types}
        return Needs([*REQUIREMENTS, *(each for each in BOOSTERS if each in libraries)], types)

    def write(self, stored: StoredModel, folder: Path, saved: Saved) -> None:
        """Write the model with skops."""
        from mlflow import sklearn

        sklearn.save_model(
            stored.model,
            str(folder),
            serialization_format="skops",
            skops_trusted_types=list(saved.needs.types),
            pyfunc_predict_fn=stored.method,
            **saved.options,
        )
        saved.add(self.name, folder, stored.method)

    def read(self, folder: Path, config: Mapping[str, Any], method: str) -> StoredModel:
        """Load a file in skops format."""
        if config.get("serialization_format") != "skops":
            raise ModelRefusedError(
                f"{folder} is not a scikit-learn model in skops format; pickled models are not loaded.",
                'Log it with serialization_format="skops".',
            )
        # MLflow's name for the model file, pickled or not.
        model = load_skops(file_in(folder, config, "pickled_model"))
        return self.stored(model, method, config.get(CATEGORIES_KEY, ()))


def load_skops(file: Path) -> Any:
    """Load an object if every type in it is trusted.

    Raises:
        ModelRefusedError: A type is not trusted, or its library is not installed.
    """
    import skops.io

    types = skops.io.get_untrusted_types(file=file)
    _require_trusted(types)
    try:
        # Only the types in the file are passed, because skops reads the list for each part of the object.
        return skops.io.load(file, trusted=types)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in BOOSTERS:
            raise
        raise ModelRefusedError(
            f"The model needs {library}, which is not installed.",
            f"Install it: `pip install 'ledgerline-mlops[{library}]'`.",
        ) from error


def _types_to_trust(model: Any) -> list[str]:
    """Return the types in a model that skops does not trust.

    Raises:
        ModelRefusedError: Ledgerline does not trust one of them either, or skops cannot write the model.
    """
    import skops.io

    try:
        content = skops.io.dumps(model)
    except Exception as error:  # skops raises different errors by type, and RecursionError for a cycle
        raise ModelRefusedError(
            f"skops cannot write {type(model).__name__}: {type(error).__name__}: {error}"
        ) from error
    types = skops.io.get_untrusted_types(data=content)
    _require_trusted(types)
    return types


def _require_trusted(types: Collection[str]) -> None:
    strange = sorted(set(types) - TRUSTED_TYPES)
    if strange:
        raise ModelRefusedError(
            f"The model holds types that are not trusted: {', '.join(strange)}. A model may have types "
            "of scikit-learn, LightGBM and XGBoost only.",
            "Call your own functions in the asset of the inputs.",
        )
