"""Registers a trained model as a version with its provenance, and gives it the alias `staging`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.evaluation_rows import partitions_of
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.registry.promotion import Request
from ledgerline.registry.provenance import Provenance, ProvenanceError, partition_of, tags_of
from ledgerline.registry.stages import STAGING
from ledgerline.registry.versions import SHA256_TAG, Version


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, with the hash of its files, and whether its alias is `staging`."""

    name: str
    number: int
    sha256: str
    is_staging: bool


def register_version(
    context: dg.AssetExecutionContext,
    registry: ModelRegistryResource,
    model: ReleasedModel,
    *,
    model_id: str,
    provenance: Provenance,
    metrics: Mapping[str, float],
) -> RegisteredVersion:
    """Register a logged model; a repeat returns the same version.

    The version gets the alias `staging`, unless the alias names a version of a later partition, because
    partitions may be backfilled in any order.

    Args:
        context: Context of the step.
        registry: Model registry.
        model: Declaration of the model.
        model_id: Logged model in MLflow, as TrainingRun.log_model returns it.
        provenance: Origin of the model.
        metrics: Scores of the model, which become tags of the version.

    Raises:
        PermanentFailure: The provenance names partitions that the rows do not have.

    Example:
        A step logs a model in its MLflow run and registers the version::

            model_id = run.log_model(pipeline, "demand", inputs)
            return register_version(
                context,
                registry,
                DEMAND,
                model_id=model_id,
                provenance=Provenance(partition=None),
                metrics={"rmse": 4.2},
            )
    """
    partitions = partitions_of(model, context.instance)
    holdout = model.holdout.as_text() if model.holdout is not None else None
    if not provenance.evaluated_on and provenance.partition is not None and partitions.keys:
        provenance = replace(provenance, evaluated_on=list(model.evaluated_on(provenance.partition)))
    try:
        tags = tags_of(provenance, partitions, holdout)
    except ProvenanceError as error:
        raise PermanentFailure(f"{model.name}: {error.problem}", error.remedy) from error
    run = context.run
    scores = {name: f"{value:.6f}" for name, value in metrics.items()}
    registered = registry.model(model.name)
    version = registered.register(model_id, {**tags, **scores, RUN_ID_TAG: run.run_id})
    current = registered.version_with_alias(STAGING)
    is_staging = may_replace(model, context.instance, current, provenance.partition)
    if is_staging:
        request = Request(
            by=f"Dagster run {run.run_id}", reason="", run_id=run.run_id, id=run.root_run_id or run.run_id
        )
        registered.stage(version.number, request)
    else:
        context.log.info(f"{STAGING} still names a version of a later partition: {current}")
    context.add_asset_metadata(
        {
            "version": version.number,
            "alias": STAGING if is_staging else "none",
            "sha256": version.tags[SHA256_TAG],
        }
    )
    return RegisteredVersion(version.name, version.number, version.tags[SHA256_TAG], is_staging)


def may_replace(
    model: ReleasedModel, instance: dg.DagsterInstance, current: Version | None, partition: str | None
) -> bool:
    """Return whether a version of this partition may replace the version that the alias names.

    A version that was registered manually records no partition, and may be replaced. Only time partitions
    have an order.
    """
    definition = model.versions.partitions_def
    if current is None or partition is None or not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return True
    other = partition_of(current)
    keys = definition.get_partition_keys(dynamic_partitions_store=instance)
    return other not in keys or partition not in keys or keys.index(other) <= keys.index(partition)
