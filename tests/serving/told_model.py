"""The code of a model that does what its rows tell it to; MLflow runs this file when it loads the model.

What can be told, in the column `what`: `fail`, `unsayable`, `wait for FILE`; anything else is answered. What
is only for versions of a role has the role before it: `stubborn: fail`.
"""

import time
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

WAITING_SECONDS = 300
WAIT = "wait for "


class ToldModel(PythonModel):
    """Answers twice the `value` of each row."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        for told in model_input["what"]:
            what = told.removeprefix(f"{context.model_config['role']}: ")
            if what == "fail":
                raise RuntimeError(f"{__file__} was told to fail")
            if what == "unsayable":
                return [object() for _ in range(len(model_input))]
            if what.startswith(WAIT):
                _wait_for(Path(what.removeprefix(WAIT)))
        return (2 * model_input["value"]).to_numpy()


def _wait_for(file: Path) -> None:
    """Create a file beside the one to wait for, which shows that it waits."""
    file.with_suffix(".waiting").touch()
    deadline = time.monotonic() + WAITING_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


set_model(ToldModel())
