"""Finds the instance that `ledgerline observe` and `trace` read, and the targets of its runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ledgerline.cli.observing import foreign_observers, own_observers
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
    """An instance to observe, and the settings of the targets for its runs.

    Attributes:
        home: DAGSTER_HOME of the instance.
        settings: Settings of the targets.
        is_own: True for the instance of this project.
        only_read: True if nothing may be written to the instance.
    """

    home: Path
    settings: Settings
    is_own: bool
    only_read: bool

    @contextmanager
    def opened(self) -> Iterator[ObservedInstance]:
        """Open the instance.

        Raises:
            InstanceError: The instance cannot be opened.
        """
        cursors = self.settings.home / "observed"
        if self.only_read:
            opening = only_read_instance(self.home, cursors)
        elif self.is_own:
            opening = own_instance(self.home)
        else:
            opening = foreign_instance(self.home, cursors)
        with opening as observed:
            yield observed

    def observers(self, console: Console, observed: ObservedInstance) -> Sequence[Observer]:
        """Return the observers of its runs."""
        if self.is_own:
            return own_observers(console, self.settings, observed.cursor_store)
        return foreign_observers(self.settings, observed.cursor_store)

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


def own_target(settings: Settings, *, only_read: bool) -> Target:
    """Return the instance of this project as a target."""
    return Target(settings.dagster_home, settings, is_own=True, only_read=only_read)


def foreign_target(
    home: Path,
    settings: Settings,
    *,
    only_read: bool,
    experiment: str | None = None,
    namespace: str | None = None,
    dagster_url: str | None = None,
) -> Target:
    """Return the instance of another project, whose runs are exported separately from those of this one.

    Args:
        home: DAGSTER_HOME of the instance.
        settings: Settings of this project.
        only_read: True if nothing may be written to the instance.
        experiment: MLflow experiment for its runs; None for the name of its folder.
        namespace: OpenLineage namespace of its jobs and datasets; None for the same name.
        dagster_url: URL of its Dagster UI, for links; None for no links.
    """
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
