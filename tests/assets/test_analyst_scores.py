"""Tests the scores of answers: right, grounded, refused, and their costs."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from assets.analyst_scores import Prices, scores_of
from ledgerline.dagster.failures import PermanentFailure

FREE = Prices()


def question(key: str, kind: str, expected: str | None, decimals: int | None = None) -> dict[str, Any]:
    text = "How late, on a scale from 0 to 100?"
    return {
        "id": key,
        "question": text,
        "kind": kind,
        "expected": expected,
        "decimals": decimals,
        "sql": None,
    }


def answer(key: str, reply: str, stated: str | None, *results: str, **more: Any) -> dict[str, Any]:
    calls = [
        {"tool": "query_flights", "arguments": {"sql": "SELECT 1"}, "answer": text, "failed": "Error" in text}
        for text in results
    ]
    return {
        "id": key,
        "question": "How late, on a scale from 0 to 100?",
        "answer": reply,
        "stated": stated,
        "tools": ",".join(call["tool"] for call in calls),
        "calls": json.dumps(calls),
        "input_tokens": 100,
        "output_tokens": 20,
        "seconds": 1.5,
        **more,
    }


def score(asked: Mapping[str, Any], given: Mapping[str, Any], prices: Prices = FREE) -> Mapping[Any, Any]:
    (found,) = scores_of(pd.DataFrame([asked]), pd.DataFrame([given]), prices).to_dict("records")
    return found


@pytest.mark.parametrize(
    ("stated", "is_right"),
    [
        ("12.3", True),
        ("12.30 minutes", True),
        ("12.34", True),
        ("12.4", False),
        ("12.3 of 20", False),
        ("twelve", False),
        (None, False),
        ("unknown", False),
    ],
)
def test_a_number_is_right_to_the_requested_decimals(stated: str | None, is_right: bool) -> None:
    given = answer("a", f"Answer: {stated}", stated, "avg\n12.3\n")
    assert score(question("a", "number", "12.3", 1), given)["is_right"] is is_right


@pytest.mark.parametrize(
    ("stated", "is_right"),
    [("JetBlue Airways", True), ("jetblue airways.", True), ("JetBlue", False), ("unknown", False)],
)
def test_case_and_punctuation_of_a_text_do_not_matter(stated: str, is_right: bool) -> None:
    given = answer("a", f"Answer: {stated}", stated, "name\nJetBlue Airways\n")
    assert score(question("a", "text", "JetBlue Airways"), given)["is_right"] is is_right


@pytest.mark.parametrize(("stated", "is_right"), [("unknown", True), ("Unknown", True), ("17", False)])
def test_questions_that_no_table_can_answer_must_be_refused(stated: str, is_right: bool) -> None:
    found = score(question("a", "unanswerable", None), answer("a", f"Answer: {stated}", stated))
    assert (found["is_right"], found["refused"]) == (is_right, is_right)


def test_questions_without_an_answer_in_these_days_must_be_refused_too() -> None:
    asked = question("a", "number", None, 1)
    assert score(asked, answer("a", "Answer: unknown", "unknown"))["is_right"] is True
    assert score(asked, answer("a", "Answer: 5", "5", "avg\n5\n"))["is_right"] is False


def test_a_number_that_no_tool_returned_is_named() -> None:
    reply = "Of 1,614 flights 12.3% were late, 77 of them by an hour.\nAnswer: 12.3"
    found = score(question("a", "number", "12.3", 1), answer("a", reply, "12.3", "n,late\n1614,12.34\n"))
    assert found["is_right"] is True
    assert found["is_grounded"] is False
    assert found["ungrounded"] == "77"


def test_two_adjacent_columns_are_two_numbers() -> None:
    given = answer("a", "There were 1,614.\nAnswer: 1614", "1614", "carriers,hours\n1,614\n")
    assert score(question("a", "number", "1614", 0), given)["ungrounded"] == "1,614,1614"


def test_a_number_in_the_text_of_another_tool_is_grounded() -> None:
    given = answer("a", "Answer: 1614", "1614")
    given["calls"] = json.dumps(
        [{"tool": "web_search", "arguments": {}, "answer": "It had 1,614 flights.", "failed": False}]
    )
    assert score(question("a", "number", "1614", 0), given)["is_grounded"]


def test_a_number_of_the_question_is_grounded() -> None:
    reply = "On a scale from 0 to 100: 12.3.\nAnswer: 12.3"
    assert score(question("a", "number", "12.3", 1), answer("a", reply, "12.3", "n\n12.3\n"))["is_grounded"]


def test_a_missing_answer_is_neither_right_nor_grounded() -> None:
    found = score(question("a", "number", "12.3", 1), answer("a", "", None))
    assert (found["is_right"], found["is_grounded"], found["refused"]) == (False, False, False)


def test_the_cost_is_tokens_times_prices() -> None:
    prices = Prices(per_million_input_tokens=3.0, per_million_output_tokens=15.0)
    asked, given = question("a", "number", "1", 0), answer("a", "Answer: 1", "1", "n\n1\n")
    found = score(asked, given, prices)
    assert found["tokens"] == 120
    assert found["cost"] == pytest.approx((100 * 3 + 20 * 15) / 1_000_000)
    assert score(asked, given)["cost"] == 0


def test_gaps_are_gaps_however_a_table_was_stored() -> None:
    asked = pd.DataFrame([question("a", "unanswerable", None), question("b", "number", "1", 0)])
    given = pd.DataFrame([answer("a", "I cannot say.", None), answer("b", "Answer: 1", "1", "n\n1\n")])
    given["stated"] = given["stated"].where(given["stated"].notna(), float("nan"))
    found = scores_of(asked, given, FREE).set_index("id")
    assert found.loc["a", "stated"] is None
    assert not found.loc["a", "refused"]
    assert found.loc["b", "is_right"]


def test_two_answers_to_one_question_are_refused() -> None:
    asked, given = question("a", "number", "1", 0), answer("a", "Answer: 1", "1")
    with pytest.raises(pd.errors.MergeError):
        scores_of(pd.DataFrame([asked]), pd.DataFrame([given, given]), FREE)


def test_a_number_in_the_error_of_a_tool_is_not_grounded() -> None:
    given = answer("a", "It was 77.", "77", "Error: near 77: syntax error")

    assert score(question("a", "number", "77", 0), given)["is_grounded"] is False


def test_answers_to_other_questions_are_not_evaluated() -> None:
    asked = pd.DataFrame([question("a", "number", "1", 0), question("b", "number", "2", 0)])
    given = pd.DataFrame([answer("a", "Answer: 1", "1")])

    with pytest.raises(PermanentFailure, match="other questions"):
        scores_of(asked, given, FREE)
    with pytest.raises(PermanentFailure, match="other questions"):
        scores_of(asked[:1], pd.DataFrame([answer("a", "Answer: 1", "1", question="Another?")]), FREE)
