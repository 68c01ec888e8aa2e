"""Loads the definitions of the project and finds jobs in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import dagster as dg

from ledgerline.errors import LedgerlineError
from ledgerline.settings.project import Project

ATTRIBUTE = "defs"
IMPLICIT = "__ASSET_JOB"  # Dagster's own job of all assets


class DefinitionsError(LedgerlineError):
    """The definitions of the project cannot be loaded."""


class UnknownJobError(LedgerlineError):
    """A job does not exist."""


@dataclass(frozen=True)
class LoadedProject:
    """A project with its Dagster definitions."""

    project: Project
    defs: dg.Definitions

    @property
    def job_names(self) -> Sequence[str]:
        """Names of the jobs that it defines, sorted."""
        names = self.defs.get_repository_def().job_names
        return sorted(name for name in names if not name.startswith(IMPLICIT))

    def job(self, name: str) -> dg.JobDefinition:
        """Return the job of this name.

        Raises:
            UnknownJobError: The job does not exist.
        """
        names = self.job_names
        if name in names:
            return self.defs.resolve_job_def(name)
        if not names:
            raise UnknownJobError(
                f"There is no job {name!r}, because {self.project.module} defines no jobs.",
                f"Define one in {self.project.module}.",
            )
        near = get_close_matches(name, names, n=1)
        hint = f" The nearest is {near[0]}." if near else ""
        raise UnknownJobError(f"There is no job {name!r}.", f"Choose one of {', '.join(names)}.{hint}")


def load(project: Project) -> LoadedProject:
    """Import the module with the definitions.

    Raises:
        ProjectError: The project names no module.
        DefinitionsError: The module cannot be imported or has no definitions.
    """
    name = project.module
    try:
        module = project.imported(name)
    except Exception as error:
        raise DefinitionsError(
            f"{name}, the module with the definitions of {project.root}, cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    defs = getattr(module, ATTRIBUTE, None)
    if not isinstance(defs, dg.Definitions):
        raise DefinitionsError(
            f"{name} has no definitions.", f"Assign a dagster.Definitions to {ATTRIBUTE!r} in it."
        )
    return LoadedProject(project, defs)
