"""Tests comparisons of every kind of prediction: numbers, intervals, and odd rows."""

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ledgerline.evaluation.comparison import Comparison, compare
from ledgerline.evaluation.kinds import Multiclass, Quantiles, Regression
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError
from tests.evaluation import peers

DAYS, ROWS_OF_DAY = 30, 40
LEVELS = (0.1, 0.5, 0.9)
CLASSES = Multiclass(("low", "middle", "high"))

Array = NDArray[Any]


class Season:
    """Days on which two models are wrong together, each in its own way."""

    def __init__(self, seed: int, noise: tuple[float, float], days: int = DAYS) -> None:
        random = np.random.default_rng(seed)
        self.day = np.repeat(np.arange(days), ROWS_OF_DAY)
        known = random.normal(size=len(self.day))
        self.outcome = known + random.normal(size=len(self.day))
        self.predictions = [known + random.normal(0, spread, size=days)[self.day] for spread in noise]

    def regression(self, **options: Any) -> Comparison:
        return self._compared(Regression(), self.outcome, *self.predictions, **options)

    def quantiles(self, **options: Any) -> Comparison:
        spread = np.array([-1.2816, 0.0, 1.2816])
        staging, production = (predictions[:, None] + spread for predictions in self.predictions)
        return self._compared(Quantiles(LEVELS), self.outcome, staging, production, **options)

    def multiclass(self, **options: Any) -> Comparison:
        labels = np.select([self.outcome < -0.7, self.outcome < 0.7], ["low", "middle"], "high")
        return self._compared(CLASSES, labels, *map(of_classes, self.predictions), **options)

    def _compared(
        self, kind: PredictionKind, outcome: Array, *predictions: Array, **options: Any
    ) -> Comparison:
        return compare(kind, outcome, *predictions, **{"clusters": self.day, "resamples": 300, **options})


def of_classes(predictions: Array) -> Array:
    scores = np.exp(np.stack([-2 * predictions, np.zeros(len(predictions)), 2 * predictions], axis=1))
    return scores / scores.sum(axis=1, keepdims=True)


GOOD = Season(1, noise=(0.1, 0.9))


