"""Tests promotion and rollback: evidence is required, one of many wins, and all can be rolled back."""

from collections.abc import Callable
from typing import Any

import pytest

from ledgerline.registry import evidence, moves, promotion
from ledgerline.registry.evidence import APPROVED_BY_TAG, DECISION_TAG, EVIDENCE_TAG
from ledgerline.registry.history import ROLLBACK, Evaluation
from ledgerline.registry.moves import MoveRefusedError, UnderWayError
from ledgerline.registry.promotion import Mode, NotApprovedError
from ledgerline.registry.stages import (
    ARCHIVED_AT_TAG,
    PRODUCTION,
    PROMOTED_AT_TAG,
    PROMOTED_BY_TAG,
    PROMOTED_FROM_TAG,
    STAGE_TAG,
    STAGING,
)
from ledgerline.registry.versions import SHA256_TAG, UnknownModelError, UnknownVersionError
from ledgerline.testing.registry_stock import Stock, request
from tests.registry.racers import Racers, Task

STAGE_TAGS = (STAGE_TAG, PROMOTED_AT_TAG, PROMOTED_BY_TAG, PROMOTED_FROM_TAG, ARCHIVED_AT_TAG)


@pytest.fixture
def served(stock: Stock, model_name: str) -> str:
    """A model with three versions, the first in production."""
    stock.model(model_name, 3)
    stock.serve(model_name, 1)
    return model_name


def refusal(stock: Stock, name: str, number: int, mode: Mode = Mode.automatic) -> str:
    """Why a promotion is refused; that nothing has moved."""
    before = stock.aliases(name), stock.history(name).moves(PRODUCTION)
    with pytest.raises(MoveRefusedError) as error:
        stock.promote(name, number, mode=mode)
    assert (stock.aliases(name), stock.history(name).moves(PRODUCTION)) == before
    return str(error.value)


def stage_tags(stock: Stock, name: str, number: int) -> dict[str, str]:
    return {tag: value for tag, value in stock.tags(name, number).items() if tag in STAGE_TAGS}


# Promoted


def test_a_version_that_kept_every_rule_is_promoted(any_stock: Stock, model_name: str):
    any_stock.model(model_name, 2)
    any_stock.stage(model_name, 1)
    first = any_stock.serve(model_name, 1)
    any_stock.stage(model_name, 2)
    evaluation = any_stock.evaluate(model_name, 2, against=1)

    moved = any_stock.promote(model_name, 2, request("ada", "it is better"))

    assert (moved.version, moved.before, moved.move.by, moved.move.reason) == (2, 1, "ada", "it is better")
    assert moved.move.evidence == evaluation.evidence
    assert any_stock.aliases(model_name) == {PRODUCTION: 2}
    any_stock.require_agreement(model_name)
    promoted = moved.at.isoformat(timespec="milliseconds")
    assert stage_tags(any_stock, model_name, 1) == {
        STAGE_TAG: "archived",
        PROMOTED_AT_TAG: first.at.isoformat(timespec="milliseconds"),
        PROMOTED_BY_TAG: "ada",
        ARCHIVED_AT_TAG: promoted,
    }
    assert stage_tags(any_stock, model_name, 2) == {
        STAGE_TAG: PRODUCTION,
        PROMOTED_AT_TAG: promoted,
        PROMOTED_BY_TAG: "ada",
        PROMOTED_FROM_TAG: "1",
    }


def test_another_version_stays_in_staging(stock: Stock, served: str):
    stock.stage(served, 3)

    stock.serve(served, 2)

    assert stock.aliases(served) == {PRODUCTION: 2, STAGING: 3}


def test_the_same_request_again_changes_nothing(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1)
    asked = request()
    first = stock.promote(served, 2, asked)
    head = stock.history(served).head

    assert stock.promote(served, 2, asked) == first
    assert stock.history(served).head == head
    assert "is in production already, since" in refusal(stock, served, 2)


def test_ten_promotions_of_ten_versions_at_once_have_one_winner(
    any_stock: Stock, model_name: str, racers: Racers
):
    any_stock.model(model_name, 10)
    for number in range(1, 11):
        any_stock.evaluate(model_name, number)

    outcomes = racers.run(
        [Task("promote", any_stock.uri, model_name, number, request=f"r{number}") for number in range(1, 11)]
    )

    require_one_winner(any_stock, model_name, outcomes)


def test_ten_promotions_of_the_same_version_at_once_have_one_winner(
    any_stock: Stock, model_name: str, racers: Racers
):
    any_stock.model(model_name, 2)
    any_stock.serve(model_name, 1)
    any_stock.evaluate(model_name, 2, against=1)

    outcomes = racers.run(
        [Task("promote", any_stock.uri, model_name, 2, request=f"r{number}") for number in range(10)]
    )

    require_one_winner(any_stock, model_name, outcomes, before=1)


