"""The resources of this project, by the names that its assets ask for."""

from ledgerline.dagster import resources
from ledgerline.dagster.request_log import RequestLogResource
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import RecordStorage, TableStorage

# Folder beside the tables for what the steps of a graph hand on within a run.
RUN_RECORDS = ".runs"


def resources_for(settings: Settings) -> dict[str, object]:
    """Return the resources of every job."""
    return {
        "tables": TableStorage(base=settings.data),
        "records": RecordStorage(base=settings.data),
        "run_records": RecordStorage(base=f"{settings.data.rstrip('/')}/{RUN_RECORDS}"),
        "mlflow": resources.mlflow(settings),
        "otel": resources.otel(settings),
        "projections": resources.projections(settings),
        "registry": resources.registry(settings),
        "request_log": RequestLogResource(folder=settings.request_log),
        "agent": resources.agent(settings),
        "alerts": resources.alerts(settings),
    }
