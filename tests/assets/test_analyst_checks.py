"""Tests the checks that compare scores with earlier ones."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetCheckEvaluation

from tests.assets.analyst_runs import Evaluations, answers_all, evaluation_job, evaluations

AS_RIGHT, AS_GROUNDED, AS_CHEAP = "as_right_as_before", "as_grounded_as_before", "as_cheap_as_before"
IDS = tuple("abcdefghij")


@pytest.fixture
def runs(tmp_path: Path, two_days: Path, mlflow_template: Path) -> Iterator[Evaluations]:
    with evaluations(tmp_path, two_days, mlflow_template, answers_all()) as (runs, _):
        yield runs


def questions(ids: Sequence[str] = IDS) -> list[Mapping[str, Any]]:
    return [
        {
            "id": key,
            "question": f"What is {key}?",
            "kind": "number",
            "expected": "1",
            "decimals": 0,
            "sql": "-",
        }
        for key in ids
    ]


def answers(
    ids: Sequence[str], wrong: str = "", ungrounded: str = "", tokens: int = 100
) -> list[Mapping[str, Any]]:
    return [
        {
            "id": key,
            "question": f"What is {key}?",
            "answer": "Answer: 2" if key in wrong else "Answer: 1",
            "stated": "2" if key in wrong else "1",
            "tools": "query_flights",
            "calls": json.dumps(
                [{"tool": "query_flights", "arguments": {}, "answer": told, "failed": False}]
            ),
            "turns": 2,
            "input_tokens": tokens,
            "output_tokens": 0,
            "seconds": 1.0,
            "outcome": "answered",
            "stopped_by": None,
            "model": "qwen3:8b",
            "prompt": "analyst",
            "prompt_version": 1,
            "trace_id": None,
            "span_id": None,
        }
        for key in ids
        for told in ("n\n3\n" if key in ungrounded else "n\n1\n2\n",)
    ]


def evaluated(runs: Evaluations, **how: Any) -> dict[str, AssetCheckEvaluation]:
    """Evaluate such answers, and return the results of the checks by name."""
    ids = how.pop("ids", IDS)
    runs.store("analyst_questions", questions(ids))
    runs.store("analyst_answers", answers(ids, **how))
    result = runs.run("analyst_scores")
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {check.severity for check in checks.values()} == {dg.AssetCheckSeverity.WARN}
    return checks


def failed(checks: Mapping[str, AssetCheckEvaluation]) -> set[str]:
    return {name for name, check in checks.items() if not check.passed}


def test_the_first_scores_are_compared_with_nothing_and_the_same_pass(runs: Evaluations) -> None:
    first, same = evaluated(runs), evaluated(runs)
    assert failed(first) == failed(same) == set()
    assert {check.description for check in first.values()} == {"Not compared: there are no previous scores."}
    assert (
        same[AS_RIGHT].description
        == "0 answers are wrong that were right before, and 0 are right that were wrong."
    )
    assert same[AS_GROUNDED].description == "100% of the answers are grounded, 100% before."
    assert same[AS_CHEAP].description == "1,000 tokens, 1,000 before."


def test_one_more_wrong_answer_is_chance_and_two_are_named(runs: Evaluations) -> None:
    evaluated(runs)
    assert failed(evaluated(runs, wrong="a")) == set()
    worse = evaluated(runs, wrong="abc")
    assert failed(worse) == {AS_RIGHT}
    assert worse[AS_RIGHT].metadata["lost"].value == ["b", "c"]
    assert worse[AS_RIGHT].metadata["won"].value == []
    assert "2 answers are wrong that were right before" in str(worse[AS_RIGHT].description)


def test_as_many_better_as_worse_answers_pass(runs: Evaluations) -> None:
    evaluated(runs, wrong="abc")
    other = evaluated(runs, wrong="def")
    assert failed(other) == set()
    assert other[AS_RIGHT].metadata["lost"].value == ["d", "e", "f"]
    assert other[AS_RIGHT].metadata["won"].value == ["a", "b", "c"]


def test_ungrounded_numbers_and_too_many_tokens_are_reported(runs: Evaluations) -> None:
    evaluated(runs)
    assert failed(evaluated(runs, ungrounded="a")) == {AS_GROUNDED}
    assert failed(evaluated(runs, ungrounded="a", tokens=150)) == set()
    assert failed(evaluated(runs, ungrounded="a", tokens=226)) == {AS_CHEAP}


def test_answers_to_other_questions_are_not_compared(runs: Evaluations) -> None:
    evaluated(runs)
    others = evaluated(runs, ids=IDS[:5], wrong="abcde", tokens=900)
    assert failed(others) == set()
    assert {check.description for check in others.values()} == {
        "Not compared: the previous questions were different."
    }


def test_reported_materialisations_are_not_compared_with(runs: Evaluations) -> None:
    runs.instance.report_runless_asset_event(dg.AssetMaterialization("analyst_scores"))
    assert failed(evaluated(runs)) == set()


def check_alone(runs: Evaluations) -> dg.ExecuteInProcessResult:
    """Execute one check, and nothing else."""
    key = dg.AssetCheckKey(dg.AssetKey("analyst_scores"), AS_RIGHT)
    job = evaluation_job(runs.environment, "in_process")
    alone = job.get_subset(asset_selection=set(), asset_check_selection={key})
    return alone.execute_in_process(instance=runs.instance, raise_on_error=False)


def problem_of(result: dg.ExecuteInProcessResult) -> str:
    failure = result.failure_data_for_node("analyst_scores_checks")
    assert failure is not None
    return str(failure.error)


def test_a_check_can_be_executed_alone(runs: Evaluations) -> None:
    evaluated(runs)
    evaluated(runs, wrong="abc")
    (check,) = check_alone(runs).get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (AS_RIGHT, False)


def test_reported_materialisations_have_no_scores(runs: Evaluations) -> None:
    runs.instance.report_runless_asset_event(dg.AssetMaterialization("analyst_scores"))
    assert "Materialise it first" in problem_of(check_alone(runs))


def test_without_scores_the_checks_report_that_there_are_none(runs: Evaluations) -> None:
    assert "analyst_scores has no scores" in problem_of(check_alone(runs))
