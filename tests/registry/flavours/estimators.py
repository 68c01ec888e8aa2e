"""Small estimators, boosters and graphs, and readers of the files in which they are stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

Save = Callable[..., Path]

ROWS = 120


def lightgbm_estimator(name: str, **options: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, name)(n_estimators=3, min_child_samples=5, verbose=-1, **options)


def lightgbm_booster(inputs: pd.DataFrame, outcome: Any, **options: Any) -> Any:
    import lightgbm

    parameters = {"min_data_in_leaf": 5, "verbose": -1, **options}
    return lightgbm.train(parameters, lightgbm.Dataset(inputs, outcome), num_boost_round=3)


def xgboost_estimator(name: str, **options: Any) -> Any:
    import xgboost

    return getattr(xgboost, name)(n_estimators=3, **options)


def xgboost_booster(inputs: pd.DataFrame, outcome: Any, **options: Any) -> Any:
    import xgboost

    return xgboost.train(options, xgboost.DMatrix(inputs, outcome), num_boost_round=3)


def onnx_graph(model: Any, inputs: pd.DataFrame, **options: Any) -> Any:
    """A graph with one matrix as input."""
    from skl2onnx import to_onnx

    return to_onnx(model, inputs.head(1).to_numpy("float32"), **options)


def described(folder: Path) -> dict[str, Any]:
    """Return the description in the files."""
    return yaml.safe_load((folder / "MLmodel").read_text())


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def require_no_pickle(folder: Path) -> None:
    assert not [name for name in names(folder) if name.endswith((".pkl", ".pickle", ".joblib"))]
    assert "loader_module: mlflow.pyfunc" not in (folder / "MLmodel").read_text()
