"""Tests the drift of predictions and outcomes, for each kind."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.evaluation.drift import on_outcomes, scores_psi
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.stability import population_stability_index

RANDOM = np.random.default_rng(1)
LEARNED, SAME = RANDOM.random((2, 4000))
CLASSES, LEVELS = Multiclass(("a", "b")), Quantiles((0.1, 0.9))


def two(values: Any) -> Any:
    return np.stack([1 - values, values], axis=1)


@pytest.mark.parametrize(
    ("kind", "answer", "columns"),
    [
        (Binary(), two, ["probability"]),
        (CLASSES, two, ["a", "b"]),
        (Regression(), lambda values: values * 1e12, ["value"]),
        (LEVELS, lambda values: np.stack([values, values + 1], axis=1), ["q0.1", "q0.9"]),
    ],
)
def test_each_column_of_predictions_has_an_index(
    kind: PredictionKind, answer: Any, columns: list[str]
) -> None:
    same = scores_psi(kind, answer(LEARNED), answer(SAME))
    other = scores_psi(kind, answer(LEARNED), answer(SAME**2))
    assert list(same) == columns
    assert all(psi < 0.02 for psi in same.values())
    assert all(psi > 0.2 for psi in other.values())


def test_the_index_is_that_of_any_other_column() -> None:
    found = scores_psi(Regression(), LEARNED, SAME**2)
    assert found == {"value": population_stability_index(pd.Series(LEARNED), pd.Series(SAME**2))}


def test_two_different_constant_predictions_differ() -> None:
    assert scores_psi(Regression(), [3.0] * 50, [3.0] * 9) == {"value": 0}
    assert scores_psi(Regression(), [3.0] * 50, [4.0] * 9)["value"] > 1


@pytest.mark.parametrize(
    ("reference", "current", "message"),
    [
        ([], [0.5], "reference_prediction has no rows"),
        ([0.5], [], "prediction has no rows"),
        ([0.5], [1.5], "predictions of prediction are not probabilities"),
    ],
)
def test_missing_predictions_are_named(reference: Any, current: Any, message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        scores_psi(Binary(), reference, current)


def test_outcomes_of_one_class_leave_out_rankings_only() -> None:
    found = on_outcomes(Binary(), [False] * 50, [0.25] * 50)
    assert found["brier"] == 0.0625
    assert found["calibration_error"] == 0.25
    assert "roc_auc" not in found
    assert "roc_auc" not in on_outcomes(CLASSES, ["a"] * 50, [[0.75, 0.25]] * 50)


def test_outcomes_may_be_columns_of_a_table_in_any_order_of_its_index() -> None:
    table = pd.DataFrame({"kwh": [1, 2, 4], "said": [1.5, 2.5, 4.5]}, index=[9, 3, 5])
    found = on_outcomes(Regression(), table["kwh"], table["said"].to_numpy())
    assert (found["absolute_error"], found["bias"]) == (0.5, 0.5)
    assert on_outcomes(LEVELS, [1.0], [[0.0, 2.0]])["interval_coverage"] == 1
