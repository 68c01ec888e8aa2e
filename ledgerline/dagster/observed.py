"""Adds the observer to any Dagster project: its sensors and the resource that they use."""

import dagster as dg

from ledgerline.dagster import resources
from ledgerline.dagster.observers import observers
from ledgerline.dagster.settings import Settings


def observed(settings: Settings | None = None) -> dg.Definitions:
    """Return the definitions of the observer, to be merged with those of a project.

    Args:
        settings: Where runs are shown; default: as the environment says.
    """
    settings = settings if settings is not None else Settings.from_environment()
    return dg.Definitions(
        sensors=observers(
            running=settings.observer == "sensors", send_lineage=settings.openlineage_url is not None
        ),
        resources={"projections": resources.projections(settings)},
    )
