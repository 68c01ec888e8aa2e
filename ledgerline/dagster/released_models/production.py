"""The asset that stands for the version in production: moving the alias, and telling Dagster of it.

What must hold before: ledgerline/registry/promotion.py.
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
from ledgerline.dagster.released_models.retries import REGISTRY_POOL, RETRY
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

# Metadata of a materialisation: which entry of the journal it shows.
ENTRY = "journal_entry"
MOVED_AT = "moved_at"

AS_RECORDED = "registry_as_recorded"

# Metadata of an observation: why production was left as it is. Each is a result, and no failure.
DECISION = "decision"
REFUSED, IN_PLACE, WAITING = "refused", "in production already", "waits for a person"
DECISIONS: Mapping[type[MoveRefusedError], str] = {
    RuleBrokenError: REFUSED,
    InPlaceError: IN_PLACE,
    NotApprovedError: WAITING,
}


class Action(Enum):
    """What is to be done with production."""

    promote = "promote"
    rollback = "rollback"


class PromotionConfig(dg.Config):
    """Which version is to be in production, and who says so."""

    action: Action = Field(
        default=Action.promote,
        description="promote: to a version whose evidence is good. rollback: to the version before.",
    )
    version: int | None = Field(
        default=None,
        ge=1,
        description=(
            "The version. Default: the one in staging; of a rollback, the one production was promoted over."
        ),
    )
    mode: Mode | None = Field(
        default=None,
        description=(
            "automatic: at once; approved: once a person approved. Default: as LEDGERLINE_PROMOTION says."
        ),
    )
    approver: str | None = Field(default=None, description="Who asks for it. Default: the run.")
    reason: str = Field(default="", max_length=1000, description="Why; it is written into the journal.")


def production_asset(model: ReleasedModel) -> dg.AssetsDefinition:
    """Make the asset whose materialisations are moves of the alias `production`."""
    spec = model.translator.production_spec(model)

    @asset_of_spec(
        spec.merge_attributes(metadata=model.names.as_metadata()),
        output_required=False,
        retry_policy=RETRY,
        pool=REGISTRY_POOL,
    )
    def move_production(
        context: dg.AssetExecutionContext, config: PromotionConfig, registry: ModelRegistryResource
    ) -> Iterator[dg.MaterializeResult]:
        yield from _move(context, model, config, registry)

    return move_production


def recorded_check(model: ReleasedModel) -> dg.AssetChecksDefinition:
    """Make the check that the registry is as its journal says."""

    @dg.asset_check(
        asset=model.names.production,
        name=AS_RECORDED,
        description="Aliases and stage tags of all versions are as the journal of the model says.",
    )
    def registry_as_recorded(registry: ModelRegistryResource) -> dg.AssetCheckResult:
        """Judge the registry as it is now; a sensor does so when something moved, and twice a minute."""
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
        # A re-execution of a run that was killed goes on with what it began.
        id=run.root_run_id or run.run_id,
    )
    registered = registry.model(model.name)
    if config.action == Action.rollback:
        moved = registered.rollback(config.version, request)
    else:
        number = config.version or _staging(registered, model)
        try:
            moved = registered.promote(number, request, config.mode or registry.promotion)
        except tuple(DECISIONS) as error:
            why = clean(str(error))
            context.log.warning(why)
            context.log_event(_not_moved(model, number, DECISIONS[type(error)], why))
            return
    context.log.info(f"{model.name} version {moved.version} is in production; before: {moved.before}")
    yield dg.MaterializeResult(metadata=metadata_of(moved), data_version=dg.DataVersion(str(moved.version)))


def _not_moved(model: ReleasedModel, version: int, decision: str, why: str) -> dg.AssetObservation:
    """Return the observation that tells Dagster that production was left as it is, and why."""
    return dg.AssetObservation(
        model.names.production, description=why, metadata={DECISION: decision, "version": version}
    )


def as_recorded(inconsistencies: Sequence[str]) -> dg.AssetCheckResult:
    """Return the result of the check, given where the registry contradicts its journal."""
    return dg.AssetCheckResult(
        passed=not inconsistencies,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(inconsistencies) or "Aliases and tags are as the journal says.",
        metadata={"inconsistencies": list(inconsistencies)},
    )


def metadata_of(moved: Moved) -> Mapping[str, Any]:
    """Return what Dagster shows of a move; numbers are drawn over time in its UI."""
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


def shown_as(entry: int, moved_at: datetime) -> tuple[int, int]:
    """Return what tells a move from all others: its entry, and when the alias moved, in milliseconds.

    The number alone does not: a model that was made anew has a journal that begins with 1 again.
    """
    return entry, round(moved_at.timestamp() * 1000)


def materialisation_of(production: dg.AssetKey, entry: Entry) -> dg.AssetMaterialization:
    """Return the materialisation of a move that no run of its own has shown.

    Args:
        production: The asset that stands for the version in production.
        entry: A move of the alias `production` that has ended.
    """
    move, end = entry.record, entry.end
    assert isinstance(move, Move)  # noqa: S101 (as said)
    assert end is not None  # noqa: S101 (as said)
    shown = Moved(move.to_version or 0, move.from_version, entry.number, move, end.at)
    outside = move.cause == OUTSIDE
    return dg.AssetMaterialization(
        production,
        description=clean(move.reason if outside else f"{move.cause} by {move.by}"),
        metadata={
            **metadata_of(shown),
            "not_before": dg.MetadataValue.timestamp(move.not_before) if move.not_before else "unknown",
        },
        tags={"dagster/data_version": str(move.to_version or "none")},
    )


def _staging(registered: Model, model: ReleasedModel) -> int:
    version = registered.version_with_alias(STAGING)
    if version is None:
        raise PermanentFailure(
            f"No version of {model.name} carries the alias {STAGING}.",
            f"Name a version, or make one: materialise {model.versions_key.to_user_string()}.",
        )
    return version.number
