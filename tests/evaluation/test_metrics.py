"""Tests custom metrics, and the direction of metrics."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ledgerline.evaluation.comparison import compare
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.metrics import Metric, Rows, row_metric
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.scorers import Moments

ROWS = 300
OUTCOME = np.arange(ROWS) % 5.0
CLUSTERS = np.arange(ROWS) // 10
OPTIONS: Any = {"clusters": CLUSTERS, "resamples": 100}


def compared(metric: Metric, **options: Any) -> Any:
    found = compare(
        Regression(), OUTCOME, OUTCOME + 1, OUTCOME + 2, metrics=[metric], **{**OPTIONS, **options}
    )
    return found.difference(metric.name)


def test_a_custom_metric_is_compared_as_any_other() -> None:
    cost = row_metric("cost", by_row=lambda outcome, prediction: (prediction - outcome) * 10)
    profit = row_metric("profit", lambda outcome, prediction: prediction - outcome, lower_is_better=False)
    dear, dear_profit = compared(cost), compared(profit)
    assert (dear.staging, dear.production, dear.gain, dear.low, dear.high) == (10, 20, 10, 10, 10)
    assert (dear_profit.gain, dear_profit.lower_is_better) == (-1, False)


def test_a_custom_metric_has_slices() -> None:
    cost = row_metric("cost", by_row=lambda outcome, prediction: np.where(outcome > 2, 9.0, prediction))
    found = compare(
        Regression(),
        OUTCOME,
        OUTCOME + 1,
        OUTCOME + 2,
        slices={"high": OUTCOME > 2},
        slice_metric=cost,
        **OPTIONS,
    )
    assert [(each.value, each.gain) for each in found.slices] == [("False", 1.0), ("True", 0.0)]
    assert found.slice_metric == "cost"


def test_a_metric_of_classes_gets_numbers_of_classes_and_a_column_for_each() -> None:
    costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    cost = row_metric("cost", by_row=lambda outcome, predicted: costs[outcome, predicted.argmax(axis=1)])
    labels = np.where(np.arange(ROWS) % 3 == 0, "bad", "good")
    always_good = np.tile([0.25, 0.75], (ROWS, 1))
    found = compare(
        Multiclass(("bad", "good")), labels, always_good, always_good[:, ::-1], metrics=[cost], **OPTIONS
    )
    assert found.difference("cost").staging == pytest.approx(1 / 3)
    assert found.difference("cost").production == pytest.approx(5 * 2 / 3)


@pytest.mark.parametrize(
    ("by_row", "message"),
    [
        (lambda outcome, predicted: 1.0, r"metric cost returned an array of shape \(\) for 300 rows"),
        (
            lambda outcome, predicted: predicted[:3],
            r"metric cost returned an array of shape \(3,\) for",
        ),
        (lambda outcome, predicted: np.stack([outcome] * 2, 1), r"shape \(300, 2\) for 300 rows"),
        (
            lambda outcome, predicted: np.where(outcome == 2, np.nan, 1),
            "cost is nan for 60 of 300 .* row 2;",
        ),
        (
            lambda outcome, predicted: np.where(outcome == 3, np.inf, 1),
            "cost is inf for 60 of 300 .* row 3;",
        ),
        (lambda outcome, predicted: np.where(outcome == 3, 1e200, 1), r"cost is 1e\+200 for 60 .*1e\+150"),
        (
            lambda outcome, predicted: ["dear"] * len(outcome),
            "metric cost holds something other than",
        ),
        (lambda outcome, predicted: None, r"metric cost returned an array of shape \(\)"),
    ],
)
def test_a_metric_that_returns_something_else_is_named(by_row: Any, message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        compared(row_metric("cost", by_row=by_row))


@pytest.mark.parametrize(
    "by_row",
    [
        lambda outcome, prediction: [abs(o - p) for o, p in zip(outcome, prediction, strict=True)],
        lambda outcome, prediction: pd.Series(prediction - outcome, index=np.arange(ROWS)[::-1]),
        lambda outcome, prediction: (prediction - outcome).astype(int),
        lambda outcome, prediction: pd.array(prediction - outcome, dtype="Float64"),
    ],
    ids=["list", "series", "whole numbers", "nullable"],
)
def test_a_metric_may_return_any_column_of_numbers(by_row: Any) -> None:
    assert compared(row_metric("cost", by_row=by_row)).gain == 1


def test_a_metric_that_raises_is_named() -> None:
    def by_row(outcome: Any, prediction: Any) -> Any:
        raise KeyError("price")

    with pytest.raises(KeyError) as caught:
        compared(row_metric("cost", by_row=by_row))
    assert caught.value.__notes__ == ["Raised by the function of the metric cost."]


def test_a_metric_cannot_change_the_rows_for_others() -> None:
    def by_row(outcome: Any, prediction: Any) -> Any:
        prediction += 1
        return prediction

    with pytest.raises(ValueError, match="read-only"):
        compared(row_metric("cost", by_row=by_row))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name of a metric is ''"),
        ({"name": "mean cost"}, "name of a metric is 'mean cost'"),
        ({"name": 3}, "name of a metric is 3"),
        ({"by_row": None}, "metric cost needs either by_row or a scorer"),
        ({"by_row": abs, "scorer": Moments}, "metric cost needs either by_row or a scorer"),
        ({"by_row": 3}, "by_row or scorer of the metric cost is 3"),
        ({"lower_is_better": "yes"}, "lower_is_better of the metric cost is 'yes'"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metric(**{"name": "cost", "lower_is_better": True, "by_row": abs, **options})


def test_a_coverage_is_better_the_nearer_it_is_to_its_target_from_either_side() -> None:
    coverage = Quantiles((0.1, 0.9)).metric("interval_coverage")
    assert coverage.gain(0.8, 0.9) == pytest.approx(0.1)
    assert coverage.gain(1.0, 0.7) == pytest.approx(-0.1)
    assert coverage.gain(np.array([0.7, 0.8]), np.array([0.9, 0.9])) == pytest.approx([0.0, 0.1])
    assert not coverage.is_defined_for_slices


def test_metrics_that_share_a_scorer_prepare_the_rows_once() -> None:
    made = []

    def scorer(rows: Rows) -> Moments:
        made.append(len(rows.outcome))
        return Moments(rows)

    shared = [Metric(name, lower_is_better=True, scorer=scorer) for name in ("rmse", "bias")]
    found = compare(Regression(), OUTCOME, OUTCOME + 1, OUTCOME + 2, metrics=shared, **OPTIONS)
    assert [each.gain for each in found.differences] == [1, 1]
    assert made == [ROWS, ROWS]  # once for each model


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(ComparisonError, match="More than one metric has the name brier"):
        compare(Binary(), [1, 0], [1, 0], [0, 1], clusters=[1, 2], metrics=["brier", "brier"])
