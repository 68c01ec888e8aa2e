"""The files of a small real model, and a way to log it; registries with tiny ones, on each kind of store."""

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ledgerline.testing.registry_stock import Stock
from tests.registry.racers import Racers

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


@pytest.fixture(scope="session")
def saved_model(
    mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory, model: Any, inputs: "pd.DataFrame"
) -> Path:
    """The files of the model. Read only: copy them to change them."""
    from ledgerline.mlflow_store import model_files, store

    folder = tmp_path_factory.mktemp("saved-model")
    client = store.connect(f"sqlite:///{mlflow_template}")
    experiment = store.experiment_id(client, "files", str(folder))
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, "small", run_id)
    model_files.save(model, folder / "model", inputs, logged, run_id, method="predict_proba")
    return folder / "model"


@pytest.fixture
def log_model(
    client: "MlflowClient",
    artifacts: str | None,
    request: pytest.FixtureRequest,
    model: Any,
    inputs: "pd.DataFrame",
) -> "Callable[[], LoggedModel]":
    """Log the model, each time as another one, in an experiment of this test's own."""
    from ledgerline.mlflow_store import model_files, store

    experiment = store.experiment_id(client, request.node.name, artifacts)

    def log() -> "LoggedModel":
        run_id = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, "small", run_id)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "model")
            model_files.save(model, folder, inputs, logged, run_id, method="predict_proba")
            client.log_model_artifacts(logged.model_id, str(folder))
        return client.finalize_logged_model(logged.model_id, "READY")

    return log


@pytest.fixture
def stock(mlflow_database: str, tmp_path: Path) -> Stock:
    """A registry on a database of this test's own."""
    return Stock(mlflow_database, tmp_path / "artifacts")


@pytest.fixture(params=["database", "server", "postgresql"])
def any_stock(request: pytest.FixtureRequest, tmp_path: Path) -> Stock:
    """A registry on each kind of store."""
    uri = request.getfixturevalue(f"mlflow_{request.param}")
    return Stock(uri, None if uri.startswith("http") else tmp_path / "artifacts")


@pytest.fixture
def model_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return f"{request.node.originalname[:60]} {uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def racers() -> Iterator[Racers]:
    """Processes that do something at the same moment."""
    with Racers() as started:
        yield started
