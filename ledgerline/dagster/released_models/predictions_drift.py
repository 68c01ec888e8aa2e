"""The asset with the drift of a model's predictions. Its checks are in drift_checks.py."""

import dagster as dg

from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import DriftConfig, PredictionsDrift
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.released_models.retries import RETRY
from ledgerline.dagster.released_models.watch import Watch


def drift_asset(model: ReleasedModel, watch: Watch) -> dg.AssetsDefinition:
    """Make the asset that compares the stored predictions with the training rows of their version."""
    spec = model.translator.drift_spec(model, watch)

    @asset_of_spec(
        spec,
        io_manager_key="records",
        retry_policy=RETRY,
        required_resource_keys={
            "registry",
            "otel",
            storage_of(model.rows),
            storage_of(watch.predictions),
        },
    )
    def predictions_drift(context: dg.AssetExecutionContext, config: DriftConfig) -> PredictionsDrift:
        from ledgerline.dagster.released_models.comparing_predictions import compare_predictions

        return compare_predictions(context, model, watch, config.version)

    return predictions_drift
