"""The code of a model that returns its input. MLflow runs this file to load the model."""

import json
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class EchoModel(PythonModel):
    """Answers each row with a JSON text of its values by column; what is missing is left out."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        columns = {str(name): list(model_input[name]) for name in sorted(model_input, key=str)}
        rows = [
            {name: _row(name, values[row]) for name, values in columns.items()}
            for row in range(len(model_input))
        ]
        return [json.dumps({name: value for name, value in row.items() if value is not None}) for row in rows]


def _row(name: str, value: Any) -> Any:
    """A value as JSON has it; each kind of value in another way."""
    if isinstance(value, bytes):
        return f"bytes {value.hex()}"
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return f"moment {value.isoformat()}"
    value = value.item() if hasattr(value, "item") else value
    if name.endswith(("long", "integer")) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float) else f"{type(value).__name__} {value!r}"


set_model(EchoModel())
