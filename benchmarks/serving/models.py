"""Trains and registers the models to serve, on real flights, and checks the predictions of each version."""

import base64
import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from numpy.typing import NDArray

from assets import features, flights, reference
from assets.delay_model import MODEL_NAME, TrainingConfig, model_input, train, with_outcome
from benchmarks.context import BenchmarkError, Context
from benchmarks.observer.jobs import QUIET
from benchmarks.processes import mlflow_server
from benchmarks.serving.load import OK, Response
from ledgerline.dagster.storage.io_managers import TableStorage, open_tables
from ledgerline.dagster.tracking import TrainingRun
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.mlflow_store import store
from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.registry import Registry
from ledgerline.registry.stages import PRODUCTION
from ledgerline.serving.cache import KEPT_VERSIONS

WEBHOOKS_KNOWN_SECONDS = 1  # time after which a running MLflow uses a new webhook
VERSIONS = KEPT_VERSIONS + 1  # If all of them alternate, each is loaded from the registry again.
DAYS = [f"2013-02-{day:02}" for day in range(1, 15)]
LEARNED_SHARE = 0.8  # share of the flights that a version is trained on, different ones for each version
SINGLE_ROWS, MANY_ROWS = 64, 1000
MIN_DIFFERENCE = 1e-6  # between the probabilities of two versions, so that a response identifies its version
TOLERANCE = 1e-12  # between a response and the prediction of the same version in this process


@dataclass(frozen=True)
class Verdict:
    """The result of recomputing responses; `largest` is the largest difference of a probability."""

    checked: int
    wrong: int
    largest: float
    versions: frozenset[int]


@dataclass(frozen=True)
class Models:
    """A registered model on an MLflow server.

    Attributes:
        secret: Secret that signs the server's webhooks.
        models: Model of each version, loaded from the registry.
        single: Rows for requests with one row.
        many: Rows of a request with many rows.
    """

    url: str
    client: MlflowClient
    secret: str
    models: Mapping[int, StoredModel]
    single: pd.DataFrame
    many: pd.DataFrame

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of the versions."""
        return list(self.models)

    @property
    def bodies(self) -> list[str]:
        """Return a request body for each of the single rows."""
        return [body_of(self.single.iloc[[index]]) for index in range(len(self.single))]

    def set_alias(self, number: int, alias: str = PRODUCTION) -> None:
        """Set an alias to a version."""
        self.client.set_registered_model_alias(MODEL_NAME, alias, str(number))

    def verdict(self, responses: Mapping[Response, int], number: int | None = None) -> Verdict:
        """Recompute responses to single rows; `number` is the version of responses without a header."""
        predictions = {version: model.answer(self.single) for version, model in self.models.items()}
        checked, wrong, largest, versions = 0, 0, 0.0, set()
        for response, count in responses.items():
            if response.status != OK:
                continue
            version = int(response.version) if response.version else number
            assert version is not None
            difference = _difference(predictions[version][[response.index]], response.body)
            checked += count
            wrong += count if difference > TOLERANCE else 0
            largest = max(largest, difference)
            versions.add(version)
        return Verdict(checked, wrong, largest, frozenset(versions))

    def require_prediction(self, number: int, body: str) -> None:
        """Raise BenchmarkError if a response to the many rows is not this version's prediction."""
        difference = _difference(self.models[number].answer(self.many), body)
        if difference > TOLERANCE:
            raise BenchmarkError(f"A response to {len(self.many)} rows is wrong by {difference:g}.")


@contextmanager
def registered(context: Context) -> Iterator[Models]:
    """Start a registry that can send webhooks, and train and register versions whose predictions differ."""
    context.report("Starting an MLflow server and training models …")
    folder = context.folder / "shared"
    webhooks = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": str(WEBHOOKS_KNOWN_SECONDS),
    }
    with mlflow_server(folder / "registry", webhooks) as (url, _):
        client = store.connect(url)
        labelled = with_outcome(_feature_rows(folder))
        inputs = model_input(labelled)
        model, experiment = Registry(client).model(MODEL_NAME), store.experiment_id(client, MODEL_NAME, None)
        models: dict[int, StoredModel] = {}
        for seed in range(VERSIONS):
            learned = labelled.sample(frac=LEARNED_SHARE, random_state=seed)
            run = TrainingRun(client, experiment, client.create_run(experiment).info.run_id)
            pipeline = train(learned, TrainingConfig(seed=seed))
            logged = run.log_model(pipeline, "served", inputs, method="predict_proba")
            version = model.register(logged, {RUN_ID_TAG: str(uuid.uuid4())})
            models[version.number] = model.load(version)
        candidates = inputs.drop_duplicates()
        late = np.sort(np.stack([model.answer(candidates)[:, 1] for model in models.values()]), axis=0)
        different = candidates[np.diff(late, axis=0).min(axis=0) > MIN_DIFFERENCE]
        if len(different) < SINGLE_ROWS or len(inputs) < MANY_ROWS:
            raise BenchmarkError("The versions predict the same; a response does not tell its version.")
        single = different.sample(SINGLE_ROWS, random_state=0)
        many = inputs.sample(MANY_ROWS, random_state=0)
        made = Models(url, client, secrets.token_hex(), models, single, many)
        made.set_alias(made.numbers[0])
        yield made


def body_of(rows: pd.DataFrame) -> str:
    """Return rows in MLflow's scoring protocol, with null for missing values."""
    values = rows.astype(object).where(rows.notna(), None)
    return json.dumps({"dataframe_split": {"columns": list(rows.columns), "data": values.values.tolist()}})


def _feature_rows(folder: Path) -> pd.DataFrame:
    """Return the features of real flights, computed by the project's assets."""
    storage = TableStorage(base=str(folder / "tables"))
    assets = [reference.planes, reference.weather, flights.flights, features.features]
    days = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    for selection, tags in ((assets[:2], {}), (assets[2:], days)):
        resources = {"tables": storage}
        dg.materialize(assets, selection=selection, resources=resources, tags=tags, run_config=QUIET)
    return open_tables(storage.base).read(dg.AssetKey("features"), DAYS, features.FEATURES_SCHEMA)


def _difference(expected: NDArray[np.float64], body: str) -> float:
    predictions = np.array(json.loads(body)["predictions"], dtype="float64")
    if predictions.shape != expected.shape or not np.isfinite(predictions).all():
        return float("inf")
    return float(np.abs(predictions - expected).max())
