"""Judges whether the registry is as its journal says, and reports it when the verdict changes."""

from dataclasses import dataclass, replace

import dagster as dg

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.released_models.polls import INTERVAL_SECONDS, NOT_YET, NOTHING_NEW, Seen, look
from ledgerline.dagster.released_models.production import AS_RECORDED, as_recorded


@dataclass(frozen=True)
class SeenDrift(Seen):
    """What `registry_drift` remembers.

    Attributes:
        found: Contradictions at the last look; None: it never looked.
        reported: Those that the check was last evaluated with.
    """

    found: list[str] | None = None
    reported: list[str] | None = None


def drift_sensor(model: ReleasedModel) -> dg.SensorDefinition:
    """Make the sensor that evaluates the check of the registry when its verdict changes."""
    names = model.names

    @dg.sensor(
        name=names.sensor("registry_drift"),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Aliases or tags of {model.name} contradict its journal, or do so no longer: evaluate the check "
            f"{AS_RECORDED} of {names.production.to_user_string()}."
        ),
    )
    def registry_drift(
        context: dg.SensorEvaluationContext, registry: ModelRegistryResource
    ) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, names, registry)

    return registry_drift


def _tick(
    context: dg.SensorEvaluationContext, names: ReleaseNames, registry: ModelRegistryResource
) -> dg.SensorResult | dg.SkipReason:
    """Judge the registry.

    What is found once only is not reported: it was a move that was just being carried out or noticed.
    """
    seen = SeenDrift.from_cursor(context.cursor)
    found = look(context, registry, names.model, seen)
    if found is None:
        return dg.SkipReason(NOT_YET)
    seen = seen.about(found)
    # A wake-up may be for a tag, which does not show in a look.
    if not seen.is_to_read(found) and found.woken == seen.woken:
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=seen.after(found).cursor)
    inconsistencies = registry.model(names.model).inconsistencies()
    is_seen_again = inconsistencies == seen.found
    is_new = inconsistencies != seen.reported
    after = seen.after_reading(found, found.journal_entry, has_more=is_new and not is_seen_again)
    after = replace(after, found=inconsistencies)
    if not is_new:
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=after.cursor)
    if not is_seen_again:
        return dg.SensorResult(skip_reason="Is it still so at the next tick?", cursor=after.cursor)
    result = as_recorded(inconsistencies)
    event = dg.AssetCheckEvaluation(
        asset_key=names.production,
        check_name=AS_RECORDED,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )
    return dg.SensorResult(
        skip_reason=result.description,
        asset_events=[event],
        cursor=replace(after, reported=inconsistencies).cursor,
    )
