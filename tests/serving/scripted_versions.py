"""Registers versions of a model that follows instructions in its rows. The model: scripted_model.py."""

import tempfile
import uuid
from pathlib import Path
from typing import Any

from ledgerline.registry.versions import RegisteredModel, Version
from tests.serving.conftest import ServedModels

SCRIPTED = "scripted"
CODE = Path(__file__).with_name("scripted_model.py")


def scripted_version(models: ServedModels, role: str = "any") -> Version:
    """Register a version that is not active. Only a service that allows code can load it."""
    return _registered(models, str(CODE), {"role": role})


def _registered(models: ServedModels, model: Any, config: dict[str, Any] | None = None) -> Version:
    import numpy as np
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from ledgerline.mlflow_store import store

    client = models.client
    artifacts = str(models.folder / "scripted") if models.folder else None
    experiment = store.experiment_id(client, f"scripted {uuid.uuid4()}", artifacts)
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, SCRIPTED, run_id)
    takes = Schema([ColSpec(DataType.string, "what"), ColSpec(DataType.double, "value")])
    gives = Schema([TensorSpec(np.dtype("float64"), (-1,))])
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "model")
        pyfunc.save_model(
            str(folder),
            python_model=model,
            model_config=config,
            signature=ModelSignature(takes, gives),
            input_example=pd.DataFrame({"what": ["answer"], "value": [1.0]}),
            pip_requirements=["pandas"],
        )
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return RegisteredModel(client, SCRIPTED).register(logged.model_id, {})


def pickled_version(models: ServedModels) -> Version:
    """Register a version that has no role, and whose model is a pickled object."""
    import pandas as pd
    from mlflow.pyfunc.model import PythonModel

    # Here, so that its code is in the pickle, too.
    class Tripling(PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return (3 * model_input["value"]).to_numpy()

    return _registered(models, Tripling())


def row_with(what: str = "answer", value: float = 1.0) -> dict[str, object]:
    """A request of one row, as JSON."""
    return {"dataframe_split": {"columns": ["what", "value"], "data": [[what, value]]}}


SCRIPTED_SERVING = {"LEDGERLINE_SERVING_MODELS": SCRIPTED, "LEDGERLINE_SERVING_UNPICKLE": SCRIPTED}
