"""Finds the instance that `ledgerline observe` and `trace` read, and the targets that show its runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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

# Folders that say nothing of whose instance it is: the one above is looked at.
UNTELLING = {
    *("dagster", "dagster-home", "dagster_home", "home", "instance", "state", "storage", "data", "config"),
    *("app", "code", "etc", "lib", "local", "mnt", "opt", "private", "root", "srv", "tmp", "usr", "var"),
}
UNNAMED = "dagster"


@dataclass(frozen=True)
class Target:
    """An instance to observe, and the settings of the targets that show it.

    Attributes:
        home: The DAGSTER_HOME of the instance.
        settings: The settings of the targets that show its runs.
        is_own: Whether it is this project's instance.
        only_read: Whether nothing may be written to it.
    """

    home: Path
    settings: Settings
    is_own: bool
    only_read: bool

    @contextmanager
    def opened(self) -> Iterator[ObservedInstance]:
        """Open the instance.

        Raises:
            InstanceError: It cannot be opened.
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
        """Return what shows its runs."""
        if self.is_own:
            return own_observers(console, self.settings, observed.cursor_store)
        return foreign_observers(self.settings, observed.cursor_store)

    def announcement(self, observed: ObservedInstance) -> str:
        """Say what is going to be written, and where; nothing, if a project observes its own instance."""
        if self.is_own and not self.only_read:
            return ""
        shown = (
            f"The runs of {self.home} are shown in the MLflow experiment {self.settings.experiment} and the "
            f"lineage namespace {self.settings.openlineage_namespace} (--experiment, --namespace)."
        )
        if observed.only_read is None:
            return (
                f"{shown}\nWritten to that instance: an event in each run, which links to its trace and its "
                "MLflow run, and how far it has been shown. --read-only writes nothing to it."
            )
        return f"{shown}\nNothing is written to that instance: {observed.only_read}."


def own_target(settings: Settings, *, only_read: bool) -> Target:
    """Return this project's own instance."""
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
    """Return the instance of another project, whose runs are shown apart from those of this one.

    Args:
        home: Its DAGSTER_HOME.
        settings: Those of this project.
        only_read: Whether nothing may be written to it.
        experiment: Where MLflow shows its runs; named after its folder, unless it is given.
        namespace: That of its jobs and datasets in lineage; the same name, unless it is given.
        dagster_url: The address of its Dagster UI, for links, which are left out without it.
    """
    home = home.expanduser().absolute()
    name = telling_name(home)
    shown = replace(
        settings,
        experiment=experiment or name,
        openlineage_namespace=namespace or name,
        links=replace(settings.links, dagster=dagster_url.rstrip("/") if dagster_url else None),
    )
    export_of_other_instance(home, shown.experiment)
    return Target(home, shown, is_own=False, only_read=only_read)


def telling_name(home: Path) -> str:
    """Return a name for the instance in a folder: that of the first folder upwards which says whose it is."""
    for part in reversed(home.parts[1:]):
        name = part.strip(".")
        if name and name.lower() not in UNTELLING:
            return name
    return UNNAMED
