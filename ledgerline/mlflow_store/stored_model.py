"""Declares loaded models, and the interface of flavours. The flavours themselves are in flavours/."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.errors import LedgerlineError
from ledgerline.mlflow_store.categories import CATEGORIES_KEY

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model, ModelSignature

# MLflow's key for the method that its pyfunc of scikit-learn calls. It is also added to the descriptions of
# other flavours, where MLflow ignores it.
METHOD_KEY = "predict_fn"
PYFUNC = "python_function"

PREDICT, PROBABILITIES = "predict", "predict_proba"
METHODS = (PREDICT, PROBABILITIES, "predict_log_proba")


class ModelRefusedError(LedgerlineError):
    """Raised when files of a model are not those that were registered, or could run code when loaded."""


@dataclass(frozen=True)
class StoredModel:
    """A model that is ready to predict.

    Attributes:
        flavour: MLflow's name of the flavour.
        model: Object of the model's library.
        method: Method that `answer` calls, one of METHODS.
        answer: Function from a frame of inputs, or one array, to an array with one row for each input.
    """

    flavour: str
    model: Any
    method: str
    answer: Callable[[Any], Any]


@dataclass(frozen=True)
class Needs:
    """Distributions that loading a model needs, and types in its skops file that skops does not trust."""

    libraries: Sequence[str]
    types: Sequence[str] = ()


@dataclass(frozen=True)
class Saved:
    """Everything that is written beside a model.

    Attributes:
        description: MLflow's entity, to which the flavour adds its section.
        example: Rows that the model predicts as a test when it is loaded.
        categories: Columns of the example that the model was trained with as pandas' categories.
    """

    description: "Model"
    signature: "ModelSignature"
    example: "pd.DataFrame"
    needs: Needs
    categories: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that `save_model` of every flavour accepts."""
        return {
            "mlflow_model": self.description,
            "signature": self.signature,
            "input_example": self.example,
            "pip_requirements": [pinned(library) for library in self.needs.libraries],
        }

    def add(self, flavour: str, folder: Path, method: str, **options: Any) -> None:
        """Add the keys to the description that MLflow's flavour does not write."""
        self.description.flavors[PYFUNC][METHOD_KEY] = method
        self.description.flavors[flavour].update({CATEGORIES_KEY: list(self.categories), **options})
        self.description.save(str(folder / "MLmodel"))


class Flavour(ABC):
    """Base class of MLflow's flavours: recognises, writes and loads models of one library.

    Attributes:
        name: MLflow's name of the flavour.
        takes: Models of the flavour, for messages.
        extra: Extra of this distribution that installs the library; None if it is always installed.
    """

    name: str
    takes: str
    extra: str | None = None

    @abstractmethod
    def owns(self, model: Any) -> bool:
        """Return whether a model is of this flavour, without importing a library."""

    @abstractmethod
    def stored(self, model: Any, method: str, categories: Sequence[str]) -> StoredModel:
        """Return the model with its method of METHODS, and the columns that it takes as pandas' categories.

        Raises:
            ModelRefusedError: It has no such method.
        """

    @abstractmethod
    def model_type(self, model: Any, method: str) -> str | None:
        """Return MLflow's name for a kind of model: "classifier", "regressor", or None for other kinds."""

    @abstractmethod
    def needs(self, model: Any) -> Needs:
        """Return what loading a model needs.

        Raises:
            ModelRefusedError: The model could not be loaded again.
        """

    @abstractmethod
    def write(self, stored: StoredModel, folder: Path, saved: Saved) -> None:
        """Write the model to a folder that does not exist yet."""

    @abstractmethod
    def read(self, folder: Path, config: Mapping[str, Any], method: str) -> StoredModel:
        """Load a model without running code in its files; `config` is its section of the description.

        Raises:
            ModelRefusedError: The model cannot be loaded without running code.
        """


def bound(flavour: str, model: Any, method: str) -> StoredModel:
    """Return a StoredModel for a model whose methods have the names in METHODS, like those of scikit-learn.

    Raises:
        ModelRefusedError: It has no such method.
    """
    if method not in METHODS or not callable(getattr(model, method, None)):
        has = [name for name in METHODS if callable(getattr(model, name, None))]
        raise ModelRefusedError(
            f"{type(model).__name__} has no {method}; its methods are {', '.join(has) or 'others'}.",
            "Log it with one of them." if has else f"Log a model that has one of {', '.join(METHODS)}.",
        )
    return StoredModel(flavour, model, method, getattr(model, method))


def doubles(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that predicts 64-bit numbers, so that the type does not depend on the library."""

    def answer_doubles(inputs: Any) -> Any:
        answered = answer(inputs)
        return answered.astype("float64") if answered.dtype.kind == "f" else answered

    return answer_doubles


def file_in(folder: Path, config: Mapping[str, Any], key: str) -> Path:
    """Return the path of a file that a description names.

    Raises:
        ModelRefusedError: The file is not among the files of the model, which are hashed.
    """
    name = str(config.get(key, ""))
    file = (folder / name).resolve()
    if not name or not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise ModelRefusedError(
            f"The description of the model names the file {name!r}, which it does not have.",
            "Log the model again, with all of its files.",
        )
    return file


def library(flavour: "Flavour", module: str) -> Any:
    """Import the library of a flavour.

    Raises:
        ModelRefusedError: The library, or a library that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a C library is missing.
        raise ModelRefusedError(
            f"{flavour.takes} need {module}, which cannot be imported: {error}.",
            f"Install it: `pip install 'ledgerline-mlops[{flavour.extra}]'`.",
        ) from error


def pinned(library: str) -> str:
    """Return a requirement for the installed version. A CPU-only build counts as the library."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (library, f"{library}-cpu"):
        try:
            return f"{name}=={version(name)}"
        except PackageNotFoundError:
            continue
    return library
