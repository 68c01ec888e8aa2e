"""A small real model in a separate registry, and the real service that predicts with it, on loopback."""

import os
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ledgerline.registry.versions import RegisteredModel, Version
from ledgerline.serving.settings import ServingSettings

if TYPE_CHECKING:
    import pandas as pd
    import requests
    from mlflow import MlflowClient

    from ledgerline.serving.service import Service

HOST = "127.0.0.1"
STOP_SECONDS = 20
UNPICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"

MODEL = "flight_delay"
TEXTS = ("carrier", "origin")  # with gaps: optional
NUMBERS = ("temp", "wind_speed", "distance")  # doubles; the first two have gaps and are optional
# And `hour`, a long, and `holiday`, a boolean: both required, as `distance` is.


def flight_rows(count: int = 200, seed: int = 0) -> "pd.DataFrame":
    """Made-up flights, with gaps, as the model takes them: columns of every JSON type."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "carrier": random.choice(["AA", "B6", "UA"], count),
            "origin": random.choice(["EWR", "JFK", "LGA"], count),
            "temp": random.normal(55, 18, count),
            "wind_speed": random.gamma(4, 2.5, count),
            "distance": random.uniform(90, 5000, count),
            "hour": random.integers(5, 24, count),
            "holiday": random.random(count) < 0.1,
        }
    )
    rows = rows.astype(dict.fromkeys(TEXTS, "object"))
    for position, column in enumerate((*TEXTS, "temp", "wind_speed")):
        # Some are among the first rows, which become the model's example.
        rows.loc[(rows.index % 7 == 0) & (rows.index % 4 == position % 4), column] = float("nan")
    return rows


def flight_model(seed: int = 0) -> Any:
    """A fitted pipeline like the one that the training asset makes; another one for each seed."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    categories = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=float("nan"), encoded_missing_value=float("nan")
    )
    encode = ColumnTransformer(
        [("texts", categories, list(TEXTS)), ("numbers", "passthrough", [*NUMBERS, "hour", "holiday"])]
    )
    trees = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5, random_state=seed)
    rows = flight_rows(seed=seed)
    risk = rows["wind_speed"].fillna(5) / 10 - rows["temp"].fillna(30) / 60 + rows["hour"] / 20
    late = risk + (rows["carrier"] == "UA") > risk.median() + np.random.default_rng(seed).normal(0, 0.5, 200)
    return Pipeline([("encode", encode), ("trees", trees)]).fit(rows, late)


@cache
def _trained(seed: int) -> Any:
    return flight_model(seed)


@dataclass
class ServedModels:
    """Registers models in one MLflow.

    Attributes:
        uri: Where MLflow is.
        folder: For files; None: the server decides.
    """

    uri: str
    folder: Path | None
    client: "MlflowClient" = field(init=False)
    _experiment: str = field(init=False)

    def __post_init__(self) -> None:
        from ledgerline.mlflow_store import store

        self.client = store.connect(self.uri)
        artifacts = str(self.folder / "artifacts") if self.folder else None
        self._experiment = store.experiment_id(self.client, f"serving {uuid.uuid4()}", artifacts)

    def version(
        self,
        name: str = MODEL,
        *,
        seed: int = 0,
        model: Any = None,
        inputs: "pd.DataFrame | None" = None,
        method: str = "predict_proba",
    ) -> Version:
        """Register another version of a model, without an alias."""
        from ledgerline.mlflow_store import model_files

        run_id = self.client.create_run(self._experiment).info.run_id
        logged = self.client.create_logged_model(self._experiment, "small", run_id)
        with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
            # MLflow warns that whole numbers cannot have gaps; here they have none.
            warnings.filterwarnings("ignore", "(?s).*integer column", UserWarning)
            folder = Path(parent, "model")
            rows = flight_rows() if inputs is None else inputs
            model_files.save(model or _trained(seed), folder, rows, logged, run_id, method=method)
            self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        return RegisteredModel(self.client, name).register(logged.model_id, {})

    def serve(self, version: Version, alias: str = "production") -> None:
        """Set the alias to a version."""
        RegisteredModel(self.client, version.name).set_alias(alias, version.number)


@dataclass(frozen=True)
class Running:
    """A service that listens on loopback.

    Attributes:
        service: Its parts.
        port: Where it listens.
    """

    service: "Service"
    port: int

    @property
    def url(self) -> str:
        """The URL of the service."""
        return f"http://{HOST}:{self.port}"


Serve = Callable[..., AbstractContextManager[Running]]


def serving_settings(folder: Path, tracking_uri: str, **variables: str) -> ServingSettings:
    """Settings of a service that keeps its files in a folder; the environment is not read."""
    return ServingSettings.from_environment(
        {
            "LEDGERLINE_HOME": str(folder),
            "MLFLOW_TRACKING_URI": tracking_uri,
            "LEDGERLINE_SERVING_MODELS": MODEL,
            "LEDGERLINE_SERVING_POLL_SECONDS": "0.1",
            "OTEL_SDK_DISABLED": "true",
        }
        | variables
    )


@contextmanager
def running(settings: ServingSettings) -> Iterator[Running]:
    """The real service, in threads of this process, for as long as the body runs."""
    import uvicorn

    from ledgerline.serving.app import application
    from ledgerline.serving.server import bound
    from ledgerline.serving.service import service_for

    with pytest.MonkeyPatch.context() as environment:
        # A service that may unpickle sets a variable of MLflow for the rest of its process.
        environment.setenv(UNPICKLE, os.environ.get(UNPICKLE, "false"))
        service = service_for(settings)
        # The socket listens already: requests before the start of the server are answered after it.
        with bound(HOST, 0) as listener, service.running():
            port = listener.getsockname()[1]
            server = uvicorn.Server(
                uvicorn.Config(
                    application(service), ws="none", lifespan="off", log_config=None, access_log=False,
                    server_header=False,
                )
            )  # fmt: skip
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
            thread.start()
            try:
                yield Running(service, port)
            finally:
                server.should_exit = True
                thread.join(STOP_SECONDS)
            assert not thread.is_alive(), "The server did not end."


@pytest.fixture
def served_models(mlflow_database: str, tmp_path: Path) -> ServedModels:
    """A registry of this test's own, without models yet."""
    return ServedModels(mlflow_database, tmp_path)


@pytest.fixture
def serve(mlflow_database: str, tmp_path: Path) -> Serve:
    """Runs the service on the registry of this test: `with serve(LEDGERLINE_...="...") as started`."""

    def start(**variables: str) -> AbstractContextManager[Running]:
        return running(serving_settings(tmp_path / "home", mlflow_database, **variables))

    return start


@pytest.fixture(scope="session")
def shared_service(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with one version of one model, for tests that only send requests. They share it."""
    import shutil

    folder = tmp_path_factory.mktemp("standing-service")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    models = ServedModels(uri, folder)
    models.serve(models.version())
    with running(serving_settings(folder / "home", uri)) as started:
        yield started


@pytest.fixture(scope="session")
def http() -> Iterator["requests.Session"]:
    """Keeps its connections."""
    import requests

    with requests.Session() as session:
        yield session


@pytest.fixture(scope="session")
def scripted_models(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedModels:
    """A registry with a model that follows instructions in its rows."""
    import shutil

    from tests.serving.scripted_versions import scripted_version

    folder = tmp_path_factory.mktemp("scripted-models")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    models = ServedModels(f"sqlite:///{folder}/mlflow.db", folder)
    models.serve(scripted_version(models))
    return models
