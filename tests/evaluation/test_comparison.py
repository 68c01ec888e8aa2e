"""Tests of the comparison of two models: its numbers, its intervals, and the rows that it refuses."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ledgerline.evaluation.comparison import Comparison, compare
from ledgerline.evaluation.kinds import Binary
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.slices import MIN_SLICE_CLUSTERS, MIN_SLICE_ROWS
from tests.evaluation import peers

METRICS = tuple(metric.name for metric in Binary().metrics)

DAYS = 30


@dataclass(frozen=True)
class Month:
    """Days on which both models are wrong together, each in its own way.

    Attributes:
        outcome: Whether a row happened.
        staging: The predictions of the first model.
        production: Those of the second.
        day: The day of each row.
    """

    outcome: NDArray[np.bool_]
    staging: NDArray[np.float64]
    production: NDArray[np.float64]
    day: NDArray[np.intp]

    def compared(self, **options: Any) -> Comparison:
        return compare(
            Binary(), self.outcome, self.staging, self.production, **{"clusters": self.day, **options}
        )


def month(seed: int, *, days: int = DAYS, rows: int = 60, noise: tuple[float, float] = (0.5, 0.5)) -> Month:
    """A month, in which staging and production misjudge each day with these standard deviations."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), rows)
    known = random.normal(-1, 1, size=days * rows)
    outcome = random.random(days * rows) < 1 / (1 + np.exp(-known))
    staging, production = (
        1 / (1 + np.exp(-known - random.normal(0, spread, size=days)[day])) for spread in noise
    )
    return Month(outcome, staging, production, day)


GOOD = month(1, rows=200, noise=(0.1, 0.9))


def test_the_numbers_are_those_of_scikit_learn() -> None:
    found = GOOD.compared(resamples=100)
    for name, probability in (("staging", GOOD.staging), ("production", GOOD.production)):
        expected = peers.binary(GOOD.outcome, probability)
        compared = {difference.metric: getattr(difference, name) for difference in found.differences}
        assert compared == pytest.approx(expected, abs=1e-9)
    assert (found.rows, found.clusters, found.resamples) == (6000, 30, 100)
    assert found.facts == {"positives": GOOD.outcome.sum()}


@pytest.mark.parametrize("metric", METRICS)
def test_a_gain_is_positive_where_staging_is_better_and_negative_the_other_way_round(metric: str) -> None:
    turned = replace(GOOD, staging=GOOD.production, production=GOOD.staging)
    better, worse = (models.compared(metrics=(metric,)).difference(metric) for models in (GOOD, turned))
    assert better.gain > 0 > worse.gain
    assert better.gain == pytest.approx(-worse.gain)
    assert better.low is not None
    assert better.high is not None
    assert better.at_least is not None
    assert 0 < better.low < better.at_least < better.gain < better.high
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))


def test_equal_predictions_have_no_significant_gain() -> None:
    same = replace(GOOD, production=GOOD.staging)
    found = same.compared(slices={"parity": GOOD.day % 2})
    for difference in (*found.differences, *found.slices):
        assert (difference.gain, difference.low, difference.high) == (0, 0, 0)
    assert [difference.at_least for difference in found.differences] == [0] * len(METRICS)


def test_the_same_rows_give_the_same_comparison_again() -> None:
    first, again = (GOOD.compared(slices={"parity": GOOD.day % 2}) for _ in range(2))
    assert first == again


def test_the_interval_has_its_nominal_coverage() -> None:
    """Both models are equally good, so the truth is 0; three standard deviations of the share are 0.033."""
    trials, alpha = 400, 0.05
    found = [
        month(seed).compared(metrics=("log_loss",), resamples=300).difference("log_loss")
        for seed in range(trials)
    ]
    outside = [not (each.low or 0) <= 0 <= (each.high or 0) for each in found]
    lucky = [(each.at_least or 0) > 0 for each in found]
    assert sum(outside) / trials == pytest.approx(alpha, abs=0.033)
    assert sum(lucky) / trials == pytest.approx(alpha, abs=0.033)


def test_rows_drawn_one_by_one_would_be_far_too_sure() -> None:
    one_by_one = GOOD.compared(metrics=("log_loss",), clusters=np.arange(len(GOOD.day)))
    by_day = GOOD.compared(metrics=("log_loss",))
    assert width(by_day) > 2 * width(one_by_one)


