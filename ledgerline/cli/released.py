"""Finds the released model that a command is about."""

from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import understood
from ledgerline.dagster.released_models.names import ReleaseNames, released_models

HOW = "Declare it as a ReleasedModel, and merge released(it) with the definitions"


class ReleasedModelError(Exception):
    """A model that the definitions do not release, or one of several that is not named."""


def released_model(loaded: LoadedProject, given: str | None) -> ReleaseNames:
    """Return the names of what releases a model.

    Args:
        loaded: The project.
        given: The model; None: the only one that the definitions release.

    Raises:
        ReleasedModelError: There is no such model, or there are several.
    """
    models = released_models(loaded.defs)
    if given is None:
        return models[the_only_one(loaded)]
    if given in models:
        return models[given]
    others = f" Released are: {', '.join(models)}." if models else ""
    raise ReleasedModelError(
        f"No job compares or promotes {given!r}. {HOW} in {loaded.project.module}.{others} What "
        "needs no job: registry show, history, approve and rollback."
    )


def the_only_one(loaded: LoadedProject) -> str:
    """Return the name of the only released model.

    Raises:
        ReleasedModelError: There is none, or there are several.
    """
    models = list(released_models(loaded.defs))
    if len(models) == 1:
        return models[0]
    if models:
        raise ReleasedModelError(f"Say which model is meant: {', '.join(models)}.")
    raise ReleasedModelError(
        f"Say which model is meant: {loaded.project.module} releases none. `ledgerline registry list` shows "
        "those that are registered."
    )


def partition_of_versions(loaded: LoadedProject, names: ReleaseNames, text: str) -> str:
    """Return the partition that versions of a model are made in, as a person types it.

    Raises:
        ReleasedModelError: Its versions have no partitions.
        PartitionError: There is no such partition.
    """
    definition = loaded.defs.resolve_asset_graph().get(names.versions).partitions_def
    if definition is None:
        raise ReleasedModelError(f"Versions of {names.model} are made without partitions: name none.")
    return understood(definition, text, names.versions.to_user_string())
