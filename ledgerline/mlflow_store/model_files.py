"""Writes, hashes and loads the files of models without running code in them. flavours/ has their formats."""

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

# The first flavour that owns a model is used, because scikit-learn's also owns estimators of LightGBM and
# XGBoost.
FLAVOURS: tuple[Flavour, ...] = (LightGBM(), XGBoost(), Onnx(), Sklearn())

# The registry adds this file to a version that is downloaded; it is not part of the model.
ADDED_BY_REGISTRY = "registered_model_meta"

EXAMPLE_ROWS = 5

# Numbers stored as texts, as in LightGBM's format, may lose the last digit.
TOLERANCE = 1e-6


def flavour_of(model: Any) -> Flavour:
    """Return the flavour that stores a model.

    Raises:
        ModelRefusedError: No flavour stores it.
    """
    for flavour in FLAVOURS:
        if flavour.owns(model):
            return flavour
    raise ModelRefusedError(
        f"A {type(model).__module__}.{type(model).__qualname__} cannot be stored as a model.",
        f"These can: {', '.join(flavour.takes for flavour in FLAVOURS)}.",
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
    """Write a model as an MLflow model that predicts with one of its methods, to a new folder.

    The signature is inferred from the inputs; their first rows become the example.

    Example:
        ```python
        model = LogisticRegression().fit(inputs, is_late)
        model_files.save(model, folder, inputs, logged_model, run_id, method="predict_proba")
        model_files.load(folder).answer(inputs.head())  # the same probabilities; no code in the files is run
        ```

    Raises:
        ModelRefusedError: The model has no such method, or could not be loaded, or would predict differently
            after it is loaded.
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
    """Add a row to the example for each column with missing values, so that the column becomes optional."""
    import pandas as pd

    gaps = inputs.isna()
    first_gaps = gaps.idxmax()[gaps.any()].unique()
    return pd.concat([example, inputs.loc[first_gaps]])


def _answer(stored: StoredModel, example: "pd.DataFrame") -> Any:
    """Return the predictions of a model for its example.

    Raises:
        ModelRefusedError: The model raises an error, or does not return one prediction for each row.
    """
    import numpy as np
    import pandas as pd

    try:
        answer = stored.answer(example)
    except Exception as error:  # models raise any error
        raise ModelRefusedError(
            f"The model cannot predict for the first of its inputs: {type(error).__name__}: {error}",
            "Pass a fitted model, and inputs like those that it was trained on.",
        ) from error
    if not isinstance(answer, np.ndarray | pd.DataFrame | pd.Series) or len(answer) != len(example):
        raise ModelRefusedError(
            f"{stored.method} of the model returns a {type(answer).__name__} of {len(answer)} for "
            f"{len(example)} inputs.",
            "It must return an array with a row for each of them.",
        )
    return answer


def _require_same(read: Any, answer: Any) -> None:
    """Make sure that a model predicts the same after it is loaded: a format may not store all of it."""
    import numpy as np

    loaded, expected = np.asarray(read), np.asarray(answer)
    same = loaded.shape == expected.shape and (
        np.allclose(loaded, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if expected.dtype.kind == "f"
        else bool((loaded == expected).all())
    )
    if not same:
        raise ModelRefusedError(
            f"The model predicts {loaded.tolist()} after it is loaded from its files, and "
            f"{expected.tolist()} before: their format does not store the whole model."
        )


def _require_served(read: StoredModel, example: "pd.DataFrame", signature: "ModelSignature") -> None:
    """Make sure that a model predicts for columns of the types of its signature, which a service sends.

    For example, a column of integers with the dtype object is an object in training and a number in requests.
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
    except Exception as error:  # models raise any error
        named = ", ".join(f"{name} as {dtype}" for name, dtype in types.items())
        raise ModelRefusedError(
            f"A service would send the model {named}, for which it cannot predict: {type(error).__name__}: "
            f"{error}.",
            "Train it on columns of these types, or convert categories that are numbers to text.",
        ) from error


def _require_described(signature: "ModelSignature") -> None:
    """Make sure that rows can be checked against a signature. MLflow itself only warns of missing types."""
    from mlflow.types.schema import AnyType

    for part, schema in (("inputs", signature.inputs), ("answer", signature.outputs)):
        if schema is None or any(isinstance(column.type, AnyType) for column in schema.inputs):
            raise ModelRefusedError(
                f"MLflow cannot infer a signature for the {part} of the model.",
                "Give each column values of one type: numbers, texts, booleans or timestamps.",
            )


def load(folder: Path) -> StoredModel:
    """Load a model without running code in its files.

    Example:
        ```python
        stored = model_files.load(Path("model"))
        stored.answer(pd.DataFrame({"temperature": [21.5]}))  # an array with one row for each input
        ```

    Raises:
        ModelRefusedError: Its flavour cannot be loaded like that, or it contains types that are not trusted.
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
        except Exception as error:  # Each library raises different errors for a damaged file.
            raise ModelRefusedError(
                f"{folder} cannot be loaded as {flavour.name}: {type(error).__name__}: {error}",
                "If its files are damaged, log the model again.",
            ) from error
    raise ModelRefusedError(
        f"{folder} has the flavours {', '.join(sorted(description.flavors)) or '(none)'}; pickled models are "
        "not loaded.",
        f"These are loaded, without running code: {', '.join(flavour.takes for flavour in FLAVOURS)}.",
    )


def recorded_method(description: "Model") -> str | None:
    """Return the method that is recorded in the files of a model; None if no method is recorded."""
    return description.flavors.get(PYFUNC, {}).get(METHOD_KEY)


def folder_sha256(folder: Path) -> str:
    """Return a hash over all files of a model and their paths, which any change or addition changes."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name != ADDED_BY_REGISTRY:
            digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
