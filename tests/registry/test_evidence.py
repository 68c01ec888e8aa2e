"""Tests evidence: one way to write it, one hash, and every later change is detected."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerline.registry import evidence
from ledgerline.registry.evidence import (
    APPROVED_BY_TAG,
    DECISION_TAG,
    EVIDENCE_RUN_TAG,
    EVIDENCE_TAG,
    EvidenceError,
    seal,
    verified,
)
from ledgerline.registry.history import Evaluation
from ledgerline.registry.versions import UnknownVersionError
from ledgerline.testing.registry_stock import Stock


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers() | st.floats(-1, 1), max_size=6))
def test_the_order_of_names_makes_no_difference(document: dict[str, float]):
    turned = dict(reversed(document.items()))

    assert seal(turned) == seal(document)


@given(st.integers(), st.integers())
def test_other_numbers_have_another_seal(first: int, second: int):
    assert (seal({"n": first}).sha256 == seal({"n": second}).sha256) == (first == second)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_nan_cannot_be_sealed(number: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        seal({"log_loss": number})


def test_the_seal_is_that_of_these_bytes():
    sealed = seal({"b": 1, "a": "ä"})

    assert sealed.content == '{"a":"ä","b":1}'.encode()
    assert sealed.sha256 == hashlib.sha256(sealed.content).hexdigest()


def test_evidence_is_read_again_as_it_was_sealed(any_stock: Stock, model_name: str):
    any_stock.model(model_name)
    document = any_stock.document(1) | {"names": ["ä", "日本"], "number": 0.1 + 0.2}
    evaluation = any_stock.evaluate(model_name, 1, document=document)

    assert checked(any_stock, model_name, evaluation) == document


def checked(stock: Stock, name: str, evaluation: Evaluation) -> dict[str, Any]:
    model = stock.registered(name)
    return verified(model, model.version(evaluation.version), evaluation)


@pytest.mark.parametrize(("broken", "decision"), [([], "passed"), (["calibrated"], "refused")])
def test_a_version_records_how_it_was_evaluated(
    stock: Stock, model_name: str, broken: list[str], decision: str
):
    stock.model(model_name)
    stock.client.set_model_version_tag(model_name, "1", APPROVED_BY_TAG, "somebody, of an earlier evaluation")

    evaluation = stock.evaluate(model_name, 1, broken=broken)

    tags = stock.tags(model_name, 1)
    assert tags[EVIDENCE_TAG] == evaluation.evidence
    assert tags[EVIDENCE_RUN_TAG] == evaluation.evidence_run_id
    assert tags[DECISION_TAG] == decision
    assert APPROVED_BY_TAG not in tags


def test_missing_evidence_is_named(any_stock: Stock, model_name: str):
    any_stock.model(model_name)
    evaluation = any_stock.evaluate(model_name, 1)
    elsewhere = any_stock.run()

    for run_id in (elsewhere, "0" * 32):
        moved = type(evaluation)(**{**vars(evaluation), "evidence_run_id": run_id})
        with pytest.raises(
            EvidenceError, match=f"cannot be read from MLflow run {run_id}: .*Compare it again"
        ):
            checked(any_stock, model_name, moved)


def test_the_evidence_of_a_deleted_version_is_that_of_an_unknown_one(stock: Stock, model_name: str):
    stock.model(model_name)
    evaluation = stock.evaluate(model_name, 1)
    stock.client.delete_model_version(model_name, "1")

    with pytest.raises(UnknownVersionError):
        checked(stock, model_name, evaluation)


def test_a_passed_evaluation_removes_the_approval_of_the_one_before_first(stock: Stock):
    assert next(iter(evidence.tags_of(stock.evaluation(1)).items())) == (APPROVED_BY_TAG, None)
