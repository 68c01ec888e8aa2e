"""Adds the observer to any Dagster project: the resource that exports runs, and a sensor for each projection.

The sensors do the same as `ledgerline observe --follow`, which a deployment may run as a service instead, and
are a few seconds behind the event log.
"""

from collections.abc import Callable, Sequence

import dagster as dg

from ledgerline.dagster import resources
from ledgerline.dagster.projections import RunProjections
from ledgerline.dagster.settings import Settings
from ledgerline.errors import LedgerlineError
from ledgerline.ledger.given_by_users import owners_in
from ledgerline.ledger.observer import Observer
from ledgerline.ledger.projection import Projection

# Dagster's daemon checks every 5 s which sensors are due. A sensor with an interval of 5 s would often miss
# its check by a moment, and run only every other time.
INTERVAL_SECONDS = 3
BUDGET_SECONDS = 30.0  # for each tick; Dagster's limit is 60


class RunsNotExportedError(LedgerlineError):
    """A projection could not export some runs, although its target is available. They are retried."""


# The histories of runs in progress stay in memory between ticks. A new process reads them again.
_observers: dict[tuple[str, str], Observer] = {}


def observed(settings: Settings | None = None) -> dg.Definitions:
    """Return the definitions of the observer, to be merged with those of a project.

    Args:
        settings: Settings of the observer and its targets; default: read from the environment.

    Example:
        >>> @dg.asset
        ... def bread() -> None: ...
        >>> settings = Settings.from_environment({})
        >>> defs = dg.Definitions.merge(dg.Definitions(assets=[bread]), observed(settings))
        >>> [sensor.name for sensor in defs.sensors or ()]
        ['trace_runs', 'track_runs']
    """
    settings = settings if settings is not None else Settings.from_environment()
    return dg.Definitions(
        sensors=observers(
            running=settings.observer == "sensors", send_lineage=settings.openlineage_url is not None
        ),
        resources={"projections": resources.projections(settings)},
    )


def observers(*, running: bool, send_lineage: bool) -> Sequence[dg.SensorDefinition]:
    """Return a sensor for each projection; the one for lineage events needs an endpoint for them.

    The sensors run by default if `running` is true; the UI can start and stop them.
    """
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED

    def sensor(tick: Callable[..., dg.SkipReason]) -> dg.SensorDefinition:
        make = dg.sensor(
            minimum_interval_seconds=INTERVAL_SECONDS,
            default_status=status,
            description=tick.__doc__,  # Dagster does not use the docstring of a sensor
        )
        return make(tick)

    @sensor
    def trace_runs(context: dg.SensorEvaluationContext, projections: RunProjections) -> dg.SkipReason:
        """Export every run as one OpenTelemetry trace, with each step within seconds after its end."""
        return _tick(context, "traces", projections.traces)

    @sensor
    def track_runs(context: dg.SensorEvaluationContext, projections: RunProjections) -> dg.SkipReason:
        """Export every run as one MLflow run with status, durations and lineage, above its training runs."""
        return _tick(context, "mlflow", projections.mlflow_runs)

    @sensor
    def send_lineage_of_runs(
        context: dg.SensorEvaluationContext, projections: RunProjections
    ) -> dg.SkipReason:
        """Export every run as OpenLineage events to OPENLINEAGE_URL."""
        return _tick(context, "openlineage", projections.lineage)

    return [trace_runs, track_runs, *([send_lineage_of_runs] if send_lineage else [])]


def _tick(
    context: dg.SensorEvaluationContext, name: str, make: Callable[[], Projection | None]
) -> dg.SkipReason:
    key = context.instance.root_directory, name
    if key not in _observers:
        projection = make()
        if projection is None:
            return dg.SkipReason("The settings disable this projection.")
        definitions = context.repository_def
        owners = owners_in(definitions) if definitions is not None else None
        _observers[key] = Observer(projection, owners=owners)
    report = _observers[key].tick(context.instance, BUDGET_SECONDS)
    if report.failures:
        raise RunsNotExportedError(str(report)) from next(iter(report.failures.values()))
    return dg.SkipReason(str(report))
