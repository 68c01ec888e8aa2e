"""Sensors that show runs elsewhere: each drives one projection, a few seconds behind the event log.

They do what `ledgerline observe --follow` does, which a deployment may run as a service instead.
"""

from collections.abc import Callable, Sequence

import dagster as dg

from ledgerline.dagster.projections import RunProjections
from ledgerline.ledger.observer import Observer
from ledgerline.ledger.owners import owners_in
from ledgerline.ledger.projection import Projection

# Dagster's daemon looks every 5 s which sensors are due. One with an interval of 5 s is often a moment too
# early, and so every other time.
INTERVAL_SECONDS = 3
BUDGET_SECONDS = 30.0  # of one tick; Dagster gives a sensor 60


class RunsNotExportedError(Exception):
    """Runs that a projection could not show for a reason of their own; they are tried again."""


# What was read of runs under way stays here between ticks; lost with the process, it is read again.
_observers: dict[tuple[str, str], Observer] = {}


def observers(*, running: bool, send_lineage: bool) -> Sequence[dg.SensorDefinition]:
    """The sensors.

    Args:
        running: Whether they are on until somebody turns them off in the UI.
        send_lineage: Whether lineage events have an address to go to.
    """
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED

    def sensor(tick: Callable[..., dg.SkipReason]) -> dg.SensorDefinition:
        make = dg.sensor(
            minimum_interval_seconds=INTERVAL_SECONDS,
            default_status=status,
            description=tick.__doc__,  # of a sensor Dagster does not take it by itself
        )
        return make(tick)

    @sensor
    def trace_runs(context: dg.SensorEvaluationContext, projections: RunProjections) -> dg.SkipReason:
        """Send every run as one trace (OpenTelemetry), each step within seconds after it ended."""
        return _tick(context, "traces", projections.traces)

    @sensor
    def track_runs(context: dg.SensorEvaluationContext, projections: RunProjections) -> dg.SkipReason:
        """Keep an MLflow run for every run: status, timings, inputs, lineage, and its training runs below."""
        return _tick(context, "mlflow", projections.mlflow_runs)

    @sensor
    def send_lineage_of_runs(
        context: dg.SensorEvaluationContext, projections: RunProjections
    ) -> dg.SkipReason:
        """Send OpenLineage events of every run to OPENLINEAGE_URL."""
        return _tick(context, "openlineage", projections.lineage)

    return [trace_runs, track_runs, *([send_lineage_of_runs] if send_lineage else [])]


def _tick(
    context: dg.SensorEvaluationContext, name: str, make: Callable[[], Projection | None]
) -> dg.SkipReason:
    key = context.instance.root_directory, name
    if key not in _observers:
        projection = make()
        if projection is None:
            return dg.SkipReason("Switched off by the settings.")
        definitions = context.repository_def
        owners = owners_in(definitions) if definitions is not None else None
        _observers[key] = Observer(projection, owners=owners)
    report = _observers[key].tick(context.instance, BUDGET_SECONDS)
    if report.failures:
        raise RunsNotExportedError(str(report)) from next(iter(report.failures.values()))
    return dg.SkipReason(str(report))
