"""Tests failures that have a reason in common."""

import pytest

from ledgerline.ledger.observer import Report
from ledgerline.ledger.reasons import Reason, by_reason

FIRST, SECOND = "0b2ba5e4-7c2f-4a3d-9c2d-6f1f3ad6d8d1", "9d7a2f44-15f8-4a0e-8b61-3a3fbf0f9c11"


def test_errors_that_differ_in_ids_and_numbers_are_one_reason_with_an_example_and_a_count() -> None:
    failures = {
        FIRST: f"MLflow at http://127.0.0.1:5000 refuses run {FIRST} (tried 3 times, /tmp/tmp1a2b)",
        SECOND: f"MLflow at http://127.0.0.1:5000 refuses run {SECOND} (tried 4 times, /tmp/tmp9z8y)",
    }
    assert by_reason(failures) == [Reason(FIRST, failures[FIRST], 2)]


def test_different_reasons_stay_apart_the_most_frequent_first() -> None:
    failures = {"a": "no such experiment", "b": "the disk is full", "c": "the disk is full"}
    assert by_reason(failures) == [
        Reason("b", "the disk is full", 2),
        Reason("a", "no such experiment", 1),
    ]


@pytest.mark.parametrize(
    ("failures", "report"),
    [
        (
            {"run 1": Exception("no disk"), "run 2": Exception("no disk"), "run 3": Exception("no disk")},
            "run 1 and 2 more cannot be exported: no disk",
        ),
        ({"run 1": Exception("no disk")}, "run 1 cannot be exported: no disk"),
    ],
)
def test_a_report_names_each_reason_once(failures: dict[str, Exception], report: str) -> None:
    assert str(Report(failures=failures)).split("; ")[1:] == [report]