def require_one_winner(stock: Stock, name: str, outcomes: list[Any], before: int = 0) -> None:
    losers = [outcome for outcome in outcomes if outcome.raised]
    assert all("MoveRefusedError" in loser.raised for loser in losers), losers
    assert len(losers) == len(outcomes) - 1, outcomes
    done = stock.history(name).moves(PRODUCTION)
    assert len(done) == before + 1
    (entry,) = {outcome.returned for outcome in outcomes} - {None}
    assert done[-1][0].number == entry
    stock.require_agreement(name)


def test_a_promotion_and_a_rollback_at_once_leave_no_doubt(stock: Stock, served: str, racers: Racers):
    stock.serve(served, 2)
    stock.evaluate(served, 3, against=2)
    promoting = [Task("promote", stock.uri, served, 3, request=f"p{n}") for n in range(3)]
    taking_back = [Task("rollback", stock.uri, served, request=f"r{n}") for n in range(3)]

    outcomes = racers.run(promoting + taking_back)

    assert all("MoveRefusedError" in outcome.raised for outcome in outcomes if outcome.raised), outcomes
    assert any(outcome.returned for outcome in outcomes)
    stock.require_agreement(served)


# Refused


def test_a_version_that_was_not_evaluated_is_refused(stock: Stock, served: str):
    assert f"`ledgerline registry compare {served} --version 2`" in refusal(stock, served, 2)


def test_a_version_that_broke_a_rule_is_refused(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1, broken=["calibrated", "fast_enough"])

    assert "it did not pass calibrated, fast_enough" in refusal(stock, served, 2)


def test_the_last_evaluation_counts(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1)
    stock.evaluate(served, 2, against=1, broken=["calibrated"])

    assert "it did not pass calibrated" in refusal(stock, served, 2)


def test_a_version_compared_with_another_one_is_refused(stock: Stock, served: str):
    stock.evaluate(served, 3, against=1)
    stock.serve(served, 2)

    message = refusal(stock, served, 3)

    assert "was compared with version 1, and version 2 is in production now" in message


def test_a_version_compared_with_the_baseline_is_refused_once_there_is_a_production(
    stock: Stock, served: str
):
    stock.evaluate(served, 2)

    assert "was compared with no version, and version 1 is" in refusal(stock, served, 2)


def test_a_production_changed_outside_needs_another_comparison(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1)
    stock.client.set_registered_model_alias(served, PRODUCTION, "3")

    with pytest.raises(MoveRefusedError, match="and version 3 is in production now"):
        stock.promote(served, 2)

    assert stock.aliases(served) == {PRODUCTION: 3}


def test_a_version_evaluated_again_while_it_is_promoted_is_left_for_the_next_try(stock: Stock, served: str):
    evaluation = stock.evaluate(served, 2, against=1)
    model = stock.registered(served).reconcile()
    stock.evaluate(served, 2, against=1, broken=["calibrated"])
    wanted = promotion._move(PRODUCTION, 1, 2, "promotion", request(), sha256=evaluation.evidence)

    with pytest.raises(UnderWayError, match="was evaluated again in the meantime"):
        moves.move(model, wanted, lambda model: promotion._require_last(model, evaluation))


def edit_artifact(stock: Stock, evaluation: Evaluation, name: str) -> None:
    forged = evidence.seal(stock.document(evaluation.version, against=1))
    stock.client.log_text(evaluation.evidence_run_id, forged.content.decode(), evidence.FILE)


def edit_tag(stock: Stock, evaluation: Evaluation, name: str) -> None:
    stock.client.set_model_version_tag(name, str(evaluation.version), EVIDENCE_TAG, "0" * 64)


def edit_both(stock: Stock, evaluation: Evaluation, name: str) -> None:
    forged = evidence.seal(stock.document(evaluation.version, against=1))
    stock.client.log_text(evaluation.evidence_run_id, forged.content.decode(), evidence.FILE)
    stock.client.set_model_version_tag(name, str(evaluation.version), EVIDENCE_TAG, forged.sha256)


def delete_tag(stock: Stock, evaluation: Evaluation, name: str) -> None:
    stock.client.delete_model_version_tag(name, str(evaluation.version), EVIDENCE_TAG)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_artifact, "was edited: evidence.json in MLflow run"),
        (edit_tag, f"and {'0' * 64} in the tag {EVIDENCE_TAG}"),
        (edit_both, f"in the tag {EVIDENCE_TAG} of the version. Compare it again"),
        (delete_tag, f"and none in the tag {EVIDENCE_TAG}"),
    ],
    ids=["the artifact", "the tag", "both", "the tag deleted"],
)
def test_edited_evidence_is_refused(
    stock: Stock, model_name: str, edit: Callable[[Stock, Evaluation, str], None], message: str
):
    stock.model(model_name, 2)
    stock.serve(model_name, 1)
    evaluation = stock.evaluate(model_name, 2, against=1)

    edit(stock, evaluation, model_name)

    assert message in refusal(stock, model_name, 2)
    stock.evaluate(model_name, 2, against=1)
    assert stock.promote(model_name, 2).version == 2


