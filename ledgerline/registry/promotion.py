"""Promotion and rollback: what must hold before production moves. What a version must prove: policy.py."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from ledgerline.mlflow_store.stored_model import ModelRefusedError
from ledgerline.registry import evidence, moves, versions
from ledgerline.registry.evidence import APPROVED_BY_TAG, EvidenceError
from ledgerline.registry.history import PROMOTION, ROLLBACK, Approval, End, Entry, Evaluation, Move
from ledgerline.registry.moves import Model, MoveRefusedError, UnderWayError
from ledgerline.registry.stages import PRODUCTION

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Mode(Enum):
    """When a version that keeps every rule is promoted: at once, or once a person approved."""

    automatic = "automatic"
    approved = "approved"


class NotApprovedError(MoveRefusedError):
    """Every rule is kept, and the promotion waits for a person."""


class RuleBrokenError(MoveRefusedError):
    """The version was judged, and broke a rule: a result, and no fault."""


class InPlaceError(MoveRefusedError):
    """The version is in production already; another request put it there."""


@dataclass(frozen=True)
class Request:
    """Who wants an alias moved.

    Attributes:
        by: A person, or what acts for them.
        reason: Why.
        run_id: The Dagster run; empty without.
        id: The same whenever the same request is made again, after it was killed for instance.
    """

    by: str
    reason: str
    run_id: str
    id: str


@dataclass(frozen=True)
class Moved:
    """A version that is in production now.

    Attributes:
        version: Its number.
        before: The one before it; None: there was none.
        entry: The number of the entry in the journal.
        move: What is written there.
        at: When the alias had moved.
    """

    version: int
    before: int | None
    entry: int
    move: Move
    at: datetime


def promote(client: "MlflowClient", name: str, number: int, request: Request, mode: Mode) -> Moved:
    """Let production be this version, if its evidence says so.

    The evidence must be whole, say that every rule was kept, and compare with the version that is in
    production now; the files of the version must be those that were judged. The same request again finishes
    what it began.

    Args:
        client: An open MLflow client.
        name: The registered model.
        number: The version.
        request: Who asks, and why.
        mode: Whether a person must have approved of the evidence.

    Raises:
        MoveRefusedError: It may not be promoted; the message says why. Production has not moved.
        RuleBrokenError: It broke a rule.
        InPlaceError: It is in production already.
        NotApprovedError: Nobody approved yet.
        UnderWayError: Another process is moving an alias just now, or has judged the version again. If
            production has moved by then, the same request again finishes what is left.
        UnknownModelError: There is no such model.
        UnknownVersionError: There is no such version.
        JournalError: The journal cannot be read.
    """
    model = moves.settled(client, name, request.id)
    production = model.history.holder(PRODUCTION)
    if production != number:
        evaluation = _require_evidence(model, number, production)
        if mode == Mode.approved:
            model = _require_approval(model, evaluation)
        wanted = _move(production, number, PROMOTION, request, evaluation.evidence)
        model = moves.move(model, wanted, lambda model: _require_last(model, evaluation))
    elif _last(model)[1].request != request.id:
        entry, last, end = _last(model)
        raise InPlaceError(
            f"Version {number} of {name} is in production already, since {end.at:%Y-%m-%d %H:%M:%S} UTC by "
            f"{last.by} (entry {entry.number})."
        )
    moved = _moved(model, request)
    moves.staging_leaves(model, moved.move)
    return moved


def rollback(client: "MlflowClient", name: str, to: int | None, request: Request) -> Moved:
    """Take production back.

    Args:
        client: An open MLflow client.
        name: The registered model.
        to: The version to go back to; None: the one that production was promoted over.
        request: Who asks, and why.

    Raises:
        MoveRefusedError: There is nothing to go back to, it was never in production, or it is not what was
            evaluated.
        UnknownModelError: There is no such model.
        UnknownVersionError: There is no such version.
        JournalError: The journal cannot be read.
    """
    model = moves.settled(client, name, request.id)
    done = model.history.moves(PRODUCTION)
    if done and done[-1][1].cause == ROLLBACK and done[-1][1].request == request.id:
        return _moved(model, request)
    production = model.history.holder(PRODUCTION)
    target = model.history.version_before() if to is None else to
    if target is None:
        raise MoveRefusedError(f"No version of {name} was in production before {_name(production)}.")
    if target == production:
        raise MoveRefusedError(f"Version {target} of {name} is in production already.")
    served = {move.to_version for _, move, _ in done}
    if target not in served:
        raise MoveRefusedError(
            f"Version {target} of {name} was never in production. Promote it: `ledgerline registry promote`."
        )
    resting_on = next(move.evidence for _, move, _ in reversed(done) if move.to_version == target)
    wanted = _move(production, target, ROLLBACK, request, resting_on)
    return _moved(moves.move(model, wanted, lambda model: moves.require_as_evaluated(model, wanted)), request)


def approve(client: "MlflowClient", name: str, number: int, by: str, reason: str) -> Approval:
    """Write down that a person agrees to the promotion of a version, as it was judged.

    Raises:
        MoveRefusedError: There is nothing to approve: it was not judged, or broke a rule.
        UnknownModelError: There is no such model.
        UnknownVersionError: There is no such version.
        JournalError: The journal cannot be read.
    """
    model = moves.settled(client, name)
    evaluation = _require_evidence(model, number, model.history.holder(PRODUCTION))
    approval = Approval(_now(), number, evaluation.evidence, by, reason)
    model.journal.add(approval)
    versions.set_tags(client, name, number, {APPROVED_BY_TAG: by})
    _show(model)
    return approval


def record_evaluation(client: "MlflowClient", name: str, evaluation: Evaluation) -> Entry:
    """Write a judgement into the journal, and on the version. Its evidence must be stored by then."""
    model = moves.settled(client, name)
    entry = model.journal.add(evaluation)
    versions.set_tags(client, name, evaluation.version, evidence.tags_of(evaluation))
    _show(model)
    return entry


def _require_evidence(model: Model, number: int, production: int | None) -> Evaluation:
    """The judgement that allows a promotion, after checking it and the files it is about."""
    name = model.name
    version = versions.version(model.client, name, number)
    evaluation = model.history.evaluation(number)
    if evaluation is None:
        raise MoveRefusedError(
            f"Version {number} of {name} was never judged. Do that first: "
            f"`ledgerline registry compare {name} --version {number}`."
        )
    if evaluation.against != production:
        raise MoveRefusedError(
            f"Version {number} of {name} was compared with {_name(evaluation.against)}, and "
            f"{_name(production)} is in production now. Compare again: "
            f"`ledgerline registry compare {name} --version {number}`."
        )
    if not evaluation.passed:
        raise RuleBrokenError(
            f"Version {number} of {name} may not be promoted: it broke {', '.join(evaluation.broken_rules)}. "
            f"The evidence is in MLflow run {evaluation.evidence_run_id}."
        )
    try:
        document = evidence.verified(model.client, name, evaluation)
    except EvidenceError as error:
        raise MoveRefusedError(str(error)) from error
    # So that the last entry of a journal, which nothing follows yet, cannot be turned into its contrary.
    if (document.get("version"), document.get("decision")) != (number, evidence.PASSED):
        raise MoveRefusedError(
            f"The evidence of {name} version {number} says {document.get('decision')!r} of version "
            f"{document.get('version')}, the journal {evidence.PASSED!r} of version {number}. Compare again: "
            f"`ledgerline registry compare {name} --version {number}`."
        )
    try:
        evidence.require_same_files(version, document)
    except EvidenceError as error:
        raise MoveRefusedError(str(error)) from error
    _require_whole(model.client, name, number)
    return evaluation


def _require_last(model: Model, evaluation: Evaluation) -> None:
    last = model.history.evaluation(evaluation.version)
    if last is None or last.evidence != evaluation.evidence:
        # Another run, which competes with this one, evaluated the version again: this refusal is temporary.
        raise UnderWayError(
            f"Version {evaluation.version} of {model.name} was judged again meanwhile. Promote it on that "
            "judgement."
        )


def _require_whole(client: "MlflowClient", name: str, number: int) -> None:
    try:
        with versions.verified_files(client, versions.version(client, name, number)):
            return
    except ModelRefusedError as error:
        raise MoveRefusedError(str(error)) from error


def _require_approval(model: Model, evaluation: Evaluation) -> Model:
    if model.history.approval(evaluation.evidence) is not None:
        return model
    tagged = versions.version(model.client, model.name, evaluation.version).tags.get(APPROVED_BY_TAG)
    if not tagged:
        raise NotApprovedError(
            f"Version {evaluation.version} of {model.name} keeps every rule, and waits for a person: "
            f"`ledgerline registry approve {model.name} --version {evaluation.version}`, or the tag "
            f"{APPROVED_BY_TAG}."
        )
    model.journal.add(Approval(_now(), evaluation.version, evaluation.evidence, tagged, "by tag in MLflow"))
    return moves.settled(model.client, model.name)


def _show(model: Model) -> None:
    moves.show(replace(model, history=model.journal.read()))


def _move(production: int | None, to: int, cause: str, request: Request, resting_on: str) -> Move:
    return Move(
        at=_now(),
        alias=PRODUCTION,
        from_version=production,
        to_version=to,
        cause=cause,
        by=request.by,
        reason=request.reason,
        evidence=resting_on,
        run_id=request.run_id,
        request=request.id,
    )


def _last(model: Model) -> tuple[Entry, Move, End]:
    return model.history.moves(PRODUCTION)[-1]


def _moved(model: Model, request: Request) -> Moved:
    """What a request did, even if production has moved on since."""
    for entry, move, end in reversed(model.history.moves(PRODUCTION)):
        if move.request == request.id and move.to_version is not None:
            return Moved(move.to_version, move.from_version, entry.number, move, end.at)
    raise MoveRefusedError(
        f"{PRODUCTION} of {model.name} was moved by somebody else while {request.by} was moving it."
    )


def _name(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _now() -> datetime:
    return datetime.now(UTC)
