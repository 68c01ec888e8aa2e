"""Compares the aliases and tags of a model with its journal. It only reads; moves.py records differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledgerline.registry.binding import journal_of
from ledgerline.registry.history import History, version_text
from ledgerline.registry.journal import JournalError
from ledgerline.registry.stages import ALIASES, STAGE_TAG, AliasState
from ledgerline.registry.versions import RegisteredModel


@dataclass(frozen=True)
class AliasDifference:
    """An alias that names another version than the journal records; None if it names none."""

    alias: str
    current: int | None
    recorded: int | None

    def __str__(self) -> str:
        """Return the difference as a clause of a sentence."""
        return f"{self.alias} is {version_text(self.current)}, the journal says {version_text(self.recorded)}"


@dataclass(frozen=True)
class Snapshot:
    """The aliases and the journal of a model, as they were read; the history is empty without a journal."""

    alias_state: AliasState
    history: History
    has_journal: bool

    @property
    def differences(self) -> Sequence[AliasDifference]:
        """The aliases that were changed outside the journal; empty while a move is in progress."""
        return [] if self.history.pending else differences(self.history, self.alias_state.aliases)


def snapshot(model: RegisteredModel) -> Snapshot:
    """Read the aliases and the journal of a model; nothing is written.

    Raises:
        UnknownModelError: The model does not exist.
        JournalError: The journal cannot be read.
    """
    alias_state = model.alias_state()
    while True:
        journal = journal_of(model, alias_state)
        history = journal.read(alias_state.journal_seal) if journal is not None else History([])
        before, alias_state = alias_state, model.alias_state()
        # Otherwise an alias was moved while the journal was read, and would appear as a difference.
        if before == alias_state:
            return Snapshot(alias_state, history, journal is not None)


def differences(history: History, aliases: Mapping[str, int]) -> list[AliasDifference]:
    """Return the aliases that name a version other than the one in the journal."""
    pairs = [(alias, aliases.get(alias), history.version_with_alias(alias)) for alias in ALIASES]
    return [AliasDifference(*pair) for pair in pairs if pair[1] != pair[2]]


def inconsistencies(model: RegisteredModel) -> list[str]:
    """Return how aliases and tags contradict the journal, as clauses; empty if they agree, and during a move.

    Raises:
        UnknownModelError: The model does not exist.
    """
    try:
        current = snapshot(model)
    except JournalError as error:
        return [str(error)]
    aliases, history = current.alias_state.aliases, current.history
    if not current.has_journal:
        return [
            f"{each.alias} is {version_text(each.current)}; there is no journal"
            for each in current.differences
        ]
    if history.pending is not None:
        return []
    versions = {version.number: version for version in model.versions()}
    texts = [str(difference) for difference in current.differences]
    texts += [
        f"{alias} is version {aliases[alias]}, which was deleted"
        for alias in ALIASES
        if alias in aliases and aliases[alias] not in versions
    ]
    for number, version in versions.items():
        tagged, stage = version.tags.get(STAGE_TAG), history.stage_of(number)
        if tagged != stage:
            texts.append(f"version {number} has the tag {STAGE_TAG}={tagged}, the journal says {stage}")
    return texts
