"""Registering a judged model as a version in staging. Whether it goes further: staging_vs_production.py."""

from dataclasses import dataclass

import dagster as dg

from assets import policies
from assets.delay_model import MODEL_NAME, TrainedModel
from assets.delay_model_evaluation import MODEL, Evaluation
from assets.partitions import MONTHS
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.ledger.ids import RUN_ID_TAG
from ledgerline.registry.stages import STAGING
from ledgerline.registry.versions import (
    MONTH_TAG,
    SHA256_TAG,
    TRAINING_DATA_TAG,
    TRAINING_DAYS_TAG,
    Version,
)


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the model registry.

    Attributes:
        name: The registered model.
        number: The version.
        sha256: Hash of the model's files.
        is_staging: Whether it was given the alias `staging`.
    """

    name: str
    number: int
    sha256: str
    is_staging: bool


@dg.asset(
    partitions_def=MONTHS,
    io_manager_key="records",
    retry_policy=policies.RETRY,
    pool=policies.REGISTRY_POOL,
    group_name="delay_model",
    kinds={"mlflow"},
    code_version="1",
)
def delay_model_version(
    context: dg.AssetExecutionContext,
    delay_model: TrainedModel,
    delay_model_evaluation: Evaluation,
    registry: ModelRegistryResource,
) -> RegisteredVersion:
    """The judged model as a version of `flight_delay` in the model registry.

    It records the sha256 of the model's files, the month and where it came from, and takes the alias
    `staging`, unless the version that carries it is of a later month: months may be backfilled in any
    order.
    """
    scores = delay_model_evaluation.scores[MODEL]
    version = registry.register(
        MODEL_NAME,
        delay_model.model_id,
        {
            MONTH_TAG: delay_model.month,
            RUN_ID_TAG: context.run.run_id,
            TRAINING_DAYS_TAG: f"{delay_model.first_day}/{delay_model.last_day}",
            TRAINING_DATA_TAG: delay_model.data_sha256,
            "judged_data_sha256": delay_model_evaluation.data_sha256,
            **{metric: f"{value:.6f}" for metric, value in scores.items()},
        },
    )
    current = registry.version_with_alias(MODEL_NAME, STAGING)
    is_staging = may_replace(current, delay_model.month)
    if is_staging:
        run = context.run
        registry.stage(version, f"Dagster run {run.run_id}", run.run_id, run.root_run_id or run.run_id)
    else:
        context.log.info(f"{STAGING} stays with a later month: {current}")
    context.add_asset_metadata(
        {
            "version": version.number,
            "alias": STAGING if is_staging else "none",
            "sha256": version.tags[SHA256_TAG],
        }
    )
    return RegisteredVersion(
        name=version.name,
        number=version.number,
        sha256=version.tags[SHA256_TAG],
        is_staging=is_staging,
    )


def may_replace(current: Version | None, month: str) -> bool:
    """Whether a model of this month may take the alias from the version that carries it.

    A version that somebody registered by hand names no month, and may be replaced.
    """
    return current is None or current.tags.get(MONTH_TAG, "") <= month