@pytest.mark.parametrize(
    "changed", [{"decision": evidence.REFUSED}, {"version": 3}, {"version_sha256": "0" * 64}]
)
def test_evidence_that_differs_from_the_journal_is_refused(
    stock: Stock, served: str, changed: dict[str, Any]
):
    stock.evaluate(served, 2, against=1, document={**stock.document(2, against=1), **changed})

    assert str(next(iter(changed.values()))) in refusal(stock, served, 2)


def test_a_version_whose_files_were_changed_is_refused(any_stock: Stock, model_name: str):
    weights = model_name
    any_stock.model(model_name, 1, weights=weights)
    document = any_stock.document(1) | {"version_sha256": any_stock.tags(model_name, 1)[SHA256_TAG]}
    any_stock.evaluate(model_name, 1, document=document)

    any_stock.edit_files(weights, "other weights")

    assert "is not what was registered: its files have" in refusal(any_stock, model_name, 1)


def test_a_version_whose_hash_was_made_to_fit_other_files_is_refused(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1)

    stock.client.set_model_version_tag(served, "2", SHA256_TAG, "0" * 64)

    assert f"records sha256 {'0' * 64} of its files, and files with sha256" in refusal(stock, served, 2)


def test_a_version_registered_by_hand_is_refused_for_it_has_no_hash(stock: Stock, served: str):
    stock.client.delete_model_version_tag(served, "2", SHA256_TAG)
    stock.evaluate(served, 2, against=1, document=stock.document(2, against=1) | {"version_sha256": None})

    assert "has no recorded sha256 of its files" in refusal(stock, served, 2)


def test_an_unknown_model_or_version_is_named(stock: Stock, served: str):
    with pytest.raises(UnknownModelError, match="'nobody registered'"):
        stock.promote("nobody registered", 1)
    with pytest.raises(UnknownVersionError, match=f"{served} has no version 7"):
        stock.promote(served, 7)
    with pytest.raises(UnknownModelError):
        stock.rollback("nobody registered")
    with pytest.raises(UnknownVersionError):
        stock.registered(served).approve(7, "ada", "")


def test_a_version_deleted_after_it_was_evaluated_is_named(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1)
    stock.client.delete_model_version(served, "2")

    with pytest.raises(UnknownVersionError):
        stock.promote(served, 2)

    stock.require_agreement(served)


# Approved


def test_a_promotion_waits_for_a_person(any_stock: Stock, model_name: str):
    any_stock.model(model_name, 1)
    evaluation = any_stock.evaluate(model_name, 1)
    with pytest.raises(NotApprovedError, match=f"registry approve {model_name} --version 1`, or set"):
        any_stock.promote(model_name, 1, mode=Mode.approved)
    assert any_stock.aliases(model_name) == {}

    approval = any_stock.registered(model_name).approve(1, "grace", "looks good")

    assert any_stock.tags(model_name, 1)[APPROVED_BY_TAG] == "grace"
    assert approval.evidence == evaluation.evidence
    assert any_stock.promote(model_name, 1, mode=Mode.approved).version == 1
    any_stock.require_agreement(model_name)


def test_a_tag_set_by_hand_is_an_approval_and_is_written_down(stock: Stock, served: str):
    evaluation = stock.evaluate(served, 2, against=1)
    stock.client.set_model_version_tag(served, "2", APPROVED_BY_TAG, "grace")

    stock.promote(served, 2, mode=Mode.approved)

    approval = stock.history(served).approval(evaluation.evidence)
    assert approval is not None
    assert (approval.by, approval.reason) == ("grace", "by tag in MLflow")


def test_an_approval_does_not_outlive_its_evaluation(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1)
    stock.registered(served).approve(2, "grace", "")

    stock.evaluate(served, 2, against=1)

    assert APPROVED_BY_TAG not in stock.tags(served, 2)
    assert "waits for approval" in refusal(stock, served, 2, Mode.approved)


def test_an_approval_by_tag_is_removed_before_the_next_evaluation_is_recorded(stock: Stock):
    """So that being killed in between leaves no evaluation with an approval that is not its own."""
    assert list(evidence.tags_of(stock.evaluation(1)))[0] == APPROVED_BY_TAG  # noqa: RUF015 (the order is the point)