def width(comparison: Comparison) -> float:
    difference = comparison.difference("log_loss")
    assert difference.low is not None
    assert difference.high is not None
    return difference.high - difference.low


def test_less_confidence_is_a_narrower_interval() -> None:
    assert (
        width(GOOD.compared(alpha=0.01)) > width(GOOD.compared(alpha=0.05)) > width(GOOD.compared(alpha=0.2))
    )


def test_clusters_may_be_named_by_anything() -> None:
    dates = pd.Series(pd.Timestamp("2013-06-01") + pd.to_timedelta(GOOD.day, unit="D"))
    names = dates.dt.strftime("%d %B").astype("category")
    by_date, by_name = (GOOD.compared(clusters=labels, resamples=100) for labels in (dates, names))
    assert by_date == by_name == GOOD.compared(resamples=100)


def test_outcomes_and_probabilities_may_be_columns_of_a_table() -> None:
    table = pd.DataFrame(
        {"late": pd.array(GOOD.outcome, dtype="boolean"), "said": pd.array(GOOD.staging, dtype="Float64")},
        index=np.arange(len(GOOD.day)) + 7,
    )
    found = compare(Binary(), table["late"], table["said"], GOOD.production, clusters=GOOD.day, resamples=100)
    assert found == GOOD.compared(resamples=100)
    assert found == replace(GOOD, outcome=GOOD.outcome.astype(int)).compared(resamples=100)


def test_the_calibration_curve_is_that_of_pandas() -> None:
    found = GOOD.compared(resamples=100)
    table = peers.calibration(GOOD.outcome, GOOD.production)
    assert [point.rows for point in found.production_calibration] == table["rows"].tolist()
    for name in ("predicted", "observed"):
        points = [getattr(point, name) for point in found.production_calibration]
        assert points == pytest.approx(table[name].tolist())
    assert found.staging_calibration != found.production_calibration


