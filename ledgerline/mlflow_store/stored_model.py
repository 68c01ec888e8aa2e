"""Models in memory that came from files, and the interface of their flavours, which are in flavours/."""

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

# MLflow's word for the method that its pyfunc of scikit-learn asks. Its other flavours know none; it is added
# to their descriptions, and MLflow passes over it.
METHOD_KEY = "predict_fn"
PYFUNC = "python_function"

PREDICT, PROBABILITIES = "predict", "predict_proba"
METHODS = (PREDICT, PROBABILITIES, "predict_log_proba")


class ModelRefusedError(LedgerlineError):
    """The files of a model are not those that were registered, or could run code when they are loaded."""


@dataclass(frozen=True)
class StoredModel:
    """A model, ready to predict.

    Attributes:
        flavour: MLflow's name of its flavour.
        model: The object of the model's own library.
        method: The method that `answer` calls, one of METHODS.
        answer: Takes a frame of inputs, or one array, and returns an array with one row for each of theirs.
    """

    flavour: str
    model: Any
    method: str
    answer: Callable[[Any], Any]


@dataclass(frozen=True)
class Needs:
    """Everything that reading a model needs.

    Attributes:
        libraries: Names of distributions.
        types: Types in a file of skops, beyond those that it trusts by itself.
    """

    libraries: Sequence[str]
    types: Sequence[str] = ()


@dataclass(frozen=True)
class Saved:
    """Everything that is written beside a model.

    Attributes:
        description: MLflow's entity, to which the flavour adds itself.
        signature: The inputs and the answer.
        example: Rows that the model is tried with when it is loaded.
        needs: What reading the model needs.
        categories: Columns of the example that the model was trained with as pandas' categories.
    """

    description: "Model"
    signature: "ModelSignature"
    example: "pd.DataFrame"
    needs: Needs
    categories: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that `save_model` of every flavour takes."""
        return {
            "mlflow_model": self.description,
            "signature": self.signature,
            "input_example": self.example,
            "pip_requirements": [pinned(library) for library in self.needs.libraries],
        }

    def add(self, flavour: str, folder: Path, method: str, **options: Any) -> None:
        """Write into the description what the flavour of MLflow does not."""
        self.description.flavors[PYFUNC][METHOD_KEY] = method
        self.description.flavors[flavour].update({CATEGORIES_KEY: list(self.categories), **options})
        self.description.save(str(folder / "MLmodel"))


class Flavour(ABC):
    """One of MLflow's flavours: how models of it are recognised, written and read.

    Attributes:
        name: MLflow's name of it.
        takes: The models of it, for messages.
        extra: The extra of this distribution that installs its library; None: it is always there.
    """

    name: str
    takes: str
    extra: str | None = None

    @abstractmethod
    def owns(self, model: Any) -> bool:
        """Whether a model is of this flavour; imports no library that is not imported yet."""

    @abstractmethod
    def stored(self, model: Any, method: str, categories: Sequence[str]) -> StoredModel:
        """Return the model with the method that is asked.

        Args:
            model: One that the flavour owns.
            method: One of METHODS.
            categories: Columns that the model takes as pandas' categories.

        Raises:
            ModelRefusedError: It has no such method.
        """

    @abstractmethod
    def model_type(self, model: Any, method: str) -> str | None:
        """Return MLflow's word for a kind of model, "classifier" or "regressor"; None for other kinds."""

    @abstractmethod
    def needs(self, model: Any) -> Needs:
        """Return what reading a model needs.

        Raises:
            ModelRefusedError: It would not be read again.
        """

    @abstractmethod
    def write(self, stored: StoredModel, folder: Path, saved: Saved) -> None:
        """Write the model to a folder that does not exist yet."""

    @abstractmethod
    def read(self, folder: Path, config: Mapping[str, Any], method: str) -> StoredModel:
        """Read a model, running nothing that is in its files.

        Args:
            folder: All files of the model.
            config: What its description says of this flavour.
            method: The method that is to be asked.

        Raises:
            ModelRefusedError: It cannot be read like that.
        """


def bound(flavour: str, model: Any, method: str) -> StoredModel:
    """Return a model that has methods of the names in METHODS, as scikit-learn's have.

    Raises:
        ModelRefusedError: It has no such method.
    """
    if method not in METHODS or not callable(getattr(model, method, None)):
        has = [name for name in METHODS if callable(getattr(model, name, None))]
        raise ModelRefusedError(
            f"{type(model).__name__} has no {method}; its methods are {', '.join(has) or 'others'}."
        )
    return StoredModel(flavour, model, method, getattr(model, method))


def doubles(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that answers in 64 bits: so clients need not know which library a version is of."""

    def answer_doubles(inputs: Any) -> Any:
        answered = answer(inputs)
        return answered.astype("float64") if answered.dtype.kind == "f" else answered

    return answer_doubles


def file_in(folder: Path, config: Mapping[str, Any], key: str) -> Path:
    """Return a file that a description names.

    Raises:
        ModelRefusedError: It is not among the files of the model, whose hash is known.
    """
    name = str(config.get(key, ""))
    file = (folder / name).resolve()
    if not name or not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise ModelRefusedError(
            f"The description of the model names the file {name!r}, which it does not have."
        )
    return file


def library(flavour: "Flavour", module: str) -> Any:
    """Import the library of a flavour.

    Raises:
        ModelRefusedError: It is not installed, or something that it needs is not.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # a missing library of C is an OSError
        raise ModelRefusedError(
            f"{flavour.takes} need {module}, which cannot be imported: {error}. "
            f"Install it: `pip install 'ledgerline-mlops[{flavour.extra}]'`."
        ) from error


def pinned(library: str) -> str:
    """Return a requirement of exactly the installed version; a build for CPUs only counts as the library."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (library, f"{library}-cpu"):
        try:
            return f"{name}=={version(name)}"
        except PackageNotFoundError:
            continue
    return library
