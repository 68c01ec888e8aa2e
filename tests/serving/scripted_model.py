"""The code of a model that follows the instructions in its rows. MLflow runs this file to load the model.

The column `what` has the instruction: `fail`, `unsayable` or `wait for FILE`; any other text is a normal row.
A prefix limits an instruction to the versions of a role: `stubborn: fail`.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from ledgerline.testing.waiting import wait_until

WAITING_SECONDS = 300
WAIT = "wait for "


class ScriptedModel(PythonModel):
    """Answers twice the `value` of each row."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        for instruction in model_input["what"]:
            what = instruction.removeprefix(f"{context.model_config['role']}: ")
            if what == "fail":
                raise RuntimeError(f"{__file__} fails as instructed")
            if what == "unsayable":
                return [object() for _ in range(len(model_input))]
            if what.startswith(WAIT):
                _wait_for(Path(what.removeprefix(WAIT)))
        return (2 * model_input["value"]).to_numpy()


def _wait_for(file: Path) -> None:
    """Create a file beside the one to wait for, which shows that it waits."""
    file.with_suffix(".waiting").touch()
    wait_until(file.exists, f"{file} exists", WAITING_SECONDS)


set_model(ScriptedModel())
