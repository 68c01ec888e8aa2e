"""The sensor that follows moves of the alias `production`: it reports them to Dagster and the alert address.

With a webhook (`ledgerline registry webhook`) the sensors poll at once, and otherwise every few seconds.
polls.py defines when they poll, and their state. staging_sensor.py starts comparisons and promotions.
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
    is_in_progress,
    poll,
    run_key,
)
from ledgerline.dagster.released_models.production import ENTRY, MOVED_AT, materialisation_of, move_key
from ledgerline.registry.history import End, Entry, Move
from ledgerline.registry.moves import UnderWayError
from ledgerline.registry.stages import PRODUCTION

# A run materialises its move at once. If it has not done so within this time, its process has died, whatever
# its status is.
MATERIALISED_WITHIN = timedelta(minutes=10)

# A tick sends alerts for at most this many seconds; Dagster's limit for a tick is 60.
ALERT_SECONDS = 20

PAGE = 500

MoveEntry = tuple[Entry, Move, End]


@dataclass(frozen=True)
class SeenProduction(Seen):
    """The state of `production_changed`.

    Attributes:
        materialised: Last entry up to which each move has a materialisation; None before the first poll.
        alerted: Last entry up to which moves were sent to the alert address.
    """

    materialised: int | None = None
    alerted: int = 0

    @classmethod
    def nothing_of_a_new_model(cls) -> Self:
        """Return the state for a new model: each of its moves is materialised and sent as an alert."""
        return cls(materialised=0)


def production_sensor(model: ReleasedModel) -> dg.SensorDefinition:
    """Make the sensor that materialises moves of the alias, starts what follows a promotion, and alerts."""
    after = model.after_promotion
    follows = f"runs {after.job} again, " if after is not None else ""

    @dg.sensor(
        name=model.names.sensor("production_changed"),
        job_name=after.job if after is not None else None,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"When another version of {model.name} is in production: records it as a materialisation of "
            f"{model.names.production.to_user_string()}, {follows}and alerts the alert address. It does so "
            "also for changes outside Dagster."
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
    """Materialise moves of the alias that no run has materialised, start the runs that follow, and alert."""
    names = model.names
    polled = poll(context, registry, names.model, SeenProduction)
    if polled is None:
        return dg.SkipReason(NOT_YET)
    seen, current = polled
    if not seen.is_to_read(current):
        return dg.SensorResult(skip_reason=NOTHING_NEW, cursor=seen.after(current).cursor)
    try:
        history = registry.model(names.model).reconcile(seen.last_poll(current)).history
    except UnderWayError as error:
        return dg.SkipReason(clean(str(error)))

    seen = seen.within(history)
    moves = history.moves(PRODUCTION)
    new = [each for each in moves if each[0].number > (seen.materialised or 0)]
    # Runs are read before materialisations: a run that ends in between has then materialised its move.
    expected = {
        move_key(entry.number, end.at)
        for entry, move, end in new
        if _will_materialise(context.instance, move, end)
    }
    existing = _materialised(context.instance, names.production) if new else set()
    ready = list(takewhile(lambda each: move_key(each[0].number, each[2].at) not in expected - existing, new))
    events = [
        materialisation_of(names.production, entry)
        for entry, _, end in ready
        if move_key(entry.number, end.at) not in existing
    ]
    is_all = len(ready) == len(new)
    last = ready[-1][0].number if ready else seen.materialised or 0
    up_to = history.head if is_all else last
    requests = []
    alerted, problem = up_to, ""
    if seen.materialised is not None:  # at the first poll, every move is in the past
        if model.after_promotion is not None and ready and is_all:
            key = run_key(model.name, ready[-1][0])
            requests = model.after_promotion.requests(context.instance, key)
        alerted, problem = _alert(alerts, names.model, moves, seen.alerted, up_to)
    has_more = not is_all or alerted < up_to
    after = seen.after_reading(current, history.head, has_more=has_more)
    after = replace(after, seal=history.seal, materialised=up_to, alerted=alerted)
    if problem:
        context.log.warning(problem)
    waiting = "" if is_all else "A run in progress is about to materialise its move."
    reason = problem or waiting or f"{len(events)} moves were materialised."
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else reason,
        asset_events=events,
        cursor=after.cursor,
    )


def _will_materialise(instance: dg.DagsterInstance, move: Move, end: End) -> bool:
    """Return whether the run that moved the alias is in progress, and will therefore materialise it."""
    is_recent = datetime.now(UTC) - end.at <= MATERIALISED_WITHIN
    return bool(move.run_id) and is_recent and is_in_progress(instance, move.run_id)


def _materialised(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[tuple[int, int]]:
    """Return the keys (`move_key`) of the moves that have a materialisation."""
    keys: set[tuple[int, int]] = set()
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(asset, limit=PAGE, cursor=cursor)
        for record in page.records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            if ENTRY in metadata and MOVED_AT in metadata:
                number, at = metadata[ENTRY].value, metadata[MOVED_AT].value
                if isinstance(number, int) and isinstance(at, int | float):
                    keys.add(move_key(number, datetime.fromtimestamp(at, UTC)))
        cursor = page.cursor
        if not page.has_more:
            return keys


def _alert(
    alerts: AlertResource, model: str, moves: Sequence[MoveEntry], alerted: int, up_to: int
) -> tuple[int, str]:
    """Send alerts of moves in order, until one fails or time runs out; the next tick sends the others.

    Returns:
        Last entry up to which alerts were sent, and the problem, if there was one.
    """
    deadline = time.monotonic() + ALERT_SECONDS
    for entry, move, end in moves:
        if alerted < entry.number <= up_to:
            if time.monotonic() > deadline:
                problem = f"The alert address is slow: alerts were sent for moves up to entry {alerted}."
                return alerted, problem
            try:
                alerts.tell(model, entry, move, end)
            except AlertError as error:
                return alerted, str(error)
            alerted = entry.number
    return up_to, ""
