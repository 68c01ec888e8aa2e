"""Tests drift where rows, versions or predictions have no partitions, and tables of another IO manager."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import PredictionsDrift
from ledgerline.dagster.released_models.holdout import Holdout
from ledgerline.dagster.released_models.registration import RegisteredVersion, register_version
from ledgerline.dagster.released_models.released import released
from ledgerline.dagster.released_models.watch import Watch
from ledgerline.dagster.resources import library_resources
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.evaluation.kinds import Regression
from ledgerline.registry.provenance import Provenance
from tests.released_models.watched import checks_of, inputs, problem_of

HOLDOUT = Holdout(0.2, ["id"])
PARTS = dg.StaticPartitionsDefinition(["north", "south"])


class CsvFiles(dg.ConfigurableIOManager):
    """A team's IO manager, which is not of the library."""

    folder: str

    def _path(self, context: dg.InputContext | dg.OutputContext) -> Path:
        key = f"_{context.asset_partition_key}" if context.has_asset_partitions else ""
        return Path(self.folder, f"{context.asset_key.to_user_string()}{key}.csv")

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        Path(self.folder).mkdir(exist_ok=True)
        obj.to_csv(self._path(context), index=False)

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        return pd.read_csv(self._path(context))


def project(
    settings: Settings, folder: Path, partitions: dg.PartitionsDefinition | None
) -> tuple[ReleasedModel, dg.Definitions]:
    """Declare a model of rows without partitions; its predictions may have some."""

    @dg.asset(io_manager_key="csv")
    def rows() -> pd.DataFrame:
        random = np.random.default_rng(1)
        x = random.normal(size=2_000)
        return pd.DataFrame({"id": np.arange(2_000), "x": x, "y": 3 * x + random.normal(size=2_000)})

    @dg.asset(io_manager_key="records")
    def demand_version(
        context: dg.AssetExecutionContext,
        rows: pd.DataFrame,
        mlflow: MLflowResource,
        registry: ModelRegistryResource,
    ) -> RegisteredVersion:
        from sklearn.linear_model import LinearRegression

        learned = rows[~HOLDOUT.is_held_out(rows)]
        with mlflow.training_run(context, "demand") as tracked:
            fitted = LinearRegression().fit(inputs(learned), learned["y"])
            model_id = tracked.log_model(fitted, "demand", inputs(learned))
        return register_version(
            context, registry, model, model_id=model_id, provenance=Provenance(None), metrics={}
        )

    @dg.asset(io_manager_key="csv", partitions_def=partitions, deps=[demand_version])
    def predictions(
        context: dg.AssetExecutionContext, rows: pd.DataFrame, registry: ModelRegistryResource
    ) -> pd.DataFrame:
        if context.has_partition_key:
            rows = rows[(rows["id"] % 2 == 0) == (context.partition_key == "north")]
        registered = registry.model("demand")
        answer: Any = registered.load(registered.version(1)).answer(inputs(rows))
        return pd.DataFrame({"id": rows["id"], "answer": answer, "v": 1})

    model = ReleasedModel(
        name="demand",
        kind=Regression(),
        versions=demand_version,
        rows=rows,
        outcome="y",
        inputs=inputs,
        clusters=None,
        holdout=HOLDOUT,
        features=["x"],
        watch=Watch(predictions=predictions, join=["id"], answers=["answer"], version="v"),
    )
    resources = library_resources(settings) | {"csv": CsvFiles(folder=str(folder))}
    own = dg.Definitions(
        assets=[rows, demand_version, predictions],
        jobs=[dg.define_asset_job("train", selection=["rows", "demand_version"])],
        resources=resources,
    )
    predict = dg.define_asset_job("predict", selection=["predictions"])
    return model, dg.Definitions.merge(own, dg.Definitions(jobs=[predict]), released(model))


@pytest.mark.parametrize("keys", [(None,), ("north", "south")])
def test_all_stored_predictions_are_compared_where_rows_have_no_partitions(
    keys: tuple[str | None, ...], settings: Settings, tmp_path: Path
) -> None:
    model, definitions = project(settings, tmp_path / "csv", PARTS if keys[0] else None)
    assert model.drift_partitions is None
    with dg.DagsterInstance.ephemeral() as instance:
        assert definitions.resolve_job_def("train").execute_in_process(instance=instance).success
        watch = definitions.resolve_job_def("watch_demand")
        if keys[0]:
            problem = problem_of(
                watch.execute_in_process(instance=instance, raise_on_error=False), "drift_demand"
            )
            assert "predictions has no stored partition. Materialise predictions first." in problem
        for number, key in enumerate(keys, start=1):
            predict = definitions.resolve_job_def("predict")
            assert predict.execute_in_process(partition_key=key, instance=instance).success
            run = watch.execute_in_process(instance=instance)
            found = open_records(settings.data).read(model.names.drift, None, PredictionsDrift)
            assert (found.partition, found.first_training_partition) == (None, None)
            assert found.rows == found.clusters == 2_000 * number // len(keys)
            # Rows that are held out were predicted, too, and not trained on.
            assert found.training_rows < 1_700
            assert found.score_psi["value"] < 0.05
            assert all(check.passed for check in checks_of(run).values())
            assert not any("partition" in check.metadata for check in checks_of(run).values())
