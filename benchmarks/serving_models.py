"""Models to be served: pipelines that learned from real flights, and what each version must answer."""

import io
import json
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import BenchmarkError
from benchmarks.serving_clients import OK, Answer

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from sklearn.pipeline import Pipeline

    from ledgerline.mlflow_store.stored_model import StoredModel

DAYS = [f"2013-02-{day:02}" for day in range(1, 15)]
LEARNED_SHARE = 0.8  # of the flights, others for each version
SINGLE_ROWS, MANY_ROWS = 64, 1000
# Two versions must differ by more in what they say of a row, for an answer to tell which of them it is from.
MIN_DIFFERENCE = 1e-6
# An answer may differ by so much from what the same version says here.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Verdict:
    """Whether answers are those of the versions that their headers name.

    Attributes:
        checked: How many were looked at.
        wrong: How many are not.
        largest: The largest difference of a probability.
        versions: Which versions answered.
    """

    checked: int
    wrong: int
    largest: float
    versions: frozenset[str]


@dataclass(frozen=True)
class Models:
    """A registered model.

    Attributes:
        client: Of the registry.
        name: What it is called there.
        models: Of each version, loaded from the registry.
        single: Rows that are asked about one by one.
        many: Rows that are asked about together.
    """

    client: "MlflowClient"
    name: str
    models: "dict[int, StoredModel]"
    single: "pd.DataFrame"
    many: "pd.DataFrame"

    @property
    def numbers(self) -> list[int]:
        """The versions."""
        return list(self.models)

    @property
    def bodies(self) -> list[str]:
        """A request for each of the single rows."""
        return [body_of(self.single.iloc[[index]]) for index in range(len(self.single))]

    def let_answer(self, number: int, alias: str) -> None:
        """Move an alias."""
        self.client.set_registered_model_alias(self.name, alias, str(number))

    def evaluated(self, answers: Sequence[Answer], number: int | None = None) -> Verdict:
        """Recompute answers about single rows.

        Args:
            answers: What came; errors are passed over.
            number: The version that answers where there is no header.
        """
        said = {version: model.answer(self.single) for version, model in self.models.items()}
        checked, wrong, largest, versions = 0, 0, 0.0, set()
        for answer in answers:
            if answer.status != OK:
                continue
            version = int(answer.version) if answer.version else number
            assert version is not None
            differs = _difference(said[version][[answer.index]], answer.body)
            checked += answer.count
            wrong += answer.count if differs > TOLERANCE else 0
            largest = max(largest, differs)
            versions.add(str(version))
        return Verdict(checked, wrong, largest, frozenset(versions))

    def require_same(self, number: int, body: str) -> None:
        """Make sure that an answer about all rows is this version's.

        Raises:
            BenchmarkError: It is not.
        """
        differs = _difference(self.models[number].answer(self.many), body)
        if differs > TOLERANCE:
            raise BenchmarkError(f"An answer about {len(self.many)} rows is wrong by {differs:g}.")


def registered(client: "MlflowClient", folder: Path, count: int) -> Models:
    """Train and register so many versions.

    Raises:
        BenchmarkError: They cannot be told apart by what they say.
    """
    from assets.delay_model import MODEL_NAME, TrainingConfig, model_input, train, with_outcome
    from ledgerline.registry import versions
    from ledgerline.registry.stages import PRODUCTION

    flights = with_outcome(feature_rows(folder))
    inputs = model_input(flights)
    models = {}
    for seed in range(count):
        learned = flights.sample(frac=LEARNED_SHARE, random_state=seed)
        pipeline = train(learned, TrainingConfig(seed=seed))
        version = versions.register(client, MODEL_NAME, _logged(client, pipeline, inputs), _tags())
        models[version.number] = versions.load(client, version)
    candidates = inputs.drop_duplicates()
    told_apart = candidates[_told_apart([model.answer(candidates) for model in models.values()])]
    if len(told_apart) < SINGLE_ROWS or len(inputs) < MANY_ROWS:
        raise BenchmarkError("The versions say the same; their answers do not tell which of them it was.")
    single = told_apart.sample(SINGLE_ROWS, random_state=0)
    client.set_registered_model_alias(MODEL_NAME, PRODUCTION, str(next(iter(models))))
    return Models(client, MODEL_NAME, models, single, inputs.sample(MANY_ROWS, random_state=0))


def feature_rows(folder: Path) -> "pd.DataFrame":
    """The features of real flights of some days, made by the project's own assets."""
    import dagster as dg

    from assets import features, flights, reference
    from ledgerline.dagster.storage.io_managers import TableStorage, open_tables

    storage = TableStorage(base=str(folder / "tables"))
    known = [reference.planes, reference.weather, flights.flights, features.features]
    days = {
        "dagster/asset_partition_range_start": DAYS[0],
        "dagster/asset_partition_range_end": DAYS[-1],
    }
    steps: Sequence[tuple[Sequence[Any], dict[str, str]]] = ((known[:2], {}), (known[2:], days))
    for selection, tags in steps:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            done = dg.materialize(
                known,
                selection=selection,
                resources={"tables": storage},
                tags=tags,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        if not done.success:
            raise BenchmarkError(f"Flights cannot be read: {said.getvalue()[-3000:]}")
    return open_tables(storage.base).read(dg.AssetKey("features"), DAYS, features.FEATURES_SCHEMA)


def body_of(rows: "pd.DataFrame") -> str:
    """Rows as MLflow's scoring protocol has them; gaps are null."""
    values = rows.astype(object).where(rows.notna(), None)
    return json.dumps({"dataframe_split": {"columns": list(rows.columns), "data": values.values.tolist()}})


def _logged(client: "MlflowClient", pipeline: "Pipeline", inputs: "pd.DataFrame") -> str:
    """A logged model, as a training run leaves it; its id."""
    from ledgerline.mlflow_store import model_files, store

    experiment = store.experiment_id(client, "models to be served", None)
    run_id = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, "served", run_id)
    with tempfile.TemporaryDirectory() as parent:
        files = Path(parent, "model")
        model_files.save(pipeline, files, inputs, logged, run_id, method="predict_proba")
        client.log_model_artifacts(logged.model_id, str(files))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id


def _tags() -> dict[str, str]:
    from ledgerline.ledger.ids import RUN_ID_TAG

    return {RUN_ID_TAG: str(uuid.uuid4())}


def _told_apart(said: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Of which rows no two versions say the same."""
    late = np.sort(np.stack([probabilities[:, 1] for probabilities in said]), axis=0)
    return np.diff(late, axis=0).min(axis=0) > MIN_DIFFERENCE


def _difference(expected: NDArray[np.float64], body: str) -> float:
    given = np.array(json.loads(body)["predictions"], dtype="float64")
    if given.shape != expected.shape or not np.isfinite(given).all():
        return float("inf")
    return float(np.abs(given - expected).max())
