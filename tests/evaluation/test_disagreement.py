"""Tests the disagreement of two predictions: other decisions, rounding, and incomparable values."""

from typing import Any

import numpy as np
import pytest

from ledgerline.evaluation.disagreement import NotComparableError, disagreement


def decided(one: Any, other: Any) -> int:
    return disagreement({"": np.array(one)}, {"": np.array(other)}).decided_differently


def test_the_highest_score_of_the_classes_decides() -> None:
    found = disagreement(
        {"": np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])},
        {"": np.array([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])},
    )
    assert (found.rows, found.decided_differently, found.answered_differently) == (3, 1, 2)
    assert found.share == pytest.approx(1 / 3)
    assert found.mean_difference == pytest.approx((0.3 + 0.2) / 3)
    assert found.largest_difference == pytest.approx(0.3)


def test_a_tie_broken_by_rounding_is_the_same_decision() -> None:
    assert decided([[0.5, 0.5]], [[0.5 - 1e-12, 0.5 + 1e-12]]) == 0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0], [1.0 + 1e-9, 2.0], 0),
        ([1.0, 2.0], [1.0 + 1e-5, 2.0], 1),
        ([0.0], [1e-15], 0),
        ([1e9], [1e9 + 1], 0),
        ([np.nan, np.nan], [np.nan, 1.0], 1),
        ([np.inf, np.inf, -np.inf], [np.inf, -np.inf, 1.0], 2),
        ([[1.0], [2.0]], [[1.0], [2.5]], 1),
        ([1, 2, 2**60], [1, 3, 2**60 + 1], 2),
        ([1, 2], [1.0, 2.0], 0),
        ([True, False], [True, True], 1),
        (["late", "on time"], ["late", "late"], 1),
    ],
)
def test_different_decisions_are_counted(one: Any, other: Any, expected: int) -> None:
    assert decided(one, other) == expected


def test_missing_labels_are_the_same_as_missing_ones() -> None:
    ours = np.array(["late", None, None, float("nan")], dtype=object)
    theirs = np.array(["late", None, "late", None], dtype=object)
    found = disagreement({"label": ours}, {"label": theirs})
    assert found.decided_differently == 1
    assert (found.mean_difference, found.largest_difference) == (None, None)


def test_a_row_differs_if_any_of_its_columns_does() -> None:
    one = {"label": np.array(["a", "b", "c"]), "score": np.array([0.1, 0.2, 0.3])}
    other = {"score": np.array([0.1, 0.2, 0.4]), "label": np.array(["a", "x", "c"])}
    assert disagreement(one, other).decided_differently == 2


def test_no_rows_have_no_share() -> None:
    found = disagreement({"": np.empty((0, 2))}, {"": np.empty((0, 2))})
    assert (found.rows, found.decided_differently, found.share) == (0, 0, None)


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        (
            {"": np.zeros((2, 2))},
            {"": np.zeros((2, 3))},
            r"\(2, 2\) in one prediction and \(2, 3\) in the other",
        ),
        ({"": np.zeros(2)}, {"label": np.zeros(2)}, r"columns \(unnamed\), and the other has label"),
        (
            {"x": np.zeros(2)},
            {"x": np.array(["a", "b"])},
            "column x is float64 in one prediction and <U1 in the other",
        ),
        (
            {"x": np.zeros(2), "y": np.zeros(3)},
            {"x": np.zeros(2), "y": np.zeros(3)},
            r"\(3,\), and there are 2 rows",
        ),
        (
            {"x": np.zeros(2)},
            {"x": np.array([True, False])},
            "float64 in one prediction and bool in the other",
        ),
        ({}, {}, "no columns"),
    ],
)
def test_answers_of_another_kind_cannot_be_compared(one: Any, other: Any, problem: str) -> None:
    with pytest.raises(NotComparableError, match=problem):
        disagreement(one, other)
