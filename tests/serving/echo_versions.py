"""Registers a model that returns its input. The model: echo_model.py."""

import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledgerline.registry.versions import RegisteredModel, Version
from tests.serving.conftest import ServedModels

CODE = Path(__file__).with_name("echo_model.py")

# A value of each type of MLflow's columns, as JSON has it.
VALUES: dict[str, Any] = {
    "double": 0.5,
    "float": 0.25,
    "long": 3,
    "integer": 4,
    "boolean": True,
    "string": "a",
    "binary": "AP8=",
    "datetime": "2013-05-01T12:00:00",
}
# The columns that may be missing have this before the name of their type.
MAYBE = "maybe_"


def save(folder: Path, types: Sequence[str], optional: Sequence[str] | None = None) -> None:
    """Save a model with columns that are named like their types, and columns that may be missing.

    Args:
        folder: Where.
        types: The types of required columns.
        optional: The types of columns that may be missing; None: the same.
    """
    import base64

    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    def examples(names: list[str]) -> pd.DataFrame:
        values = {name: VALUES[name.removeprefix(MAYBE)] for name in names}
        rows = {
            name: base64.b64decode(value) if name.endswith("binary") else value
            for name, value in values.items()
        }
        frame = pd.DataFrame([rows])
        return frame.astype(
            {
                name: {"float": "float32", "integer": "int32", "datetime": "datetime64[ns]"}[kind]
                for name in names
                if (kind := name.removeprefix(MAYBE)) in ("float", "integer", "datetime")
            }
        )

    takes: list[ColSpec | TensorSpec] = [ColSpec(DataType[name], name) for name in types]
    optional = types if optional is None else optional
    takes += [ColSpec(DataType[name], MAYBE + name, required=False) for name in optional]
    pyfunc.save_model(
        str(folder),
        python_model=str(CODE),
        signature=ModelSignature(Schema(takes), Schema([ColSpec(DataType.string)])),
        input_example=examples([*types, *(MAYBE + name for name in optional)]),
        pip_requirements=["pandas"],
    )


def echo_version(
    models: ServedModels, name: str, types: Sequence[str], optional: Sequence[str] | None = None
) -> Version:
    """Register a version of the model; only a service that may load code can load it."""
    from ledgerline.mlflow_store import store

    client = models.client
    artifacts = str(models.folder / name) if models.folder else None
    experiment = store.experiment_id(client, f"{name} {uuid.uuid4()}", artifacts)
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, name, run_id)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "model")
        save(folder, types, optional)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return RegisteredModel(client, name).register(logged.model_id, {})
