"""Fixtures of the tests of flavours: rows, their outcomes, and the writer of a model's files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.mlflow_store import model_files
from tests.registry.flavours.estimators import ROWS, Save


@pytest.fixture
def save(mlflow_database: str, tmp_path: Path) -> Save:
    """Write the files of a model, as a training run does: `save(model, inputs, method=...)`."""
    from ledgerline.mlflow_store import store

    client = store.connect(mlflow_database)
    experiment = store.experiment_id(client, "flavours", str(tmp_path / "artifacts"))

    def write(model: Any, inputs: pd.DataFrame, *, method: str = "predict") -> Path:
        run_id = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, "small", run_id)
        folder = tmp_path / logged.model_id
        model_files.save(model, folder, inputs, logged, run_id, method=method)
        return folder

    return write


@pytest.fixture(scope="module")
def inputs() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({"amount": random.gamma(2, size=ROWS), "age": random.uniform(0, 8, ROWS)})


@pytest.fixture(scope="module")
def value(inputs: pd.DataFrame) -> "pd.Series[float]":
    return inputs["amount"] * 3 + inputs["age"]


@pytest.fixture(scope="module")
def label(value: "pd.Series[float]") -> "np.ndarray[Any, Any]":
    """Three classes."""
    return np.digitize(value, [6, 12])
