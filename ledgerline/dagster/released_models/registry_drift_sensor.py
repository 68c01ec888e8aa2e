"""The sensor that reports when aliases or tags begin or cease to contradict the journal."""

from dataclasses import dataclass, replace

import dagster as dg

from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.released_models.polls import INTERVAL_SECONDS, NOT_YET, NOTHING_NEW, Seen, poll
from ledgerline.dagster.released_models.production import AS_RECORDED, as_recorded


@dataclass(frozen=True)
class SeenDrift(Seen):
    """The state of `registry_drift`.

    Attributes:
        inconsistencies: Inconsistencies at the last poll; None before the first.
        reported: Inconsistencies that the check was last evaluated with.
    """

    inconsistencies: list[str] | None = None
    reported: list[str] | None = None


def drift_sensor(model: ReleasedModel) -> dg.SensorDefinition:
    """Make the sensor that evaluates the check of the registry when its result changes."""
    names = model.names

    @dg.sensor(
        name=names.sensor("registry_drift"),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Evaluates the check {AS_RECORDED} of {names.production.to_user_string()} when aliases or tags "
            f"of {model.name} begin or cease to contradict its journal."
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
    """Compare the registry with its journal.

    An inconsistency that only one poll finds is not reported, because an alias was probably being moved or
    recorded at that time.
    """
    polled = poll(context, registry, names.model, SeenDrift)
    if polled is None:
        return dg.SkipReason(NOT_YET)
    seen, current = polled
    # A notification may be caused by a changed tag, which a poll does not read.
    if not seen.is_to_read(current) and current.notified_at == seen.notified_at:
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=seen.after(current).cursor)
    inconsistencies = registry.model(names.model).inconsistencies()
    is_seen_again = inconsistencies == seen.inconsistencies
    is_new = inconsistencies != seen.reported
    after = seen.after_reading(current, current.journal_entry, has_more=is_new and not is_seen_again)
    after = replace(after, inconsistencies=inconsistencies)
    if not is_new:
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=after.cursor)
    if not is_seen_again:
        return dg.SensorResult(
            skip_reason="An inconsistency is reported if the next tick confirms it.", cursor=after.cursor
        )
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
