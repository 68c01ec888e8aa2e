"""Where the aliases and tags of a model say something else than its journal. Nothing is mended here."""

from typing import TYPE_CHECKING

from ledgerline.registry import versions
from ledgerline.registry.binding import journal_of
from ledgerline.registry.journal import JournalError
from ledgerline.registry.moves import stage_of
from ledgerline.registry.stages import ALIASES, STAGE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient


def inconsistencies(client: "MlflowClient", name: str) -> list[str]:
    """What does not agree, as sentences; empty when all does, and while an alias is being moved.

    Raises:
        UnknownModelError: There is no such model.
    """
    alias_state = versions.alias_state(client, name)
    aliases = alias_state.aliases
    try:
        journal = journal_of(client, name, alias_state)
        history = journal.read(alias_state.journal_seal) if journal is not None else None
    except JournalError as error:
        return [str(error)]
    if history is None:
        return [
            f"{alias} is version {aliases[alias]}; there is no journal"
            for alias in ALIASES
            if alias in aliases
        ]
    if history.pending is not None:
        return []
    known = {version.number: version for version in versions.versions(client, name)}
    found = []
    for alias in ALIASES:
        held, written = aliases.get(alias), history.holder(alias)
        if held != written:
            found.append(f"{alias} is {_name(held)}, the journal says {_name(written)}")
        if held is not None and held not in known:
            found.append(f"{alias} is version {held}, which was deleted")
    for number, version in known.items():
        tagged, stage = version.tags.get(STAGE_TAG), stage_of(history, number)
        if tagged != stage:
            found.append(f"version {number} has the tag {STAGE_TAG}={tagged}, the journal says {stage}")
    return found


def _name(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
