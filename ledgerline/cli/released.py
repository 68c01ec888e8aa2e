"""Finds the released model that a command names."""

from ledgerline.cli.loaded_project import LoadedProject
from ledgerline.cli.partition_keys import understood
from ledgerline.dagster.released_models.names import ReleaseNames, released_models
from ledgerline.errors import LedgerlineError

HOW = "Declare it as a ReleasedModel, and merge released(it) with the definitions"


class ReleasedModelError(LedgerlineError):
    """The definitions do not release a model, or release several models and no model is named."""


def released_model(loaded: LoadedProject, given: str | None) -> ReleaseNames:
    """Return the names of a model, or of the only one, and of the definitions that release it.

    Raises:
        ReleasedModelError: The definitions do not release the model, or release several.
    """
    models = released_models(loaded.defs)
    if given is None:
        return models[the_only_one(loaded)]
    if given in models:
        return models[given]
    others = f" They release {', '.join(models)}." if models else ""
    raise ReleasedModelError(
        f"No job compares or promotes {given!r}, because the definitions do not release it.{others}",
        f"{HOW} in {loaded.project.module}. The commands registry show, history, approve and rollback need "
        "no job.",
    )


def the_only_one(loaded: LoadedProject) -> str:
    """Return the name of the only released model.

    Raises:
        ReleasedModelError: The definitions release no model, or several.
    """
    models = list(released_models(loaded.defs))
    if len(models) == 1:
        return models[0]
    if models:
        raise ReleasedModelError("The definitions release several models.", f"Name one: {', '.join(models)}.")
    raise ReleasedModelError(
        f"{loaded.project.module} releases no model.",
        "Name a registered model; `ledgerline registry list` lists them.",
    )


def partition_of_versions(loaded: LoadedProject, names: ReleaseNames, text: str) -> str:
    """Return the partition of the versions' asset that a text names.

    Raises:
        ReleasedModelError: The versions have no partitions.
        PartitionError: The partition does not exist.
    """
    definition = loaded.defs.resolve_asset_graph().get(names.versions).partitions_def
    if definition is None:
        raise ReleasedModelError(
            f"Versions of {names.model} have no partitions.", "Run the command without --partition."
        )
    return understood(definition, text, names.versions.to_user_string())
