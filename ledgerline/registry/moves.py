"""Moves aliases so that the journal records each move, even if a process dies or an alias changes outside.

A move is recorded, carried out, and ended. The next process that reconciles the model finishes a move whose
process died, and records changes that bypassed the journal. promotion.py decides whether a version may be
promoted.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ledgerline.mlflow_store.stored_model import ModelRefusedError
from ledgerline.registry import binding, evidence, stages
from ledgerline.registry.errors import RegistryError
from ledgerline.registry.evidence import EvidenceError
from ledgerline.registry.history import OUTSIDE, End, Entry, History, Move, version_text
from ledgerline.registry.inconsistencies import AliasDifference, differences
from ledgerline.registry.journal import EntryTakenError, Journal
from ledgerline.registry.versions import RegisteredModel, UnknownVersionError

# A move takes well under a second. If it has not ended after this time, its process has died.
UNDER_WAY = timedelta(seconds=60)

UNKNOWN = "unknown"

logger = logging.getLogger(__name__)


class MoveRefusedError(RegistryError):
    """The alias was not moved; the message says why."""


class UnderWayError(MoveRefusedError):
    """Another process is moving an alias of this model at the moment."""

    is_transient = True


@dataclass(frozen=True)
class ReconciledModel:
    """A model whose aliases agreed with its journal when it was read.

    Attributes:
        tagged: Last entry that the tags reflect.
        recorded: Entries that this reconciliation wrote or finished.
    """

    model: RegisteredModel
    journal: Journal
    history: History
    tagged: int = 0
    recorded: Sequence[Entry] = ()


def reconcile(
    model: RegisteredModel, request: str = "", unchanged_until: datetime | None = None
) -> ReconciledModel:
    """Make the journal agree with the aliases: finish an abandoned move, and record changes outside.

    An unfinished move of this request is finished at once; that of another request only when its process must
    have died. `unchanged_until` is the last time at which the aliases were known to agree with the journal.

    Raises:
        UnknownModelError: The model does not exist.
        UnderWayError: Another process is moving an alias at the moment.
        JournalError: The journal cannot be read.
    """
    # This is read before the journal is opened, because an unknown model must not get a journal, and because
    # the journal must contain all entries that are sealed by now.
    alias_state = model.alias_state()
    seal = alias_state.journal_seal
    journal = binding.opened(model, alias_state)
    recorded: list[int] = []
    while True:
        history = journal.read(seal)
        if history.pending is not None:
            _finish(ReconciledModel(model, journal, history), history.pending, request)
            recorded.append(history.pending.number)
            continue
        # The aliases are read after the journal. If an alias moves in between, the number of the next entry
        # is taken, which `_record` detects.
        alias_state = model.alias_state()
        changes = differences(history, alias_state.aliases)
        if not changes:
            entries = [history.entries[number - 1] for number in recorded]
            return show(ReconciledModel(model, journal, history, alias_state.journal_entry, entries))
        recorded += _record(journal, history.head, changes, unchanged_until)


def _record(
    journal: Journal, head: int, changes: Sequence[AliasDifference], unchanged_until: datetime | None
) -> list[int]:
    """Write an entry for each change, until another process writes one; return the numbers of the entries."""
    numbers: list[int] = []
    for number, change in enumerate(changes, head):
        move = Move(
            at=now(),
            alias=change.alias,
            from_version=change.recorded,
            to_version=change.current,
            cause=OUTSIDE,
            by=UNKNOWN,
            reason="changed outside, no evidence",
            not_before=unchanged_until,
        )
        try:
            numbers.append(journal.append(number, move).number)
        except EntryTakenError:
            break
    return numbers


def move(
    reconciled: ReconciledModel,
    wanted: Move,
    require: Callable[[ReconciledModel], None] = lambda reconciled: None,
) -> ReconciledModel:
    """Move an alias to another version, and update the tags; see `carry_out`."""
    return show(carry_out(reconciled, wanted, require))


def carry_out(
    reconciled: ReconciledModel,
    wanted: Move,
    require: Callable[[ReconciledModel], None] = lambda reconciled: None,
) -> ReconciledModel:
    """Record a move in the journal, carry it out, and record its end; `show` writes the tags.

    `require` raises an error if the move must not be made. It is repeated if another process wrote to the
    journal in the meantime.

    Raises:
        MoveRefusedError: The alias does not name the version that the move starts from.
        UnderWayError: Another process is moving an alias at the moment.
        UnknownVersionError: The version does not exist, or was deleted.
    """
    model = reconciled.model
    if reconciled.history.pending is not None:
        reconciled = reconcile(model, wanted.request)
    while True:
        require(reconciled)
        current = reconciled.history.version_with_alias(wanted.alias)
        if current != wanted.from_version:
            raise MoveRefusedError(
                f"{wanted.alias} of {model.name} is now {version_text(current)}, and not "
                f"{version_text(wanted.from_version)}."
            )
        try:
            entry = reconciled.journal.append(reconciled.history.head, wanted)
            break
        except EntryTakenError:
            reconciled = reconcile(model, wanted.request)
    model.set_alias(wanted.alias, wanted.to_version)
    reconciled.journal.end(entry.number, End(now(), moved=True))
    # The model is not reconciled here: if another process is moving an alias by now, this move is still done.
    return replace(reconciled, history=reconciled.journal.read())


def _finish(reconciled: ReconciledModel, entry: Entry, request: str) -> None:
    """Finish a move whose process may have died at any point."""
    model, started = reconciled.model, entry.record
    assert isinstance(started, Move)  # noqa: S101 (only moves are pending)
    if started.request != request and now() - started.at < UNDER_WAY:
        raise UnderWayError(
            f"{started.by} is moving {started.alias} of {model.name} to {version_text(started.to_version)} "
            f"since {started.at:%Y-%m-%d %H:%M:%S} UTC.",
            "Try again when this move has ended.",
        )
    current = model.alias_state().aliases.get(started.alias)
    moved = current == started.to_version
    if current == started.from_version:
        try:
            require_as_evaluated(reconciled, started)
            model.set_alias(started.alias, started.to_version)
            moved = True
        except (UnknownVersionError, MoveRefusedError) as error:
            # The version was deleted in the meantime, or its files are not those that were evaluated.
            logger.warning("An unfinished move is abandoned: %s", error)
            moved = False
    reconciled.journal.end(entry.number, End(now(), moved))


def require_as_evaluated(reconciled: ReconciledModel, wanted: Move) -> None:
    """Require that the files of a version are those that were evaluated: their hash is in its evidence.

    A version that was never evaluated, such as one that was put into production manually, has no evidence to
    compare with. For production, the files must also be those that were registered.

    Raises:
        MoveRefusedError: The files differ, or the evidence cannot be read.
        UnknownVersionError: The version was deleted.
    """
    if wanted.to_version is None:
        return
    model = reconciled.model
    version = model.version(wanted.to_version)
    evaluation = reconciled.history.evaluation(version.number)
    try:
        if evaluation is not None:
            evidence.require_same_files(version, evidence.document(model, evaluation))
        if wanted.alias == stages.PRODUCTION:
            with model.verified_files(version):
                pass
    except (EvidenceError, ModelRefusedError) as error:
        raise MoveRefusedError(error.problem, error.remedy) from error


def show(reconciled: ReconciledModel) -> ReconciledModel:
    """Write tags for the entries that they do not reflect yet; return the model with the last such entry."""
    history, done = reconciled.history, reconciled.tagged
    while done < _last_ended(history):
        done = _last_ended(history)
        _write_tags(reconciled.model, history, reconciled.tagged, done)
        # If this process is slow, it may have overwritten newer tags. It then writes them again.
        history = reconciled.journal.read()
    return replace(reconciled, tagged=done)


def _last_ended(history: History) -> int:
    """Return the number of the last entry, or of the one before a move that is in progress."""
    return history.head if history.pending is None else history.pending.number - 1


def _write_tags(model: RegisteredModel, history: History, tagged: int, head: int) -> None:
    tags_by_version: dict[int, dict[str, str | None]] = {}
    for entry in history.entries[tagged:head]:
        if isinstance(entry.record, Move) and entry.end is not None and entry.end.moved:
            for version, tags in _tags(history, entry.record, entry.end).items():
                tags_by_version.setdefault(version, {}).update(tags)
    for version, tags in tags_by_version.items():
        try:
            model.set_version_tags(version, tags)
        except UnknownVersionError:
            continue  # it was deleted, and its tags with it
    model.set_tags({stages.SEAL_TAG: history.entries[head - 1].seal, stages.JOURNAL_TAG: str(head)})


def _tags(history: History, done: Move, end: End) -> dict[int, dict[str, str | None]]:
    """Return tags by version; a tag that is None is deleted."""
    at = end.at.isoformat(timespec="milliseconds")
    tags: dict[int, dict[str, str | None]] = {}
    for version in (done.from_version, done.to_version):
        if version is not None:
            stage = history.stage_of(version)
            tags[version] = {
                stages.STAGE_TAG: stage,
                stages.ARCHIVED_AT_TAG: at if stage == stages.ARCHIVED else None,
            }
    if done.alias == stages.PRODUCTION and done.to_version is not None:
        tags[done.to_version] |= {
            stages.PROMOTED_AT_TAG: at,
            stages.PROMOTED_BY_TAG: done.by,
            stages.PROMOTED_FROM_TAG: str(done.from_version) if done.from_version is not None else None,
        }
    return tags


def now() -> datetime:
    """Return the current time, as entries record it."""
    return datetime.now(UTC)