def test_a_version_that_failed_a_gate_cannot_be_approved(stock: Stock, served: str):
    stock.evaluate(served, 2, against=1, broken=["calibrated"])

    with pytest.raises(MoveRefusedError, match="it did not pass calibrated"):
        stock.registered(served).approve(2, "grace", "I know better")

    assert stock.tags(served, 2)[DECISION_TAG] == evidence.REFUSED


# Taken back


def test_a_rollback_goes_back_version_by_version(any_stock: Stock, model_name: str):
    any_stock.model(model_name, 3)
    promoted = [any_stock.serve(model_name, number) for number in (1, 2, 3)]

    first, second = (
        any_stock.rollback(model_name),
        any_stock.rollback(model_name, requested=request("grace", "oh")),
    )

    assert [(m.version, m.before, m.move.cause) for m in (first, second)] == [
        (2, 3, ROLLBACK),
        (1, 2, ROLLBACK),
    ]
    assert second.move.evidence == promoted[0].move.evidence
    with pytest.raises(MoveRefusedError, match=r"No version of .* was in production before version 1\."):
        any_stock.rollback(model_name)
    assert any_stock.aliases(model_name) == {PRODUCTION: 1}
    any_stock.require_agreement(model_name)
    assert stage_tags(any_stock, model_name, 1) == {
        STAGE_TAG: PRODUCTION,
        PROMOTED_AT_TAG: second.at.isoformat(timespec="milliseconds"),
        PROMOTED_BY_TAG: "grace",
        PROMOTED_FROM_TAG: "2",
    }
    assert [any_stock.tags(model_name, number)[STAGE_TAG] for number in (2, 3)] == ["archived"] * 2


def test_after_a_rollback_the_next_promotion_is_evaluated_again(stock: Stock, served: str):
    stock.serve(served, 2)
    stock.evaluate(served, 3, against=2)
    stock.rollback(served)

    assert "was compared with version 2, and version 1 is" in refusal(stock, served, 3)
    stock.serve(served, 3)

    assert stage_tags(stock, served, 3)[PROMOTED_FROM_TAG] == "1"
    assert ARCHIVED_AT_TAG in stage_tags(stock, served, 1)
    assert stock.rollback(served).version == 1
    stock.require_agreement(served)


def test_a_rollback_goes_to_a_version_that_was_in_production_and_to_no_other(stock: Stock, served: str):
    stock.serve(served, 2)

    with pytest.raises(MoveRefusedError, match=r"Version 3 of .* was never in production. Promote it"):
        stock.rollback(served, to=3)
    with pytest.raises(MoveRefusedError, match=r"Version 2 of .* is in production already"):
        stock.rollback(served, to=2)

    assert stock.rollback(served, to=1).version == 1
    assert stock.rollback(served, to=2).version == 2
    assert stock.rollback(served).version == 1


def test_a_rollback_without_a_production_is_refused(stock: Stock, model_name: str):
    stock.model(model_name)

    with pytest.raises(MoveRefusedError, match="was in production before no version"):
        stock.rollback(model_name)


def test_a_rollback_to_changed_files_is_refused(any_stock: Stock, model_name: str):
    weights = model_name
    any_stock.model(model_name, 1, weights=weights)
    any_stock.version(model_name)
    document = any_stock.document(1) | {"version_sha256": any_stock.tags(model_name, 1)[SHA256_TAG]}
    any_stock.evaluate(model_name, 1, document=document)
    any_stock.promote(model_name, 1)
    any_stock.serve(model_name, 2)
    any_stock.edit_files(weights, "other weights")

    with pytest.raises(MoveRefusedError, match="is not what was registered"):
        any_stock.rollback(model_name)

    assert any_stock.aliases(model_name) == {PRODUCTION: 2}


def test_a_rollback_to_a_deleted_version_is_refused(stock: Stock, served: str):
    stock.serve(served, 2)
    stock.client.delete_model_version(served, "1")

    with pytest.raises(UnknownVersionError, match="has no version 1"):
        stock.rollback(served)

    assert stock.aliases(served) == {PRODUCTION: 2}


def test_the_same_rollback_again_changes_nothing(stock: Stock, served: str):
    stock.serve(served, 2)
    stock.serve(served, 3)
    asked = request()

    assert stock.rollback(served, requested=asked) == stock.rollback(served, requested=asked)
    assert stock.aliases(served) == {PRODUCTION: 2}


def test_a_later_promotion_by_another_process_is_not_reported_as_done(stock: Stock, served: str):
    model = stock.registered(served).reconcile()

    with pytest.raises(MoveRefusedError, match="was moved by another process while eve was"):
        promotion._moved(model, request("eve"))

    assert stock.registered(served).alias_state().aliases == {PRODUCTION: 1}
