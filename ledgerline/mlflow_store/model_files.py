"""The files of a scikit-learn model: written, hashed, and read without running what they say."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel

# What a model may consist of, beyond what skops trusts by itself. A file that needs another type is
# refused, whatever it says of itself.
TRUSTED_TYPES = frozenset(
    {
        # How the boosted trees check numeric columns. skops asks for the function inside a partial
        # too, so this accepts no other one.
        "functools.partial",
        "sklearn.utils.validation.check_array",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    }
)

# The registry adds this file when it hands out a version; it is not part of the model.
ADDED_BY_REGISTRY = "registered_model_meta"

EXAMPLE_ROWS = 5

REQUIREMENTS = ("numpy", "pandas", "scikit-learn", "skops")


class ModelRefusedError(Exception):
    """The files of a model are not what was registered, or need a type that is not trusted."""


def save_sklearn(
    model: Any, folder: Path, inputs: "pd.DataFrame", logged: "LoggedModel", run_id: str
) -> None:
    """Write a pipeline as an MLflow model whose pyfunc answer is `predict_proba`.

    Args:
        model: A fitted scikit-learn pipeline.
        folder: Where to write; must not exist.
        inputs: Rows from which the signature is inferred; the first ones become the example.
        logged: The MLflow entity that the files belong to.
        run_id: The training run.

    Raises:
        ModelRefusedError: The pipeline holds a type that loading would not accept.
    """
    import skops.io
    from mlflow import sklearn
    from mlflow.models import Model, infer_signature

    _require_trusted(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    example = inputs.head(EXAMPLE_ROWS)
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=run_id,
    )
    sklearn.save_model(
        model,
        str(folder),
        mlflow_model=description,
        serialization_format="skops",
        skops_trusted_types=sorted(TRUSTED_TYPES),
        pyfunc_predict_fn="predict_proba",
        signature=infer_signature(_with_gaps(inputs, example), model.predict_proba(example)),
        input_example=example,
        pip_requirements=[f"{library}=={version(library)}" for library in REQUIREMENTS],
    )


def _with_gaps(inputs: "pd.DataFrame", example: "pd.DataFrame") -> "pd.DataFrame":
    """The example and, for each column that has gaps, a row with one: it becomes optional."""
    import pandas as pd

    gaps = inputs.isna()
    first_gaps = gaps.idxmax()[gaps.any()].unique()
    return pd.concat([example, inputs.loc[first_gaps]])


def load_sklearn(folder: Path) -> Any:
    """Read a pipeline that `save_sklearn` wrote; nothing in the files is executed.

    Raises:
        ModelRefusedError: It is not in skops format, or holds a type that is not trusted.
    """
    import skops.io
    from mlflow.models import Model

    flavor = Model.load(str(folder)).flavors.get("sklearn", {})
    if flavor.get("serialization_format") != "skops":
        raise ModelRefusedError(
            f"{folder} is not a scikit-learn model in skops format; pickled models are not loaded."
        )
    file = folder / flavor["pickled_model"]  # MLflow's name for the model file, pickled or not
    _require_trusted(skops.io.get_untrusted_types(file=file))
    return skops.io.load(file, trusted=sorted(TRUSTED_TYPES))


def folder_sha256(folder: Path) -> str:
    """Hash every file of a model with its path, so that nothing can be changed or added."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name != ADDED_BY_REGISTRY:
            digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _require_trusted(types: "list[str]") -> None:
    strange = sorted(set(types) - TRUSTED_TYPES)
    if strange:
        raise ModelRefusedError(
            f"The model holds types that are not trusted: {', '.join(strange)}. "
            "If it is yours, add them to TRUSTED_TYPES in mlflow_store/model_files.py."
        )
