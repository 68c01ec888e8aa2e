"""The files of a model: written, hashed, and read without running what is in them. By flavour: flavours/."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.mlflow_store.categories import as_values, categories_of
from ledgerline.mlflow_store.flavours.lightgbm import LightGBM
from ledgerline.mlflow_store.flavours.onnx import Onnx
from ledgerline.mlflow_store.flavours.sklearn import Sklearn
from ledgerline.mlflow_store.flavours.xgboost import XGBoost
from ledgerline.mlflow_store.stored_model import (
    METHOD_KEY,
    PREDICT,
    PYFUNC,
    Flavour,
    ModelRefusedError,
    Saved,
    StoredModel,
)

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel
    from mlflow.models import Model, ModelSignature

# The first that owns a model takes it: the estimators of LightGBM and XGBoost are scikit-learn's, too.
FLAVOURS: tuple[Flavour, ...] = (LightGBM(), XGBoost(), Onnx(), Sklearn())

# The registry adds this file when it hands out a version; it is not part of the model.
ADDED_BY_REGISTRY = "registered_model_meta"

EXAMPLE_ROWS = 5

# Texts of numbers, as in LightGBM's format, may lose the last digit.
TOLERANCE = 1e-6


def flavour_of(model: Any) -> Flavour:
    """Return the flavour that stores a model.

    Raises:
        ModelRefusedError: There is none.
    """
    for flavour in FLAVOURS:
        if flavour.owns(model):
            return flavour
    raise ModelRefusedError(
        f"A {type(model).__module__}.{type(model).__qualname__} cannot be stored as a model. "
        f"These can: {', '.join(flavour.takes for flavour in FLAVOURS)}."
    )


def save(
    model: Any,
    folder: Path,
    inputs: "pd.DataFrame",
    logged: "LoggedModel",
    run_id: str,
    *,
    method: str = PREDICT,
) -> None:
    """Write a model as an MLflow model that answers with one of its methods.

    Args:
        model: A fitted model of one of FLAVOURS.
        folder: Where to write; must not exist.
        inputs: Rows from which the signature is inferred; the first ones become the example.
        logged: The MLflow entity that the files belong to.
        run_id: The training run.
        method: What the model is asked: "predict", "predict_proba" or "predict_log_proba".

    Raises:
        ModelRefusedError: It has no such method, loading would not accept it, or it would answer otherwise.
    """
    from mlflow.models import Model, infer_signature

    flavour = flavour_of(model)
    categories = categories_of(inputs)
    needs = flavour.needs(model)
    stored = flavour.stored(model, method, categories)
    sent = as_values(inputs, categories)
    example = sent.head(EXAMPLE_ROWS)
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=run_id,
    )
    answer = _answer(stored, example)
    signature = infer_signature(_with_gaps(sent, example), answer)
    _require_described(signature)
    flavour.write(stored, folder, Saved(description, signature, example, needs, categories))
    read = load(folder)
    _require_same(_answer(read, example), answer)
    _require_served(read, example, signature)


def _with_gaps(inputs: "pd.DataFrame", example: "pd.DataFrame") -> "pd.DataFrame":
    """The example and, for each column that has gaps, a row with one: it becomes optional."""
    import pandas as pd

    gaps = inputs.isna()
    first_gaps = gaps.idxmax()[gaps.any()].unique()
    return pd.concat([example, inputs.loc[first_gaps]])


def _answer(stored: StoredModel, example: "pd.DataFrame") -> Any:
    """Return the answer of a model about its example.

    Raises:
        ModelRefusedError: It raises something, or its answer is not by row.
    """
    import numpy as np
    import pandas as pd

    try:
        answer = stored.answer(example)
    except Exception as error:  # models raise anything
        raise ModelRefusedError(
            f"The model does not answer the first of its inputs: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(answer, np.ndarray | pd.DataFrame | pd.Series) or len(answer) != len(example):
        raise ModelRefusedError(
            f"{stored.method} of the model answers a {type(answer).__name__} of {len(answer)} about "
            f"{len(example)} inputs; it must be an array with a row for each of them."
        )
    return answer


def _require_same(read: Any, answer: Any) -> None:
    """Make sure that a model that was read again answers as before; a format may not hold all of it."""
    import numpy as np

    found, expected = np.asarray(read), np.asarray(answer)
    same = found.shape == expected.shape and (
        np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if expected.dtype.kind == "f"
        else bool((found == expected).all())
    )
    if not same:
        raise ModelRefusedError(
            f"Read again from its files, the model answers {found.tolist()}, and before "
            f"{expected.tolist()}: their format does not hold all of it."
        )


def _require_served(read: StoredModel, example: "pd.DataFrame", signature: "ModelSignature") -> None:
    """Make sure that a model answers columns of the types of its signature, which is what a service gives it.

    A column of whole numbers that is stored as objects was trained with objects, and is served as numbers.
    """
    import numpy as np
    from mlflow.types import DataType

    types: dict[str, np.dtype[Any]] = {}
    for column in signature.inputs or ():
        given = example.get(column.name)
        if given is not None and given.dtype.kind == "O" and isinstance(column.type, DataType):
            sent = np.dtype(column.type.to_numpy())
            if sent.kind not in "OSU" and given.notna().all():
                types[str(column.name)] = sent
    if not types:
        return
    try:
        read.answer(example.astype(types))
    except Exception as error:  # models raise anything
        named = ", ".join(f"{name} as {dtype}" for name, dtype in types.items())
        raise ModelRefusedError(
            f"A service would give the model {named}, and it cannot answer that: {type(error).__name__}: "
            f"{error}. Train it on columns of these types, or make texts of categories that are numbers."
        ) from error


def _require_described(signature: "ModelSignature") -> None:
    """Make sure that rows can be checked by a signature: MLflow itself warns, and goes on without types."""
    from mlflow.types.schema import AnyType

    for part, schema in (("inputs", signature.inputs), ("answer", signature.outputs)):
        if schema is None or any(isinstance(column.type, AnyType) for column in schema.inputs):
            raise ModelRefusedError(
                f"MLflow finds no signature for the {part} of the model. Let each column have values of one "
                "type: numbers, texts, truth values or moments."
            )


def load(folder: Path) -> StoredModel:
    """Read a model; nothing in its files is executed.

    Raises:
        ModelRefusedError: It is of no flavour that can be read like that, or holds what is not trusted.
    """
    from mlflow.models import Model

    description = Model.load(str(folder))
    for flavour in FLAVOURS:
        config: Mapping[str, Any] | None = description.flavors.get(flavour.name)
        if config is None:
            continue
        try:
            return flavour.read(folder, config, recorded_method(description) or PREDICT)
        except ModelRefusedError:
            raise
        except Exception as error:  # what the libraries raise about a file differs
            raise ModelRefusedError(
                f"{folder} cannot be read as {flavour.name}: {type(error).__name__}: {error}"
            ) from error
    raise ModelRefusedError(
        f"{folder} is of {' and '.join(sorted(description.flavors)) or 'no flavour'}; pickled models are not "
        f"loaded. Read without running code are: {', '.join(flavour.takes for flavour in FLAVOURS)}."
    )


def recorded_method(description: "Model") -> str | None:
    """Return which method the files of a model say is asked; None: they do not say it."""
    return description.flavors.get(PYFUNC, {}).get(METHOD_KEY)


def folder_sha256(folder: Path) -> str:
    """Hash every file of a model with its path, so that nothing can be changed or added."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name != ADDED_BY_REGISTRY:
            digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