def test_numbers_are_those_of_scikit_learn() -> None:
    spread = np.array([-1.2816, 0.0, 1.2816])
    numbers = np.select([GOOD.outcome < -0.7, GOOD.outcome < 0.7], [0, 1], 2)
    for found, expected in (
        (
            GOOD.regression(),
            [peers.regression(GOOD.outcome, predictions) for predictions in GOOD.predictions],
        ),
        (
            GOOD.quantiles(),
            [
                peers.quantiles(GOOD.outcome, predictions[:, None] + spread, LEVELS)
                for predictions in GOOD.predictions
            ],
        ),
        (
            GOOD.multiclass(),
            [peers.multiclass(numbers, of_classes(predictions)) for predictions in GOOD.predictions],
        ),
    ):
        for name, scores in zip(("staging", "production"), expected, strict=True):
            compared = {each.metric: getattr(each, name) for each in found.differences}
            assert compared == pytest.approx(scores, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("make", [Season.regression, Season.quantiles, Season.multiclass])
def test_the_better_model_gains_for_sure_in_the_metric_that_decides(make: Any) -> None:
    found = make(GOOD)
    decides = found.difference(found.kind.primary_metric)
    assert 0 < decides.low < decides.at_least < decides.gain < decides.high
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()
    assert found.as_dict()["kind"]["name"] == found.kind.name
    assert found.undefined == ()


@pytest.mark.parametrize(
    "make", [Season.regression, Season.quantiles, Season.multiclass], ids=["numbers", "quantiles", "classes"]
)
def test_intervals_have_their_nominal_coverage(make: Any) -> None:
    """Both models are equally good, so the truth is 0; three standard deviations of the share are 0.038."""
    trials, alpha = 300, 0.05
    missed = lucky = 0
    for seed in range(trials):
        season = Season(seed, noise=(0.4, 0.4))
        name = {"regression": "absolute_error", "quantiles": "pinball_loss"}.get(make.__name__, "log_loss")
        found = make(season, metrics=[name], resamples=200).difference(name)
        missed += not found.low <= 0 <= found.high
        lucky += found.at_least > 0
    assert missed / trials == pytest.approx(alpha, abs=0.038)
    assert lucky / trials == pytest.approx(alpha, abs=0.038)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_a_comparison_of_numbers_is_the_same_in_any_unit(scale: float) -> None:
    plain = GOOD.regression()
    scaled = compare(
        Regression(),
        GOOD.outcome * scale,
        *(predictions * scale for predictions in GOOD.predictions),
        clusters=GOOD.day,
        resamples=300,
    )
    for one, other in zip(plain.differences, scaled.differences, strict=True):
        unit = 1 if one.metric == "r2" else scale
        for name in ("staging", "production", "gain", "low", "high", "at_least"):
            assert getattr(other, name) == pytest.approx(getattr(one, name) * unit, rel=1e-6)


def test_outcomes_that_are_all_the_same_leave_the_variance_undefined() -> None:
    found = compare(
        Regression(), [0.1] * 40, [0.2] * 40, [0.4] * 40, clusters=np.arange(40) // 10, resamples=100
    )
    assert found.undefined == ("r2",)
    assert [each.metric for each in found.differences] == ["absolute_error", "rmse", "bias"]
    assert found.difference("bias").gain == pytest.approx(0.2)
    assert found.facts == {"mean": pytest.approx(0.1), "standard_deviation": pytest.approx(0)}
    with pytest.raises(ComparisonError, match="r2 is not defined on these rows"):
        found.difference("r2")
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_class_that_does_not_occur_leaves_its_ranking_undefined() -> None:
    labels = np.where(GOOD.outcome < 0, "low", "high")
    found = compare(CLASSES, labels, *map(of_classes, GOOD.predictions), clusters=GOOD.day, resamples=100)
    assert found.undefined == ("roc_auc",)
    assert found.facts["rows_by_class"]["middle"] == 0
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_class_in_few_clusters_leaves_its_ranking_without_an_interval() -> None:
    labels = np.select([GOOD.day == 3, GOOD.outcome < 0], ["middle", "low"], "high")
    found = compare(CLASSES, labels, *map(of_classes, GOOD.predictions), clusters=GOOD.day, resamples=200)
    ranked = found.difference("roc_auc")
    assert (ranked.low, ranked.high, ranked.at_least) == (None, None, None)
    assert found.difference("log_loss").at_least is not None
    assert found.difference("macro_f1").at_least is not None


def test_rows_of_one_class_cannot_be_compared() -> None:
    with pytest.raises(ComparisonError, match=r"All 1,200 rows have the class 'low'.*several classes"):
        compare(CLASSES, ["low"] * len(GOOD.day), *map(of_classes, GOOD.predictions), clusters=GOOD.day)


@pytest.mark.parametrize("make", [Season.regression, Season.quantiles, Season.multiclass])
def test_two_clusters_are_enough_for_a_wide_interval(make: Any) -> None:
    two, thirty = make(Season(2, (0.1, 0.9), days=2)), make(Season(2, (0.1, 0.9)))
    decides = two.kind.primary_metric
    found, sure = two.difference(decides), thirty.difference(decides)
    assert math.isfinite(found.low)
    assert found.high - found.low > 5 * (sure.high - sure.low)


@pytest.mark.parametrize("make", [Season.regression, Season.quantiles, Season.multiclass])
def test_equal_predictions_have_no_significant_gain(make: Any) -> None:
    season = Season(3, (0.5, 0.5))
    season.predictions[1] = season.predictions[0]
    found = make(season, slices={"parity": season.day % 2})
    for each in (*found.differences, *found.slices):
        assert (each.gain, each.low, each.high) == (0, 0, 0)
    assert found.staging_calibration == found.production_calibration


def test_a_baseline_may_predict_one_value_for_all_rows() -> None:
    season = Season(1, noise=(0.1, 0.9))
    season.predictions[1] = np.zeros(len(season.day))
    found = season.regression()
    assert [point.predicted for point in found.production_calibration] == [0.0]
    assert found.production_calibration[0].rows == len(season.day)
    assert found.difference("r2").production == pytest.approx(0, abs=0.01)


def test_calibration_has_the_mean_predictions_and_outcomes() -> None:
    numbers = GOOD.regression().staging_calibration
    table = peers.calibration(GOOD.outcome, GOOD.predictions[0])
    assert [point.predicted for point in numbers] == pytest.approx(table["predicted"].tolist())
    assert [point.observed for point in numbers] == pytest.approx(table["observed"].tolist())
    levels = GOOD.quantiles().staging_calibration
    assert [point.predicted for point in levels] == list(LEVELS)
    assert [point.observed for point in levels] == pytest.approx(LEVELS, abs=0.03)
    classes = GOOD.multiclass().staging_calibration
    assert list(dict.fromkeys(point.of_class for point in classes)) == ["low", "middle", "high"]
    assert sum(point.rows for point in classes) == 3 * len(GOOD.day)


@pytest.mark.parametrize(
    ("side", "answer", "message"),
    [
        ("staging", [1.0, math.nan, 2.0], "predictions of staging are NaN, the first in row 1"),
        ("production", [1.0, 2.0, -math.inf], "predictions of production are infinite, the first in row 2"),
        ("production", [1.0, 2.0], "3 outcomes, but production has 2 values"),
    ],
)
def test_the_model_that_answers_wrongly_is_named(side: str, answer: list[float], message: str) -> None:
    answers = {"staging": [1.0, 2.0, 3.0], "production": [1.0, 2.0, 3.0], side: answer}
    with pytest.raises(ComparisonError, match=message):
        compare(Regression(), [1, 2, 3], answers["staging"], answers["production"], clusters=[1, 2, 3])


@pytest.mark.parametrize("make", [Season.regression, Season.quantiles, Season.multiclass])
def test_models_the_other_way_round_have_the_opposite_gains(make: Any) -> None:
    turned = Season(1, noise=(0.1, 0.9))
    turned.predictions.reverse()
    there, back = (make(season, slices={"parity": season.day % 2}) for season in (GOOD, turned))
    for one, other in zip(
        (*there.differences, *there.slices), (*back.differences, *back.slices), strict=True
    ):
        assert (other.staging, other.production) == (one.production, one.staging)
        assert [-other.gain, -other.high, -other.low] == pytest.approx(
            [one.gain, one.low, one.high], abs=1e-12
        )


@pytest.mark.parametrize("make", [Season.regression, Season.quantiles, Season.multiclass])
def test_the_order_of_rows_does_not_matter(make: Any) -> None:
    shuffled = Season(1, noise=(0.1, 0.9))
    order = np.random.default_rng(1).permutation(len(shuffled.day))
    shuffled.day, shuffled.outcome = shuffled.day[order], shuffled.outcome[order]
    shuffled.predictions = [predictions[order] for predictions in shuffled.predictions]
    one, other = (make(season, resamples=2000) for season in (GOOD, shuffled))
    for here, there in zip(one.differences, other.differences, strict=True):
        assert there.gain == pytest.approx(here.gain, abs=1e-12)
        # Days are numbered in the order of rows, so that other ones are drawn.
        assert there.high - there.low == pytest.approx(here.high - here.low, rel=0.1)


def test_something_other_than_a_kind_is_named() -> None:
    with pytest.raises(
        ComparisonError, match=r"Regression.* is not a kind of prediction; pass one, as Regression\(\)"
    ):
        compare(Regression, [1, 2], [1, 2], [1, 2], clusters=[1, 2])  # pyright: ignore[reportArgumentType]
