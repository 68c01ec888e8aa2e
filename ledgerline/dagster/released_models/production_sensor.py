"""Follows moves of the alias `production`, whoever made them: shows them in Dagster and tells people.

A webhook (`ledgerline registry webhook`) makes sensors look at once; without, they look every few seconds.
When they look, and what they remember: looks.py. What starts comparisons and promotions: staging_sensor.py.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Self

import dagster as dg

from ledgerline.cleaning.texts import clean
from ledgerline.dagster.alerts import AlertError, AlertResource
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.polls import (
    INTERVAL_SECONDS,
    NOT_YET,
    NOTHING_NEW,
    Seen,
    look,
    run_key,
)
from ledgerline.dagster.released_models.production import ENTRY, MOVED_AT, materialisation_of, shown_as
from ledgerline.registry.history import End, Entry, Move
from ledgerline.registry.moves import UnderWayError
from ledgerline.registry.stages import PRODUCTION

# A run shows its move at once. One that has not by then has lost its process, whatever its status says.
SHOWN_WITHIN = timedelta(minutes=10)

# Stop telling after so long in one tick; Dagster gives a sensor 60.
ALERT_SECONDS = 20

PAGE = 500

MoveEntry = tuple[Entry, Move, End]


@dataclass(frozen=True)
class SeenProduction(Seen):
    """What `production_changed` remembers.

    Attributes:
        shown: Up to this entry, moves are shown as materialisations; None: it never looked.
        told: Up to this entry, the alert address was told of them.
    """

    shown: int | None = None
    told: int = 0

    @classmethod
    def nothing_of_a_new_model(cls) -> Self:
        """Return what is known of a new model: each of its moves is to be shown and told."""
        return cls(shown=0)


def production_sensor(model: ReleasedModel) -> dg.SensorDefinition:
    """Make the sensor that shows moves of the alias, starts what follows a promotion, and tells people."""
    after = model.after_promotion
    follows = f"run {after.job} again, " if after is not None else ""

    @dg.sensor(
        name=model.names.sensor("production_changed"),
        job_name=after.job if after is not None else None,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Another version of {model.name} is in production, whoever did it: show it as a "
            "materialisation of "
            f"{model.names.production.to_user_string()}, {follows}tell the alert address."
        ),
    )
    def production_changed(
        context: dg.SensorEvaluationContext, registry: ModelRegistryResource, alerts: AlertResource
    ) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, model, registry, alerts)

    return production_changed


def _tick(
    context: dg.SensorEvaluationContext,
    model: ReleasedModel,
    registry: ModelRegistryResource,
    alerts: AlertResource,
) -> dg.SensorResult | dg.SkipReason:
    """Show each move of the alias that no run has shown, start what follows, and tell people."""
    names = model.names
    seen = SeenProduction.from_cursor(context.cursor)
    found = look(context, registry, names.model, seen)
    if found is None:
        return dg.SkipReason(NOT_YET)
    seen = seen.about(found)
    if not seen.is_to_read(found):
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=seen.after(found).cursor)
    try:
        history = registry.model(names.model).reconcile(seen.last_poll(found)).history
    except UnderWayError as error:
        return dg.SkipReason(clean(str(error)))

    seen = seen.within(history)
    moves = history.moves(PRODUCTION)
    new = [each for each in moves if each[0].number > (seen.shown or 0)]
    # In this order: a run that ends in between has shown its move by the time that is looked for.
    expected = {
        shown_as(entry.number, end.at)
        for entry, move, end in new
        if _is_to_be_shown(context.instance, move, end)
    }
    shown = _shown(context.instance, names.production) if new else set()
    ready = list(takewhile(lambda each: shown_as(each[0].number, each[2].at) not in expected - shown, new))
    events = [
        materialisation_of(names.production, entry)
        for entry, _, end in ready
        if shown_as(entry.number, end.at) not in shown
    ]
    is_all = len(ready) == len(new)
    last = ready[-1][0].number if ready else seen.shown or 0
    up_to = history.head if is_all else last
    requests = []
    told, problem = up_to, ""
    if seen.shown is not None:  # at the first look, everything is of the past
        requests = _after(context.instance, model, ready[-1][0]) if ready and is_all else []
        told, problem = _tell(alerts, names.model, moves, seen.told, up_to)
    has_more = not is_all or told < up_to
    after = seen.after_reading(found, history.head, has_more=has_more)
    after = replace(after, seal=history.seal, shown=up_to, told=told)
    if problem:
        context.log.warning(problem)
    if requests:
        return dg.SensorResult(run_requests=requests, asset_events=events, cursor=after.cursor)
    waiting = "" if is_all else "A run under way is about to show its move."
    return dg.SensorResult(
        skip_reason=problem or waiting or f"Shown: {len(events)} moves.",
        asset_events=events,
        cursor=after.cursor,
    )


def _is_to_be_shown(instance: dg.DagsterInstance, move: Move, end: End) -> bool:
    """Whether the run that moved the alias goes on, and so will show it."""
    if not move.run_id or datetime.now(UTC) - end.at > SHOWN_WITHIN:
        return False
    run = instance.get_run_by_id(move.run_id)
    return run is not None and not run.is_finished


def _shown(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[tuple[int, int]]:
    """Return the moves that materialisations show, each as `shown_as` names it."""
    found: set[tuple[int, int]] = set()
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(asset, limit=PAGE, cursor=cursor)
        for record in page.records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            if ENTRY in metadata and MOVED_AT in metadata:
                number, at = metadata[ENTRY].value, metadata[MOVED_AT].value
                if isinstance(number, int) and isinstance(at, int | float):
                    found.add(shown_as(number, datetime.fromtimestamp(at, UTC)))
        cursor = page.cursor
        if not page.has_more:
            return found


def _after(instance: dg.DagsterInstance, model: ReleasedModel, entry: Entry) -> list[dg.RunRequest]:
    """Return the run that follows a promotion, because of this entry."""
    if model.after_promotion is None:
        return []
    return model.after_promotion.requests(instance, run_key(model.name, entry))


def _tell(
    alerts: AlertResource, model: str, moves: Sequence[MoveEntry], told: int, up_to: int
) -> tuple[int, str]:
    """Tell of moves in order, until one cannot be told or it takes too long; the rest is for the next tick.

    Returns:
        The entry up to which everything was told, and what went wrong.
    """
    deadline = time.monotonic() + ALERT_SECONDS
    for entry, move, end in moves:
        if told < entry.number <= up_to:
            if time.monotonic() > deadline:
                return told, f"The alert address is slow: it was told of moves up to entry {told}."
            try:
                alerts.tell(model, entry, move, end)
            except AlertError as error:
                return told, str(error)
            told = entry.number
    return up_to, ""
