"""Loads the definitions of the project, and finds jobs in them."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import dagster as dg

from ledgerline.settings.project import Project

ATTRIBUTE = "defs"
IMPLICIT = "__ASSET_JOB"  # Dagster's own job of all assets


class DefinitionsError(Exception):
    """The definitions of the project cannot be loaded; the message says why."""


class UnknownJobError(Exception):
    """A job that does not exist; the message says which do."""


@dataclass(frozen=True)
class LoadedProject:
    """A project with its definitions.

    Attributes:
        project: The project.
        defs: Its definitions.
    """

    project: Project
    defs: dg.Definitions

    @property
    def job_names(self) -> Sequence[str]:
        """The names of the jobs that it defines."""
        names = self.defs.get_repository_def().job_names
        return sorted(name for name in names if not name.startswith(IMPLICIT))

    def job(self, name: str) -> dg.JobDefinition:
        """Return a job.

        Raises:
            UnknownJobError: There is no such job.
        """
        names = self.job_names
        if name in names:
            return self.defs.resolve_job_def(name)
        if not names:
            raise UnknownJobError(f"There is no job {name!r}: {self.project.module} defines no jobs.")
        near = get_close_matches(name, names, n=1)
        hint = f" The nearest is {near[0]}." if near else ""
        raise UnknownJobError(f"There is no job {name!r}: choose one of {', '.join(names)}.{hint}")


def load(project: Project) -> LoadedProject:
    """Import the module with the definitions.

    Raises:
        ProjectError: The project names no module.
        DefinitionsError: The module cannot be imported, or has no definitions.
    """
    name, root = project.module, str(project.root)
    if root not in sys.path:
        sys.path.insert(0, root)  # the script's own folder is there, and not the working folder
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise DefinitionsError(
            f"{name}, which the definitions of {project.root} are in, cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    found = getattr(module, ATTRIBUTE, None)
    if not isinstance(found, dg.Definitions):
        raise DefinitionsError(
            f"{name} has no definitions: assign a dagster.Definitions to {ATTRIBUTE!r} in it."
        )
    return LoadedProject(project, found)
