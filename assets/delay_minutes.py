"""A model that predicts the delay of a flight in minutes. One step trains, evaluates and registers it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from assets import policies
from assets.delay_model import FEATURES_ASSET, TreesConfig, describe, model_input, pipeline_of, read_days
from assets.features import FEATURES, FEATURES_SCHEMA, features
from assets.flights import FLIGHT_KEY
from assets.partitions import MONTHS, TRAINING_MONTHS, evaluation_days, training_days
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.baselines import constant
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.registration import RegisteredVersion, register_version
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.evaluation.gates import Better, FastEnough, NoSliceWorse, SameSignature, Unbiased
from ledgerline.evaluation.kinds import Regression
from ledgerline.evaluation.policy import Policy
from ledgerline.registry.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

FLIGHTS_ASSET = dg.AssetKey("flights")
MINUTES = "arr_delay"

# The partitions are the month of the evaluation, and the months of the training before it.
ALL_DAYS = dg.TimeWindowPartitionMapping(
    start_offset=-TRAINING_MONTHS, end_offset=0, allow_nonexistent_upstream_partitions=True
)


@dg.asset(
    partitions_def=MONTHS,
    io_manager_key="records",
    deps=[
        dg.AssetDep(FEATURES_ASSET, partition_mapping=ALL_DAYS),
        dg.AssetDep(FLIGHTS_ASSET, partition_mapping=ALL_DAYS),
    ],
    retry_policy=policies.RETRY,
    group_name="delay_minutes",
    kinds={"scikitlearn", "mlflow"},
    code_version="1",
)
def delay_minutes_version(
    context: dg.AssetExecutionContext,
    config: TreesConfig,
    *,
    tables: dg.ResourceParam[Tables],
    mlflow: MLflowResource,
    otel: OTelResource,
    registry: ModelRegistryResource,
) -> RegisteredVersion:
    """Versions of `delay_minutes`, a model that predicts how many minutes late a flight arrives.

    There is one partition for each month. Its model is trained on the months before it and evaluated on that
    month, together with the mean delay of the training months as a baseline. Parameters, metrics, data
    digests and the model are in an MLflow run. The version gets the alias `staging`, unless a version of a
    later month has it.
    """
    month = context.partition_key
    days, later = training_days(month), evaluation_days(month)
    with otel.span("read rows", days=len(days) + len(later)):
        rows, unseen = (with_minutes(tables, each) for each in (days, later))
    trained_on, evaluated_on = (
        describe(part, tables, each, "features with minutes")
        for part, each in ((rows, days), (unseen, later))
    )
    with mlflow.training_run(context, f"delay_minutes {month}") as run:
        run.log_params({"month": month, **config.model_dump()})
        run.log_dataset(trained_on, "training", FEATURES_SCHEMA)
        run.log_dataset(evaluated_on, "evaluation", FEATURES_SCHEMA)
        with otel.span("fit", rows=len(rows)):
            pipeline = build_pipeline(config).fit(model_input(rows), rows[MINUTES])
        with otel.span("store model"):
            model_id = run.log_model(pipeline, DELAY_MINUTES.name, model_input(rows))
        kind = DELAY_MINUTES.kind
        scores = kind.score(unseen[MINUTES], pipeline.predict(model_input(unseen)))
        mean = constant(kind, kind.outcomes(rows[MINUTES]), len(unseen))
        baseline = kind.score(unseen[MINUTES], mean)
        run.log_metrics(
            scores | {f"mean/{name}": value for name, value in baseline.items()}, model_id, evaluated_on
        )
    context.add_asset_metadata({"mlflow_run": mlflow.link(run), "rows": len(rows), **scores})
    return register_version(
        context,
        registry,
        DELAY_MINUTES,
        model_id=model_id,
        provenance=Provenance(month, trained_on=days, training_data_sha256=trained_on.sha256),
        metrics=scores,
    )


def with_minutes(tables: Tables, days: Sequence[str]) -> "pd.DataFrame":
    """Read the features of flights that arrived, with the minutes that each was late.

    Raises:
        PermanentFailure: Some of the days are not stored.
    """
    known = read_days(tables, days, "delay_minutes needs")
    minutes = tables.read(FLIGHTS_ASSET, days)[[*FLIGHT_KEY, MINUTES]]
    rows = known.merge(minutes, on=list(FLIGHT_KEY), how="inner", validate="one_to_one")
    return rows[rows[MINUTES].notna()].reset_index(drop=True)


def build_pipeline(config: TreesConfig) -> "Pipeline":
    """Return an unfitted pipeline: categories to codes, then gradient boosted trees that predict the mean."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return pipeline_of(HistGradientBoostingRegressor, config)


DELAY_MINUTES = ReleasedModel(
    name="delay_minutes",
    kind=Regression(),
    versions=delay_minutes_version,
    rows=features,
    read=lambda context, days: with_minutes(context.resources.tables, days),
    outcome=MINUTES,
    inputs=model_input,
    clusters="date",
    slices=("carrier", "origin"),
    features=FEATURES,
    evaluated_on=evaluation_days,
    policy=Policy(
        [
            Better("rmse"),
            NoSliceWorse(most=3.0),  # minutes of absolute error
            # The mean delay of a month depends on its weather, which these models cannot predict.
            Unbiased(most=10.0),
            FastEnough(),
            SameSignature(),
        ]
    ),
)
