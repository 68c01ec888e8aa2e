"""Promotion and rollback: the checks before production moves. The gates are in evaluation/gates.py.

Each function also raises UnknownModelError or UnknownVersionError if the model or version does not exist, and
JournalError if the journal cannot be read.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from ledgerline.mlflow_store.stored_model import ModelRefusedError
from ledgerline.registry import evidence, moves
from ledgerline.registry.evidence import APPROVED_BY_TAG, EvidenceError
from ledgerline.registry.history import (
    PROMOTION,
    REGISTRATION,
    ROLLBACK,
    Approval,
    Evaluation,
    Move,
    version_text,
)
from ledgerline.registry.moves import MoveRefusedError, ReconciledModel, UnderWayError, reconcile
from ledgerline.registry.stages import PRODUCTION, STAGING
from ledgerline.registry.versions import RegisteredModel, Version


class Mode(Enum):
    """When a version that passes every gate is promoted: at once, or after a person's approval."""

    automatic = "automatic"
    approved = "approved"


class NotApprovedError(MoveRefusedError):
    """The version passes every gate, and its promotion waits for a person's approval."""


class RuleBrokenError(MoveRefusedError):
    """The version failed a gate when it was evaluated; this is a result, and not a failure."""


class InPlaceError(MoveRefusedError):
    """Another request has already promoted the version to production."""


@dataclass(frozen=True)
class Request:
    """A request to move an alias.

    Attributes:
        by: Person or program that requests it.
        run_id: Dagster run; empty without one.
        id: Id of the request. A repeated request, for instance after its process was killed, has the same id.
    """

    by: str
    reason: str
    run_id: str
    id: str


@dataclass(frozen=True)
class Moved:
    """A move of production that was carried out.

    Attributes:
        version: Version that is in production after the move.
        before: Version that was in production before; None if there was none.
        entry: Number of the journal's entry, which contains the move.
        at: Time at which the alias had moved.
    """

    version: int
    before: int | None
    entry: int
    move: Move
    at: datetime


def stage(model: RegisteredModel, number: int, request: Request) -> None:
    """Move the alias `staging` to a version.

    Raises:
        MoveRefusedError: The files of the version are not those that were evaluated.
        UnderWayError: Another process is moving an alias at the moment.
    """
    reconciled = reconcile(model, request.id)
    current = reconciled.history.version_with_alias(STAGING)
    if current != number:
        wanted = _move(STAGING, current, number, REGISTRATION, request)
        moves.move(reconciled, wanted, lambda reconciled: moves.require_as_evaluated(reconciled, wanted))


def promote(model: RegisteredModel, number: int, request: Request, mode: Mode) -> Moved:
    """Move production to a version, if its evidence allows it.

    The evidence must be unchanged, report that every gate was passed, and compare with the version that is in
    production now; the files of the version must be those that were evaluated. A repeated request finishes
    what it began.

    Raises:
        MoveRefusedError: The version may not be promoted; the message says why. Production has not moved.
        RuleBrokenError: The version failed a gate.
        InPlaceError: The version is in production already.
        NotApprovedError: No person has approved yet.
        UnderWayError: Another process is moving an alias at the moment, or has evaluated the version again.
            If production has already moved, a repeated request finishes the rest.
    """
    reconciled = reconcile(model, request.id)
    production = reconciled.history.version_with_alias(PRODUCTION)
    if production != number:
        version = model.version(number)
        evaluation = _require_evidence(reconciled, version, production)
        if mode == Mode.approved:
            reconciled = _require_approval(reconciled, version, evaluation)
        wanted = _move(PRODUCTION, production, number, PROMOTION, request, sha256=evaluation.evidence)
        reconciled = moves.carry_out(
            reconciled, wanted, lambda reconciled: _require_last(reconciled, evaluation)
        )
    else:
        entry, last, end = reconciled.history.moves(PRODUCTION)[-1]
        if last.request != request.id:
            raise InPlaceError(
                f"Version {number} of {model.name} is in production already, since "
                f"{end.at:%Y-%m-%d %H:%M:%S} UTC by {last.by} (entry {entry.number})."
            )
    moved = _moved(reconciled, request)
    if reconciled.history.version_with_alias(STAGING) == number:  # a promoted version leaves staging
        leaving = replace(
            moved.move, at=moves.now(), alias=STAGING, from_version=number, to_version=None, cause=PROMOTION
        )
        reconciled = moves.carry_out(reconciled, leaving)
    moves.show(reconciled)
    return moved


def rollback(model: RegisteredModel, to: int | None, request: Request) -> Moved:
    """Move production back to a version; None is the one that the promotion of the current version replaced.

    Raises:
        MoveRefusedError: There is no earlier version, the version was never in production, or its files are
            not those that were evaluated.
    """
    reconciled = reconcile(model, request.id)
    done = reconciled.history.moves(PRODUCTION)
    if done and done[-1][1].cause == ROLLBACK and done[-1][1].request == request.id:
        return _moved(reconciled, request)
    production = reconciled.history.version_with_alias(PRODUCTION)
    target = reconciled.history.version_before() if to is None else to
    if target is None:
        raise MoveRefusedError(
            f"No version of {model.name} was in production before {version_text(production)}."
        )
    if target == production:
        raise MoveRefusedError(f"Version {target} of {model.name} is in production already.")
    if target not in {move.to_version for _, move, _ in done}:
        raise MoveRefusedError(
            f"Version {target} of {model.name} was never in production.",
            f"Promote it: `ledgerline registry promote {model.name} --version {target}`.",
        )
    sha256 = next(move.evidence for _, move, _ in reversed(done) if move.to_version == target)
    wanted = _move(PRODUCTION, production, target, ROLLBACK, request, sha256=sha256)
    reconciled = moves.move(
        reconciled, wanted, lambda reconciled: moves.require_as_evaluated(reconciled, wanted)
    )
    return _moved(reconciled, request)


