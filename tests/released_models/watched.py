"""A small project whose model is watched, for each kind of prediction: made rows, real MLflow, real runs.

Rows of January are like those of February; in March everything is different.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import PredictionsDrift
from ledgerline.dagster.released_models.registration import RegisteredVersion, register_version
from ledgerline.dagster.released_models.released import released
from ledgerline.dagster.released_models.watch import SCORES_STABLE, Watch
from ledgerline.dagster.resources import library_resources
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.mlflow_store.quantile_models import joined_quantiles
from ledgerline.registry.provenance import Provenance

JANUARY, FEBRUARY, MARCH = "2013-01-01", "2013-02-01", "2013-03-01"
DAYS = dg.DailyPartitionsDefinition(start_date=JANUARY, end_date="2013-04-01")
MONTHS = dg.MonthlyPartitionsDefinition(start_date=FEBRUARY, end_date="2013-05-01")
ROWS_A_DAY = 40
NAME = "demand"

KINDS: dict[str, PredictionKind] = {
    "binary": Binary(),
    "multiclass": Multiclass(("a high one", "low", "mid")),
    "regression": Regression(),
    "quantiles": Quantiles((0.1, 0.5, 0.9)),
}


def days_of(month: str) -> list[str]:
    first = date.fromisoformat(month)
    days = [first + timedelta(days=number) for number in range(31)]
    return [day.isoformat() for day in days if day.month == first.month]


def day_before(month: str) -> str:
    return (date.fromisoformat(month) - timedelta(days=1)).replace(day=1).isoformat()


def made_rows(kind: PredictionKind, day: str) -> pd.DataFrame:
    """Make the rows of a day; in March features are larger, and outcomes are the other way round."""
    other = day >= MARCH
    random = np.random.default_rng(date.fromisoformat(day).toordinal())
    x = random.normal(size=ROWS_A_DAY) + (2.0 if other else 0.0)
    y = (-10.0 if other else 3.0) * x + random.normal(size=ROWS_A_DAY)
    return pd.DataFrame(
        {
            "day": day,
            "id": np.arange(ROWS_A_DAY),
            "x": x,
            "steady": random.choice(["a", "b"], ROWS_A_DAY),
            "y": outcomes(kind, y),
        }
    )


def outcomes(kind: PredictionKind, y: "np.ndarray[Any, Any]") -> Any:
    if isinstance(kind, Binary):
        return y > 0
    if isinstance(kind, Multiclass):
        # Declared in the order of the alphabet, as scikit-learn has them.
        return np.array(kind.classes)[[1, 2, 0]][np.digitize(y, [-1.0, 1.0])]
    return y


def inputs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["x"]]


def fitted(kind: PredictionKind, rows: pd.DataFrame) -> Any:
    from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor

    if isinstance(kind, Quantiles):
        return joined_quantiles(
            [QuantileRegressor(quantile=level, alpha=0).fit(inputs(rows), rows["y"]) for level in kind.levels]
        )
    estimator = LinearRegression() if isinstance(kind, Regression) else LogisticRegression()
    return estimator.fit(inputs(rows), rows["y"])


@dataclass(frozen=True)
class Project:
    """A model with its rows, versions and predictions, and where they are stored."""

    settings: Settings
    model: ReleasedModel
    assets: Sequence[dg.AssetsDefinition | dg.AssetSpec]

    @property
    def watch(self) -> Watch:
        assert self.model.watch is not None
        return self.model.watch

    @property
    def definitions(self) -> dg.Definitions:
        """Return the project with everything that the declaration adds."""
        own = dg.Definitions(assets=self.assets, resources=library_resources(self.settings))
        return dg.Definitions.merge(own, released(self.model))

    def watching(self, **fields: Any) -> "Project":
        """Declare another watch over the same state."""
        return replace(self, model=replace(self.model, watch=replace(self.watch, **fields)))

    def run(self, job: str, partition: str | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        """Run one of the jobs that the declaration adds."""
        key = self.model.names.drift if job == self.model.names.watch_job else self.model.names.requests_drift
        run_config = {"ops": {key.to_python_identifier(): {"config": config}}}
        with dg.DagsterInstance.ephemeral() as instance:
            return self.definitions.resolve_job_def(job).execute_in_process(
                partition_key=partition, run_config=run_config, instance=instance, raise_on_error=False
            )

    def compare(self, partition: str | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        return self.run(self.model.names.watch_job, partition, **config)

    def check_alone(self, months: Sequence[str]) -> dg.ExecuteInProcessResult:
        """Execute the check of predictions without a partition, when some months are stored."""
        key = self.model.names.drift
        checks = dg.AssetSelection.checks(dg.AssetCheckKey(key, SCORES_STABLE))
        alone = dg.Definitions(jobs=[dg.define_asset_job("alone", selection=checks)])
        with dg.DagsterInstance.ephemeral() as instance:
            for month in months:
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=month))
            job = dg.Definitions.merge(self.definitions, alone).resolve_job_def("alone")
            return job.execute_in_process(instance=instance, raise_on_error=False)

    def drift(self, partition: str | None = None) -> PredictionsDrift:
        records = open_records(self.settings.data)
        return records.read(self.model.names.drift, partition, PredictionsDrift)

    def make(self, names: Sequence[str], first: str, last: str) -> None:
        """Materialise a range of partitions in one run."""
        chosen = [asset.key for asset in self.assets if asset.key.to_user_string() in names]
        dg.materialize(
            self.assets,
            selection=chosen,
            resources=library_resources(self.settings),
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )

    def train(self, month: str) -> None:
        """Register the version of a month."""
        dg.materialize(
            self.assets,
            selection=[self.model.versions_key],
            resources=library_resources(self.settings),
            partition_key=month,
        )

    def stored(self, asset: str, keys: Sequence[str] | None = None) -> pd.DataFrame:
        return open_tables(self.settings.data).read(dg.AssetKey(asset), keys)


def checks_of(run: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in run.get_asset_check_evaluations()}


def problem_of(run: dg.ExecuteInProcessResult, node: str) -> str:
    """Return why a step failed for good."""
    assert [event.step_key for event in run.all_events if event.is_step_up_for_retry] == []
    failure = run.failure_data_for_node(node)
    assert failure is not None
    return str(failure.error).partition("Stack Trace")[0]


def project(settings: Settings, kind: PredictionKind, **watch: Any) -> Project:
    """Declare a project; nothing is made yet."""

    @dg.asset(
        partitions_def=DAYS,
        io_manager_key="tables",
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def rows(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.concat([made_rows(kind, day) for day in context.partition_keys], ignore_index=True)

    @dg.asset(partitions_def=MONTHS, io_manager_key="records", deps=[rows])
    def demand_version(
        context: dg.AssetExecutionContext, mlflow: MLflowResource, registry: ModelRegistryResource
    ) -> RegisteredVersion:
        days = days_of(day_before(context.partition_key))
        learned = open_tables(settings.data).read(rows.key, days)
        with mlflow.training_run(context, NAME) as tracked:
            model_id = tracked.log_model(fitted(kind, learned), NAME, inputs(learned), method=kind.method)
        return register_version(
            context,
            registry,
            declared,
            model_id=model_id,
            provenance=Provenance(context.partition_key, trained_on=days),
            metrics={},
        )

    @dg.asset(
        partitions_def=DAYS,
        io_manager_key="tables",
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "day"},
    )
    def predictions(rows: pd.DataFrame, registry: ModelRegistryResource) -> pd.DataFrame:
        registered = registry.model(NAME)
        version = registered.version_with_alias("staging")
        assert version is not None
        answer = kind.predictions("", registered.load(version).answer(inputs(rows)), len(rows))
        table = kind.score_columns(answer).set_axis(answers, axis="columns")
        # A table of a team's own may have columns that are called as the rows' are.
        return pd.concat([rows[["day", "id"]], table, rows[["y"]].notna()], axis=1).assign(v=version.number)

    answers = [f"answer_{number}" for number in range(len(kind.score_names))]
    given = {"predictions": predictions, "join": ("day", "id"), "answers": answers, "version": "v"}
    declared = ReleasedModel(
        name=NAME,
        kind=kind,
        versions=demand_version,
        rows=rows,
        outcome="y",
        inputs=inputs,
        clusters="day",
        features=("x", "steady"),
        evaluated_on=days_of,
        watch=Watch(**{**given, **watch}),
    )
    return Project(settings, declared, [rows, demand_version, predictions])


def made(settings: Settings, kind: PredictionKind, **watch: Any) -> Project:
    """Declare a project, train its model on January, and predict February and March."""
    found = project(settings, kind, **watch)
    found.make(["rows"], JANUARY, "2013-03-31")
    found.train(FEBRUARY)
    found.make(["predictions"], FEBRUARY, "2013-03-31")
    return found


def copied(found: Project, home: Path) -> Project:
    """Declare the same project over a copy of its state; files of models stay where they are."""
    settings = Settings.from_environment({"LEDGERLINE_HOME": str(home)})
    shutil.copytree(found.settings.data, settings.data)
    shutil.copyfile(found.settings.home / "mlflow.db", settings.home / "mlflow.db")
    watch = {field.name: getattr(found.watch, field.name) for field in fields(Watch)}
    return project(settings, found.model.kind).watching(
        **{name: value for name, value in watch.items() if name != "predictions"}
    )