def test_each_value_of_each_column_is_a_slice_in_their_order() -> None:
    parity = np.where(GOOD.day % 2, "odd", "even")
    third = pd.Series((GOOD.day // 10).astype(float)).where(GOOD.day < 20)
    found = GOOD.compared(slices={"parity": parity, "third": third}, resamples=100).slices
    assert [(each.column, each.value, each.rows) for each in found] == [
        ("parity", "even", 3000),
        ("parity", "odd", 3000),
        ("third", "0.0", 2000),
        ("third", "1.0", 2000),
    ]
    even = GOOD.day % 2 == 0
    expected = ((GOOD.staging - GOOD.outcome) ** 2)[even].mean()
    assert found[0].staging == pytest.approx(expected)


def test_a_slice_that_is_too_small_is_listed_without_numbers() -> None:
    rows = np.arange(len(GOOD.day))
    labels = np.full(len(rows), "enough", dtype=object)
    punctual = rows[~GOOD.outcome]
    few, single, days = punctual[: MIN_SLICE_ROWS - 1], punctual[-200:], MIN_SLICE_CLUSTERS - 1
    labels[np.isin(GOOD.day, range(5, 5 + days))] = "few days"
    labels[few] = "few rows"
    labels[single] = "one outcome"
    found = {each.value: each for each in GOOD.compared(slices={"kind": labels}, resamples=100).slices}
    assert found["few rows"].rows == MIN_SLICE_ROWS - 1
    assert found["one outcome"].rows == 200
    for name in ("few rows", "one outcome", "few days"):
        each = found[name]
        assert [each.staging, each.production, each.gain, each.low, each.high] == [None] * 5
    assert found["enough"].gain is not None


def test_the_more_slices_the_wider_their_intervals() -> None:
    random = np.random.default_rng(1)
    labels = {f"column {number}": random.integers(0, 4, len(GOOD.day)) for number in range(6)}
    one = GOOD.compared(slices={"column 0": labels["column 0"] == 1}).slices[1]
    many = next(each for each in GOOD.compared(slices=labels).slices if each.value == "1")
    assert many.gain == pytest.approx(one.gain)
    assert one.high is not None
    assert many.high is not None
    assert one.gain is not None
    assert 1.2 < (many.high - one.gain) / (one.high - one.gain) < 2


def test_a_worse_slice_is_detected_although_staging_is_better_overall() -> None:
    small = GOOD.day % 10 == np.arange(len(GOOD.day)) % 10
    spoiled = replace(GOOD, staging=np.where(small, 1 - GOOD.staging, GOOD.staging))
    found = spoiled.compared(slices={"spoiled": small}, slice_metric="log_loss")
    assert found.slice_metric == "log_loss"
    good, bad = found.slices
    assert good.low is not None
    assert bad.high is not None
    assert bad.high < 0 < good.low


def test_slices_of_equally_good_models_are_seldom_called_worse() -> None:
    """All intervals hold at once with 95 %, and half of the misses are this side: 2.5 % of 200, and luck."""
    worse = 0
    for seed in range(200):
        models = month(seed)
        labels = {"carrier": np.random.default_rng(seed).integers(0, 12, len(models.day))}
        found = models.compared(slices=labels, metrics=("brier",), resamples=200)
        worse += any(each.high is not None and each.high < 0 for each in found.slices)
    assert worse <= 13


def test_a_metric_that_hardly_any_draw_defines_has_no_interval() -> None:
    outcome = np.array([True, True, False, False])
    found = compare(
        Binary(), outcome, [0.9, 0.4, 0.6, 0.1], [0.5, 0.5, 0.4, 0.6], clusters=["a", "a", "b", "b"]
    )
    ranked = found.difference("roc_auc")
    assert (ranked.low, ranked.high, ranked.at_least) == (None, None, None)
    assert ranked.staging == 0.75
    assert found.difference("log_loss").at_least is not None


def test_a_comparison_is_json() -> None:
    carriers = np.where(np.arange(len(GOOD.day)) < 10, "ZZ", "AA")
    certain = replace(GOOD, staging=GOOD.outcome.astype(float), production=1.0 - GOOD.outcome)
    for models in (GOOD, certain):
        found = models.compared(slices={"carrier": carriers}, production_name="production version 3")
        document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert document == found.as_dict()
        assert document["production_name"] == "production version 3"
        assert document["slices"][1]["gain"] is None
        assert [each["metric"] for each in document["differences"]] == list(METRICS)


def test_a_metric_that_was_not_compared_is_named() -> None:
    with pytest.raises(ComparisonError, match="compared by brier, not by log_loss"):
        GOOD.compared(metrics=("brier",)).difference("log_loss")


def spoiled(values: NDArray[Any], value: Any) -> NDArray[Any]:
    changed = values.copy()
    changed[3] = value
    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"staging": GOOD.staging[1:]}, "6,000 outcomes, but staging has 5,999 values"),
        ({"production": GOOD.staging[1:]}, "6,000 outcomes, but production has 5,999 values"),
        ({"day": GOOD.day[1:]}, "6,000 outcomes, but clusters has 5,999 values"),
        ({"staging": spoiled(GOOD.staging, np.nan)}, "1 of 6,000 probabilities of staging are NaN.* row 3"),
        ({"production": spoiled(GOOD.staging, 1.5)}, "predictions of production are not probabilities.*1.5"),
        ({"staging": np.stack([GOOD.staging] * 3, 1)}, r"staging has shape \(6000, 3\).*two columns"),
        ({"outcome": np.zeros(6000, dtype=bool)}, "All 6,000 rows are negative"),
        ({"outcome": np.ones(6000, dtype=bool)}, "All 6,000 rows are positive"),
        ({"outcome": GOOD.day}, "neither true nor false"),
        ({"outcome": spoiled(GOOD.outcome.astype(float), np.nan)}, "1 of 6,000 outcomes are missing"),
        ({"outcome": np.array([], dtype=bool)}, "no rows"),
        ({"day": np.zeros(6000)}, "All 6,000 rows are in one cluster"),
        ({"day": spoiled(GOOD.day.astype(float), np.nan)}, "1 of 6,000 rows have no cluster"),
    ],
)
def test_rows_that_cannot_be_compared_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        replace(GOOD, **changed).compared()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("accuracy",)}, "Unknown metrics: accuracy; for binary choose from roc_auc"),
        ({"metrics": ()}, "No metrics are given; for binary choose from roc_auc"),
        ({"slice_metric": "roc_auc"}, "Slices cannot be compared by roc_auc; choose from brier, log_loss"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"resamples": 10}, "10 resamples are too few"),
        ({"slices": {"carrier": ["AA"]}}, "slices by carrier have 1 labels for 6,000 rows"),
    ],
)
def test_an_invalid_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        GOOD.compared(**options)
