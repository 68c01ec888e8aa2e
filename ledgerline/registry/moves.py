"""Moving an alias so that the journal says what happened, whoever else moves it and wherever a process dies.

A move is written down, carried out, and ended. Whoever comes next finishes a move whose process died, and
writes down what somebody moved without the journal. Whether a version may be promoted: promotion.py.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from ledgerline.mlflow_store.stored_model import ModelRefusedError
from ledgerline.registry import binding, evidence, versions
from ledgerline.registry.evidence import EvidenceError
from ledgerline.registry.history import OUTSIDE, PROMOTION, End, Entry, History, Move
from ledgerline.registry.journal import EntryTakenError, Journal
from ledgerline.registry.stages import (
    ALIASES,
    ARCHIVED,
    ARCHIVED_AT_TAG,
    JOURNAL_TAG,
    PRODUCTION,
    PROMOTED_AT_TAG,
    PROMOTED_BY_TAG,
    PROMOTED_FROM_TAG,
    SEAL_TAG,
    STAGE_TAG,
    STAGING,
)
from ledgerline.registry.versions import UnknownVersionError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A move takes well under a second. One that has not ended after this has lost its process.
UNDER_WAY = timedelta(seconds=60)

UNKNOWN = "unknown"

logger = logging.getLogger(__name__)


class MoveRefusedError(Exception):
    """The alias was not moved; the message says why."""


class UnderWayError(MoveRefusedError):
    """Another process is moving an alias of this model just now."""


@dataclass(frozen=True)
class Model:
    """A registered model with its journal, at one moment.

    Attributes:
        client: An open MLflow client.
        name: The registered model.
        journal: Its journal.
        history: What is in the journal; it and the aliases agreed when this was made.
    """

    client: "MlflowClient"
    name: str
    journal: Journal
    history: History


def settled(
    client: "MlflowClient", name: str, request: str = "", unchanged_until: datetime | None = None
) -> Model:
    """A model whose journal agrees with its aliases: what was left undone is finished, news are noted.

    Args:
        client: An open MLflow client.
        name: The registered model.
        request: Who asks: a move that the same request left unfinished is finished at once, and anybody
            else's only when its process must have died.
        unchanged_until: When the aliases were last seen as the journal has them, if that is known.

    Raises:
        UnknownModelError: There is no such model.
        UnderWayError: Another process is moving an alias just now.
        JournalError: The journal cannot be read.
    """
    # Before the journal: an unknown model must not get one, and what is sealed by now must be in it.
    alias_state = versions.alias_state(client, name)
    seal = alias_state.journal_seal
    journal = binding.opened(client, name, alias_state)
    while True:
        history = journal.read(seal)
        if history.pending is not None:
            _finish(Model(client, name, journal, history), history.pending, request)
            continue
        # After the journal, so that a move that came between shows as an entry that is taken.
        held = versions.alias_state(client, name).aliases
        strange = [alias for alias in ALIASES if held.get(alias) != history.holder(alias)]
        if not strange:
            model = Model(client, name, journal, history)
            show(model)
            return model
        for alias in strange:
            noticed = Move(
                at=_now(),
                alias=alias,
                from_version=history.holder(alias),
                to_version=held.get(alias),
                cause=OUTSIDE,
                by=UNKNOWN,
                reason="changed outside, no evidence",
                not_before=unchanged_until,
            )
            try:
                entry = journal.append(history.head, noticed)
            except EntryTakenError:
                break
            history = History([*history.entries, entry])


def move(model: Model, wanted: Move, require: Callable[[Model], None] = lambda model: None) -> Model:
    """Move an alias to another version.

    Args:
        model: Where it is now.
        wanted: What is to be done.
        require: Raises if the move must not be made; is asked again when something was written meanwhile.

    Raises:
        MoveRefusedError: Somebody else was quicker, or the alias is not where the move starts from.
        UnderWayError: Another process is moving an alias just now.
    """
    if model.history.pending is not None:
        model = settled(model.client, model.name, wanted.request)
    while True:
        require(model)
        held = model.history.holder(wanted.alias)
        if held != wanted.from_version:
            raise MoveRefusedError(
                f"{wanted.alias} of {model.name} is {_name(held)} by now, and not "
                f"{_name(wanted.from_version)}."
            )
        try:
            entry = model.journal.append(model.history.head, wanted)
            break
        except EntryTakenError:
            model = settled(model.client, model.name, wanted.request)
    _carry_out(model.client, model.name, wanted)
    model.journal.end(entry.number, End(_now(), moved=True))
    # Not settled: somebody else may be moving an alias by now, which does not undo this.
    model = replace(model, history=model.journal.read())
    show(model)
    return model


def _finish(model: Model, entry: Entry, request: str) -> None:
    """Bring a move to its end whose process may have died at any point."""
    client, name, started = model.client, model.name, entry.what
    assert isinstance(started, Move)  # noqa: S101 (only moves are pending)
    if started.request != request and _now() - started.at < UNDER_WAY:
        raise UnderWayError(
            f"{started.by} is moving {started.alias} of {name} to {_name(started.to_version)} since "
            f"{started.at:%Y-%m-%d %H:%M:%S} UTC. Try again when that has ended."
        )
    held = versions.alias_state(client, name).aliases.get(started.alias)
    moved = held == started.to_version
    if held == started.from_version:
        try:
            require_as_evaluated(model, started)
            _carry_out(client, name, started)
            moved = True
        except (UnknownVersionError, MoveRefusedError) as error:
            # Deleted meanwhile, or another version than the one that was judged.
            logger.warning("A move that was left unfinished is given up: %s", error)
            moved = False
    model.journal.end(entry.number, End(_now(), moved))


def require_as_evaluated(model: Model, wanted: Move) -> None:
    """Make sure that an alias moves to what was evaluated: its sha256 is that of its evidence.

    A version that was never evaluated, such as one that was put into production by hand, has no evidence to
    be compared with. For production, the files must be those that were registered, too.

    Raises:
        MoveRefusedError: It is something else, or its evidence cannot be read.
        UnknownVersionError: It was deleted.
    """
    if wanted.to_version is None:
        return
    version = versions.version(model.client, model.name, wanted.to_version)
    evaluation = model.history.evaluation(version.number)
    try:
        if evaluation is not None:
            evidence.require_same_files(version, evidence.document(model.client, model.name, evaluation))
        if wanted.alias == PRODUCTION:
            with versions.verified_files(model.client, version):
                pass
    except (EvidenceError, ModelRefusedError) as error:
        raise MoveRefusedError(str(error)) from error


def _carry_out(client: "MlflowClient", name: str, wanted: Move) -> None:
    if wanted.to_version is None:
        client.delete_registered_model_alias(name, wanted.alias)
        return
    versions.set_alias(client, versions.version(client, name, wanted.to_version), wanted.alias)


def show(model: Model) -> None:
    """Tell in tags what the journal says since they were last written, then that this was done."""
    shown = done = versions.alias_state(model.client, model.name).journal_entry
    while done < _ended(model.history):
        done = _ended(model.history)
        _show(model, shown, done)
        # Who was slow may have written over what was newer, and must not leave it so.
        model = replace(model, history=model.journal.read())


def _ended(history: History) -> int:
    """The last entry before a move that is under way, if one is."""
    return history.head if history.pending is None else history.pending.number - 1


def _show(model: Model, shown: int, head: int) -> None:
    told: dict[int, dict[str, str | None]] = {}
    for entry in model.history.entries[shown:head]:
        if isinstance(entry.what, Move) and entry.end is not None and entry.end.moved:
            for version, tags in _tags(model.history, entry.what, entry.end).items():
                told.setdefault(version, {}).update(tags)
    for version, tags in told.items():
        try:
            versions.set_tags(model.client, model.name, version, tags)
        except UnknownVersionError:
            continue  # deleted, and its tags with it
    seal = model.history.entries[head - 1].seal
    for tag, value in ((SEAL_TAG, seal), (JOURNAL_TAG, str(head))):
        versions.even_at_once(partial(model.client.set_registered_model_tag, model.name, tag, value))


def _tags(history: History, done: Move, end: End) -> dict[int, dict[str, str | None]]:
    """Tags by version; None: the tag goes."""
    at = end.at.isoformat(timespec="milliseconds")
    told: dict[int, dict[str, str | None]] = {}
    for version in (done.from_version, done.to_version):
        if version is not None:
            stage = stage_of(history, version)
            told[version] = {STAGE_TAG: stage, ARCHIVED_AT_TAG: at if stage == ARCHIVED else None}
    if done.alias == PRODUCTION and done.to_version is not None:
        told[done.to_version] |= {
            PROMOTED_AT_TAG: at,
            PROMOTED_BY_TAG: done.by,
            PROMOTED_FROM_TAG: str(done.from_version) if done.from_version is not None else None,
        }
    return told


def stage_of(history: History, version: int) -> str | None:
    """The stage of a version by the journal; None: it never had one."""
    for alias in (PRODUCTION, STAGING):
        if history.holder(alias) == version:
            return alias
    carried = {move.to_version for alias in ALIASES for _, move, _ in history.moves(alias)}
    return ARCHIVED if version in carried else None


def staging_leaves(model: Model, reason: Move) -> Model:
    """After a version was promoted, it is no longer the one that waits for it."""
    if model.history.holder(STAGING) != reason.to_version:
        return model
    leaving = replace(
        reason, at=_now(), alias=STAGING, from_version=reason.to_version, to_version=None, cause=PROMOTION
    )
    return move(model, leaving)


def _name(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _now() -> datetime:
    return datetime.now(UTC)
