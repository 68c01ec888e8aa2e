"""Trains and registers the models to serve, on real flights, and checks the predictions of each version."""

import io
import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.context import BenchmarkError, Context
from benchmarks.serving.clients import OK, Response
from benchmarks.serving.servers import Registry, mlflow_registry

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

    from ledgerline.mlflow_store.stored_model import StoredModel

DAYS = [f"2013-02-{day:02}" for day in range(1, 15)]
LEARNED_SHARE = 0.8  # share of the flights that a version is trained on, different ones for each version
SINGLE_ROWS, MANY_ROWS = 64, 1000
MIN_DIFFERENCE = 1e-6  # between the probabilities of two versions, so that a response identifies its version
TOLERANCE = 1e-12  # between a response and the prediction of the same version in this process


@dataclass(frozen=True)
class Verdict:
    """The result of recomputing responses with the versions that their headers name.

    Attributes:
        checked: Number of responses that were recomputed.
        wrong: Number of responses that differ.
        largest: Largest difference of a probability.
        versions: Versions that responded.
    """

    checked: int
    wrong: int
    largest: float
    versions: frozenset[str]


@dataclass(frozen=True)
class Models:
    """A registered model.

    Attributes:
        registry: Registry that it is in.
        name: Its name there.
        models: Model of each version, loaded from the registry.
        single: Rows for requests with one row.
        many: Rows of a request with many rows.
    """

    registry: Registry
    name: str
    models: "dict[int, StoredModel]"
    single: "pd.DataFrame"
    many: "pd.DataFrame"

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of the versions."""
        return list(self.models)

    @property
    def bodies(self) -> list[str]:
        """Return a request body for each of the single rows."""
        return [body_of(self.single.iloc[[index]]) for index in range(len(self.single))]

    def set_alias(self, number: int, alias: str) -> None:
        """Set an alias to a version."""
        self.registry.client.set_registered_model_alias(self.name, alias, str(number))

    def verdict(self, responses: Sequence[Response], number: int | None = None) -> Verdict:
        """Recompute responses to single rows; `number` is the version of responses without a header."""
        predictions = {version: model.answer(self.single) for version, model in self.models.items()}
        checked, wrong, largest, versions = 0, 0, 0.0, set()
        for response in responses:
            if response.status != OK:
                continue
            version = int(response.version) if response.version else number
            assert version is not None
            difference = _difference(predictions[version][[response.index]], response.body)
            checked += response.count
            wrong += response.count if difference > TOLERANCE else 0
            largest = max(largest, difference)
            versions.add(str(version))
        return Verdict(checked, wrong, largest, frozenset(versions))

    def require_prediction(self, number: int, body: str) -> None:
        """Raise BenchmarkError if a response to the many rows is not this version's prediction."""
        difference = _difference(self.models[number].answer(self.many), body)
        if difference > TOLERANCE:
            raise BenchmarkError(f"A response to {len(self.many)} rows is wrong by {difference:g}.")


def versions_in_turns() -> int:
    """Return how many versions must alternate so that each is loaded from the registry again."""
    from ledgerline.serving.cache import KEPT_VERSIONS

    return KEPT_VERSIONS + 1


@contextmanager
def registered(context: Context) -> Iterator[Models]:
    """Start a registry, and train and register versions whose predictions differ."""
    from assets.delay_model import MODEL_NAME, TrainingConfig, model_input, train, with_outcome
    from ledgerline.ledger.ids import RUN_ID_TAG
    from ledgerline.registry.registry import Registry
    from ledgerline.registry.stages import PRODUCTION

    context.report("Starting an MLflow server and training models …")
    folder = context.folder / "shared"
    with mlflow_registry(folder / "registry") as registry:
        client = registry.client
        flights = with_outcome(_feature_rows(folder))
        inputs = model_input(flights)
        model = Registry(client).model(MODEL_NAME)
        models: dict[int, StoredModel] = {}
        for seed in range(versions_in_turns()):
            learned = flights.sample(frac=LEARNED_SHARE, random_state=seed)
            logged = _logged(client, train(learned, TrainingConfig(seed=seed)), inputs)
            version = model.register(logged, {RUN_ID_TAG: str(uuid.uuid4())})
            models[version.number] = model.load(version)
        candidates = inputs.drop_duplicates()
        late = np.sort(np.stack([model.answer(candidates)[:, 1] for model in models.values()]), axis=0)
        different = candidates[np.diff(late, axis=0).min(axis=0) > MIN_DIFFERENCE]
        if len(different) < SINGLE_ROWS or len(inputs) < MANY_ROWS:
            raise BenchmarkError("The versions predict the same; a response does not tell its version.")
        client.set_registered_model_alias(MODEL_NAME, PRODUCTION, str(next(iter(models))))
        single, many = (
            different.sample(SINGLE_ROWS, random_state=0),
            inputs.sample(MANY_ROWS, random_state=0),
        )
        yield Models(registry, MODEL_NAME, models, single, many)


def body_of(rows: "pd.DataFrame") -> str:
    """Return rows in MLflow's scoring protocol, with null for missing values."""
    values = rows.astype(object).where(rows.notna(), None)
    return json.dumps({"dataframe_split": {"columns": list(rows.columns), "data": values.values.tolist()}})


def _feature_rows(folder: Path) -> "pd.DataFrame":
    """Return the features of real flights, computed by the project's assets."""
    import dagster as dg

    from assets import features, flights, reference
    from benchmarks.observer.jobs import QUIET
    from ledgerline.dagster.storage.io_managers import TableStorage, open_tables

    storage = TableStorage(base=str(folder / "tables"))
    assets = [reference.planes, reference.weather, flights.flights, features.features]
    days = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    for selection, tags in ((assets[:2], {}), (assets[2:], days)):
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            done = dg.materialize(
                assets, selection=selection, resources={"tables": storage}, tags=tags, run_config=QUIET
            )
        if not done.success:
            raise BenchmarkError(f"Flights cannot be read: {output.getvalue()[-3000:]}")
    return open_tables(storage.base).read(dg.AssetKey("features"), DAYS, features.FEATURES_SCHEMA)


def _logged(client: "MlflowClient", pipeline: Any, inputs: "pd.DataFrame") -> str:
    """Log a model as a training run does; return its id."""
    from ledgerline.mlflow_store import model_files, store

    experiment = store.experiment_id(client, "models to serve", None)
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, "served", run_id)
    with tempfile.TemporaryDirectory() as parent:
        files = Path(parent, "model")
        model_files.save(pipeline, files, inputs, logged, run_id, method="predict_proba")
        client.log_model_artifacts(logged.model_id, str(files))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id


def _difference(expected: NDArray[np.float64], body: str) -> float:
    predictions = np.array(json.loads(body)["predictions"], dtype="float64")
    if predictions.shape != expected.shape or not np.isfinite(predictions).all():
        return float("inf")
    return float(np.abs(predictions - expected).max())
