"""The asset that represents the version in production: its step moves the alias.

The conditions of a move are checked in ledgerline/registry/promotion.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from ledgerline.cleaning.texts import clean
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.asset_of_spec import asset_of_spec
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.registry.history import OUTSIDE, Entry, Move
from ledgerline.registry.moves import MoveRefusedError
from ledgerline.registry.promotion import (
    InPlaceError,
    Mode,
    Moved,
    NotApprovedError,
    Request,
    RuleBrokenError,
)
from ledgerline.registry.registry import Model
from ledgerline.registry.stages import STAGING
from ledgerline.registry.versions import Version

# Metadata of a materialisation: the number of the journal's entry, and the time of the move.
ENTRY = "journal_entry"
MOVED_AT = "moved_at"

AS_RECORDED = "registry_as_recorded"

# Only one step at a time may move aliases of the registry.
REGISTRY_POOL = "model_registry"

# Metadata of an observation: why production was not moved. Each is a result, and not a failure.
DECISION = "decision"
REFUSED, IN_PLACE, WAITING = "refused", "in production already", "waits for a person"
DECISIONS: Mapping[type[MoveRefusedError], str] = {
    RuleBrokenError: REFUSED,
    InPlaceError: IN_PLACE,
    NotApprovedError: WAITING,
}


class Action(Enum):
    """The action on production."""

    promote = "promote"
    rollback = "rollback"


class PromotionConfig(dg.Config):
    """The version to move production to, and the person or program that requests it."""

    action: Action = Field(
        default=Action.promote,
        description="promote: to a version whose evidence allows it. rollback: to the version before.",
    )
    version: int | None = Field(
        default=None,
        ge=1,
        description=(
            "The version. Default: the one in staging; for a rollback, the one production was promoted over."
        ),
    )
    mode: Mode | None = Field(
        default=None,
        description=(
            "automatic: at once; approved: after a person's approval. Default: the setting "
            "LEDGERLINE_PROMOTION."
        ),
    )
    approver: str | None = Field(default=None, description="Person who requests it. Default: the run.")
    reason: str = Field(default="", max_length=1000, description="Reason, which the journal records.")


def production_asset(model: ReleasedModel) -> dg.AssetsDefinition:
    """Make the asset whose materialisations are moves of the alias `production`."""
    spec = model.translator.production_spec(model)

    @asset_of_spec(
        spec.merge_attributes(metadata=model.names.as_metadata()),
        output_required=False,
        pool=REGISTRY_POOL,
    )
    def move_production(
        context: dg.AssetExecutionContext, config: PromotionConfig, registry: ModelRegistryResource
    ) -> Iterator[dg.MaterializeResult]:
        yield from _move(context, model, config, registry)

    return move_production


def recorded_check(model: ReleasedModel) -> dg.AssetChecksDefinition:
    """Make the check that the registry agrees with its journal."""

    @dg.asset_check(
        asset=model.names.production,
        name=AS_RECORDED,
        description="Aliases and stage tags of all versions agree with the journal of the model.",
    )
    def registry_as_recorded(registry: ModelRegistryResource) -> dg.AssetCheckResult:
        """Compare the registry with its journal; a sensor does so after a move, and twice a minute."""
        return as_recorded(registry.model(model.name).inconsistencies())

    return registry_as_recorded


def _move(
    context: dg.AssetExecutionContext,
    model: ReleasedModel,
    config: PromotionConfig,
    registry: ModelRegistryResource,
) -> Iterator[dg.MaterializeResult]:
    run = context.run
    request = Request(
        by=config.approver or f"Dagster run {run.run_id}",
        reason=config.reason,
        run_id=run.run_id,
        # A re-execution of a run that was killed finishes what that run began.
        id=run.root_run_id or run.run_id,
    )
    registered = registry.model(model.name)
    if config.action == Action.rollback:
        moved = registered.rollback(config.version, request)
    else:
        number = config.version or staged_version(registered, model).number
        try:
            moved = registered.promote(number, request, config.mode or registry.promotion)
        except tuple(DECISIONS) as error:
            report_not_moved(context, number, DECISIONS[type(error)], clean(str(error)))
            return
    context.log.info(
        f"{model.name} version {moved.version} is in production; the version before was {moved.before}"
    )
    yield dg.MaterializeResult(metadata=metadata_of(moved), data_version=dg.DataVersion(str(moved.version)))


def report_not_moved(context: dg.AssetExecutionContext, version: int, decision: str, why: str) -> None:
    """Report as an observation of the step's asset that a version is not moved to production, and why."""
    context.log.warning(why)
    metadata = {DECISION: decision, "version": version}
    context.log_event(dg.AssetObservation(context.asset_key, description=why, metadata=metadata))


def as_recorded(inconsistencies: Sequence[str]) -> dg.AssetCheckResult:
    """Return the result of the check for these inconsistencies."""
    return dg.AssetCheckResult(
        passed=not inconsistencies,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(inconsistencies) or "Aliases and tags agree with the journal.",
        metadata={"inconsistencies": list(inconsistencies)},
    )


def metadata_of(moved: Moved) -> Mapping[str, Any]:
    """Return the metadata of a move; Dagster's UI plots the numbers over time."""
    move = moved.move
    return {
        "version": moved.version,
        "from_version": moved.before if moved.before is not None else "none",
        "cause": move.cause,
        "by": clean(move.by),
        "reason": clean(move.reason) or "none given",
        MOVED_AT: dg.MetadataValue.timestamp(moved.at),
        "evidence_sha256": move.evidence or "none",
        ENTRY: moved.entry,
    }


def move_key(entry: int, moved_at: datetime) -> tuple[int, int]:
    """Return the key of a move: the number of its entry, and when the alias moved, in milliseconds.

    The number alone is not unique: the journal of a model that was registered anew begins with 1 again.
    """
    return entry, round(moved_at.timestamp() * 1000)


def materialisation_of(production: dg.AssetKey, entry: Entry) -> dg.AssetMaterialization:
    """Return the materialisation of a move that no run has materialised.

    Args:
        production: Asset that represents the version in production.
        entry: Move of the alias `production` that has ended.
    """
    move, end = entry.record, entry.end
    assert isinstance(move, Move)  # noqa: S101 (see Args)
    assert end is not None  # noqa: S101 (see Args)
    moved = Moved(move.to_version or 0, move.from_version, entry.number, move, end.at)
    outside = move.cause == OUTSIDE
    return dg.AssetMaterialization(
        production,
        description=clean(move.reason if outside else f"{move.cause} by {move.by}"),
        metadata={
            **metadata_of(moved),
            "not_before": dg.MetadataValue.timestamp(move.not_before) if move.not_before else "unknown",
        },
        tags={"dagster/data_version": str(move.to_version or "none")},
    )


def staged_version(registered: Model, model: ReleasedModel) -> Version:
    """Return the version in staging.

    Raises:
        PermanentFailure: No version is in staging.
    """
    version = registered.version_with_alias(STAGING)
    if version is None:
        raise PermanentFailure(
            f"No version of {model.name} carries the alias {STAGING}.",
            f"Name a version, or register one: materialise {model.versions_key.to_user_string()}.",
        )
    return version
