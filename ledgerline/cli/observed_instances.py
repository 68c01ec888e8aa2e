"""Finds the instance that `ledgerline observe` and `trace` read, and the targets of its runs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ledgerline.cli.observing import observers_of, owners_of
from ledgerline.dagster.settings import Settings, export_of_other_instance
from ledgerline.ledger.observer import Observer
from ledgerline.ledger.storages.instances import (
    ObservedInstance,
    foreign_instance,
    only_read_instance,
    own_instance,
)

# Names of folders that do not identify an instance. The name of a parent folder is used instead.
GENERIC_NAMES = {
    *("dagster", "dagster-home", "dagster_home", "home", "instance", "state", "storage", "data", "config"),
    *("app", "code", "etc", "lib", "local", "mnt", "opt", "private", "root", "srv", "tmp", "usr", "var"),
}
UNNAMED = "dagster"


@dataclass(frozen=True)
class Target:
    """An instance to observe, and the settings of the targets for its runs."""

    home: Path  # DAGSTER_HOME of the instance
    settings: Settings
    is_own: bool  # it is the instance of this project
    only_read: bool  # nothing may be written to it

    def opened(self) -> AbstractContextManager[ObservedInstance]:
        """Open the instance.

        Raises:
            InstanceError: The instance cannot be opened.
        """
        cursors = self.settings.home / "observed"
        if self.only_read:
            return only_read_instance(self.home, cursors)
        return own_instance(self.home) if self.is_own else foreign_instance(self.home, cursors)

    def observers(self, console: Console, observed: ObservedInstance) -> Sequence[Observer]:
        """Return the observers of its runs."""
        owners = owners_of(console, self.settings.project) if self.is_own else {}
        return observers_of(self.settings, observed.cursor_store, owners)

    def announcement(self, observed: ObservedInstance) -> str:
        """Return a text about what is written and where; empty if a project observes its own instance."""
        if self.is_own and not self.only_read:
            return ""
        targets = (
            f"The runs of {self.home} are exported to the MLflow experiment {self.settings.experiment} and "
            f"the lineage namespace {self.settings.openlineage_namespace} (--experiment, --namespace)."
        )
        if observed.only_read is None:
            return (
                f"{targets}\nTwo things are written to that instance: an event in each run, which links to "
                "its trace and its MLflow run, and the position of the export. --read-only writes nothing to "
                "it."
            )
        return f"{targets}\nNothing is written to that instance: {observed.only_read}."


def target_of(
    home: Path | None,
    settings: Settings,
    *,
    only_read: bool,
    experiment: str | None = None,
    namespace: str | None = None,
    dagster_url: str | None = None,
) -> Target:
    """Return an instance to observe; the runs of another project are exported separately.

    Args:
        home: DAGSTER_HOME of another project; None for the instance of this one.
        settings: Settings of this project.
        only_read: True if nothing may be written to the instance.
        experiment: MLflow experiment for the runs of another project; None for the name of its folder.
        namespace: OpenLineage namespace of its jobs and datasets; None for the same name.
        dagster_url: URL of its Dagster UI, for links; None for no links.
    """
    if home is None:
        return Target(settings.dagster_home, settings, is_own=True, only_read=only_read)
    home = home.expanduser().absolute()
    name = telling_name(home)
    changes = {
        "experiment": experiment or name,
        "openlineage_namespace": namespace or name,
        "dagster_url": dagster_url,
    }
    adapted = settings.model_copy(update=changes)
    export_of_other_instance(home, adapted.experiment)
    return Target(home, adapted, is_own=False, only_read=only_read)


def telling_name(home: Path) -> str:
    """Return a name for the instance in a folder: that of the folder, or of a parent with a specific name."""
    for part in reversed(home.parts[1:]):
        name = part.strip(".")
        if name and name.lower() not in GENERIC_NAMES:
            return name
    return UNNAMED