def approve(model: RegisteredModel, number: int, by: str, reason: str) -> Approval:
    """Record a person's approval of the promotion of a version, based on its last evaluation.

    Raises:
        MoveRefusedError: The version was not evaluated, or failed a gate.
    """
    reconciled = reconcile(model)
    production = reconciled.history.version_with_alias(PRODUCTION)
    evaluation = _require_evidence(reconciled, model.version(number), production)
    approval = Approval(moves.now(), number, evaluation.evidence, by, reason)
    reconciled.journal.add(approval)
    model.set_version_tags(number, {APPROVED_BY_TAG: by})
    moves.show(replace(reconciled, history=reconciled.journal.read()))
    return approval


def record_evaluation(model: RegisteredModel, evaluation: Evaluation) -> int:
    """Record an evaluation with stored evidence in the journal and in tags; return the entry's number."""
    reconciled = reconcile(model)
    entry = reconciled.journal.add(evaluation)
    model.set_version_tags(evaluation.version, evidence.tags_of(evaluation))
    moves.show(replace(reconciled, history=reconciled.journal.read()))
    return entry.number


def _require_evidence(reconciled: ReconciledModel, version: Version, production: int | None) -> Evaluation:
    """Return the evaluation that allows a promotion, after checking it and the files of the version."""
    model, number = reconciled.model, version.number
    again = f"`ledgerline registry compare {model.name} --version {number}`."
    evaluation = reconciled.history.evaluation(number)
    if evaluation is None:
        raise MoveRefusedError(
            f"Version {number} of {model.name} was never evaluated.", f"Evaluate it: {again}"
        )
    if evaluation.against != production:
        raise MoveRefusedError(
            f"Version {number} of {model.name} was compared with {version_text(evaluation.against)}, and "
            f"{version_text(production)} is in production now.",
            f"Compare it again: {again}",
        )
    if not evaluation.passed:
        raise RuleBrokenError(
            f"Version {number} of {model.name} may not be promoted: it did not pass "
            f"{', '.join(evaluation.broken_rules)}. The evidence is in MLflow run "
            f"{evaluation.evidence_run_id}."
        )
    try:
        document = evidence.verified(model, version, evaluation)
        # No later entry protects the last entry of a journal, so its result could be edited undetected.
        if (document.get("version"), document.get("decision")) != (number, evidence.PASSED):
            raise MoveRefusedError(
                f"The evidence of {model.name} version {number} records {document.get('decision')!r} for "
                f"version {document.get('version')}, the journal {evidence.PASSED!r} for version {number}.",
                f"Compare it again: {again}",
            )
        evidence.require_same_files(version, document)
        with model.verified_files(version):
            return evaluation
    except (EvidenceError, ModelRefusedError) as error:
        raise MoveRefusedError(error.problem, error.remedy) from error


def _require_last(reconciled: ReconciledModel, evaluation: Evaluation) -> None:
    last = reconciled.history.evaluation(evaluation.version)
    if last is None or last.evidence != evaluation.evidence:
        # A competing run evaluated the version again, so this refusal is temporary.
        raise UnderWayError(
            f"Version {evaluation.version} of {reconciled.model.name} was evaluated again in the meantime.",
            "Promote it again, based on that evaluation.",
        )


def _require_approval(
    reconciled: ReconciledModel, version: Version, evaluation: Evaluation
) -> ReconciledModel:
    if reconciled.history.approval(evaluation.evidence) is not None:
        return reconciled
    tagged = version.tags.get(APPROVED_BY_TAG)
    if not tagged:
        raise NotApprovedError(
            f"Version {version.number} of {version.name} passes every gate and waits for approval.",
            f"Approve it with `ledgerline registry approve {version.name} --version {version.number}`, or "
            f"set its tag {APPROVED_BY_TAG} in MLflow.",
        )
    reconciled.journal.add(
        Approval(moves.now(), version.number, evaluation.evidence, tagged, "by tag in MLflow")
    )
    return reconcile(reconciled.model)


def _move(
    alias: str, from_version: int | None, to: int, cause: str, request: Request, *, sha256: str = ""
) -> Move:
    return Move(
        at=moves.now(),
        alias=alias,
        from_version=from_version,
        to_version=to,
        cause=cause,
        by=request.by,
        reason=request.reason,
        evidence=sha256,
        run_id=request.run_id,
        request=request.id,
    )


def _moved(reconciled: ReconciledModel, request: Request) -> Moved:
    """Return the move of production that a request made, even if production has moved again."""
    for entry, done, end in reversed(reconciled.history.moves(PRODUCTION)):
        if done.request == request.id and done.to_version is not None:
            return Moved(done.to_version, done.from_version, entry.number, done, end.at)
    raise MoveRefusedError(
        f"{PRODUCTION} of {reconciled.model.name} was moved by another process while {request.by} was moving "
        "it."
    )
