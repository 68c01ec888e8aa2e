"""The resources of this project, by the names of the parameters in its assets."""

from ledgerline.dagster import resources
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import RecordStorage

# Folder next to the tables, for values that steps of a graph pass on within a run.
RUN_RECORDS = ".runs"


def resources_for(settings: Settings) -> dict[str, object]:
    """Return the resources of every job."""
    return {
        **resources.library_resources(settings),
        "run_records": RecordStorage(base=f"{settings.data.rstrip('/')}/{RUN_RECORDS}"),
        "agent": resources.agent(settings),
    }
