"""The asset that says how a model's predictions have drifted. When that is too far: drift_checks.py."""

import dagster as dg

from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.drift_records import DriftConfig, PredictionsDrift
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.released_models.retries import RETRY
from ledgerline.dagster.released_models.watch import Watch


def drift_asset(model: ReleasedModel, watch: Watch) -> dg.AssetsDefinition:
    """Make the asset that compares the stored predictions with what their version was trained on."""
    spec = model.translator.drift_spec(model, watch)

    @dg.asset(
        key=spec.key,
        deps=list(spec.deps),
        partitions_def=spec.partitions_def,
        description=spec.description,
        metadata=spec.metadata,
        group_name=spec.group_name,
        kinds=spec.kinds,
        owners=list(spec.owners),
        tags={name: value for name, value in spec.tags.items() if not name.startswith("dagster/kind/")},
        automation_condition=spec.automation_condition,
        code_version=spec.code_version,
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
