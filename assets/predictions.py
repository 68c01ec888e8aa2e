"""Batch predictions with the version that the registry's aliases select."""

from typing import TYPE_CHECKING

import dagster as dg

from assets import policies
from assets.columns import Frame, lineage, required
from assets.delay_model import MODEL_NAME, model_input
from assets.features import FEATURES, FEATURES_SCHEMA
from assets.flights import FLIGHT_KEY
from assets.partitions import DAYS
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.tracing import OTelResource
from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry.stages import PRODUCTION, STAGING
from ledgerline.registry.versions import Version

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS_SCHEMA = dg.TableSchema(
    [
        *(column for column in FEATURES_SCHEMA.columns if column.name in FLIGHT_KEY),
        required(
            "late_probability", "double", "Predicted probability that it arrives 15 or more minutes late"
        ),
        required("model_version", "int32", "Version of flight_delay that predicted it"),
        required("model_alias", "string", "Alias of that version at the time"),
    ]
)

PREDICTIONS_LINEAGE = lineage(
    {name: [("features", name)] for name in FLIGHT_KEY}
    | {"late_probability": [("features", name) for name in FEATURES]}
)


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    deps=[
        dg.AssetDep("delay_model_version", partition_mapping=dg.AllPartitionMapping()),
        "production_flight_delay",
    ],
    backfill_policy=policies.ALL_DAYS_IN_ONE_RUN,
    retry_policy=policies.RETRY,
    group_name="predictions",
    kinds={"parquet", "scikitlearn"},
    code_version="1",
    metadata={
        "dagster/column_schema": PREDICTIONS_SCHEMA,
        "dagster/column_lineage": PREDICTIONS_LINEAGE,
        "partition_expr": "date",
    },
)
def delay_predictions(
    context: dg.AssetExecutionContext, features: Frame, registry: ModelRegistryResource, otel: OTelResource
) -> Frame:
    """Predicted probabilities that flights arrive 15 or more minutes late.

    The table has one row for each scheduled flight in `features`, and one partition for each day. The model
    is the version with the alias `production`, or `staging` if no version is in production; each row has the
    version and the alias.
    """
    alias, version = version_in_use(registry)
    context.log.info(f"Scoring {len(features):,} flights with version {version.number} ({alias})")
    with otel.span("load model", **{"model.version": version.number, "model.alias": alias}):
        model = registry.model(MODEL_NAME).load(version)
    with otel.span("predict", rows=len(features)):
        rows = predict(model, features, version, alias)
    context.add_asset_metadata(
        {
            "model_version": version.number,
            "model_alias": alias,
            "mean_late_probability": float(rows["late_probability"].mean()),
        }
    )
    return rows


def version_in_use(registry: ModelRegistryResource) -> tuple[str, Version]:
    """Return the alias and the version to predict with.

    Raises:
        PermanentFailure: No version has either alias.
    """
    model = registry.model(MODEL_NAME)
    for alias in (PRODUCTION, STAGING):
        if version := model.version_with_alias(alias):
            return alias, version
    raise PermanentFailure(
        f"No version of {MODEL_NAME} has the alias {PRODUCTION!r} or {STAGING!r}.",
        "Run the job train_delay_model for a month first.",
    )


def predict(model: StoredModel, features: "pd.DataFrame", version: Version, alias: str) -> "pd.DataFrame":
    """Return the predictions, one row for each flight in the given order."""
    return features[list(FLIGHT_KEY)].assign(
        late_probability=model.answer(model_input(features))[:, 1],
        model_version=version.number,
        model_alias=alias,
    )
