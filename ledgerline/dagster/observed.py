"""Adds the observer to any Dagster project: its sensors and the resource that they use."""

import dagster as dg

from ledgerline.dagster import resources
from ledgerline.dagster.observers import observers
from ledgerline.dagster.settings import Settings


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
