"""Tests scores of drawn rows for every kind of prediction, compared with scikit-learn on repeated rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ledgerline.evaluation.calibration import calibration_bins
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.metrics import Draw, Rows
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.rankings import MAX_PAIRED_CLUSTERS, ClassRankings, Outranked, Ranking
from ledgerline.evaluation.resampling import ModelScorer, scores_of
from tests.evaluation import peers

CLUSTERS = 4
CLASSES = Multiclass(("low", "middle", "high"))
LEVELS = (0.1, 0.5, 0.9)

Array = NDArray[Any]

WEIGHTS = st.lists(st.integers(0, 3), min_size=CLUSTERS, max_size=CLUSTERS).filter(any)
CLUSTER = st.integers(0, CLUSTERS - 1)
# Few values, so that there are many ties, also across outcomes; tenths, which no double holds exactly.
TENTHS = st.sampled_from([-0.3, 0.0, 0.1, 0.2, 0.3, 0.7, 12.1])
PROBABILITIES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
THREE_PROBABILITIES = st.sampled_from([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.2, 0.7, 0.1]])


def rows_of(outcome: Any, prediction: Any) -> Any:
    return st.lists(st.tuples(outcome, prediction, CLUSTER), min_size=CLUSTERS, max_size=40)


def arrays(rows: list[tuple[Any, Any, int]]) -> tuple[Array, Array, Array]:
    outcome, prediction, clusters = (np.array(column) for column in zip(*rows, strict=True))
    clusters[:CLUSTERS] = np.arange(CLUSTERS)  # each has a row
    return outcome, prediction, clusters


def drawn(
    kind: PredictionKind,
    outcome: Array,
    prediction: Array,
    clusters: Array,
    weights: Any,
    *,
    precision: type[np.floating] = np.float32,
) -> dict[str, float]:
    metrics = [metric for metric in kind.metrics if metric.name != "calibration_error"]
    scorer = ModelScorer(Rows(outcome, prediction, clusters, CLUSTERS), metrics)
    draw = Draw.of(
        np.array([weights], dtype=precision), np.bincount(clusters, minlength=CLUSTERS).astype(float)
    )
    return {name: float(values[0]) for name, values in scorer.scores(draw).items()}


def repeated(outcome: Array, prediction: Array, clusters: Array, weights: Any) -> tuple[Array, Array]:
    times = np.array(weights)[clusters]
    return np.repeat(outcome, times), np.repeat(prediction, times, axis=0)


def without_calibration(scores: dict[str, float]) -> dict[str, float]:
    """The bins of a draw are those of all rows, which repeating rows would move."""
    return {name: value for name, value in scores.items() if name != "calibration_error"}


@pytest.mark.parametrize(("precision", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@given(rows=rows_of(st.booleans(), PROBABILITIES), weights=WEIGHTS)
@settings(database=None, deadline=None)
def test_a_draw_of_true_and_false_is_scored_as_its_rows_are(
    precision: type[np.floating], tolerance: float, rows: list[tuple[bool, float, int]], weights: list[int]
) -> None:
    outcome, prediction, clusters = arrays(rows)
    happened, predicted = repeated(outcome, prediction, clusters, weights)
    assume(0 < happened.sum() < len(happened))
    found = drawn(Binary(), outcome, prediction, clusters, weights, precision=precision)
    assert found == pytest.approx(without_calibration(peers.binary(happened, predicted)), abs=tolerance)


@given(rows=rows_of(st.integers(0, 2), THREE_PROBABILITIES), weights=WEIGHTS)
@settings(database=None, deadline=None)
def test_a_draw_of_classes_is_scored_as_its_rows_are(
    rows: list[tuple[int, list[float], int]], weights: list[int]
) -> None:
    outcome, prediction, clusters = arrays(rows)
    happened, predicted = repeated(outcome, prediction, clusters, weights)
    assume(len(set(happened)) == 3)
    found = drawn(CLASSES, outcome, prediction, clusters, weights)
    assert found == pytest.approx(without_calibration(peers.multiclass(happened, predicted)), abs=1e-6)


@given(rows=rows_of(TENTHS, TENTHS), weights=WEIGHTS, scale=st.sampled_from([1e-12, 1.0, 1e12]))
@settings(database=None, deadline=None)
def test_a_draw_of_numbers_is_scored_as_its_rows_are_in_any_unit(
    rows: list[tuple[float, float, int]], weights: list[int], scale: float
) -> None:
    outcome, prediction, clusters = arrays(rows)
    outcome, prediction = outcome * scale, prediction * scale
    happened, predicted = repeated(outcome, prediction, clusters, weights)
    assume(len(set(happened)) > 1)
    found = drawn(Regression(), outcome, prediction, clusters, weights)
    expected = peers.regression(happened, predicted)
    assert found.pop("r2") == pytest.approx(expected.pop("r2"), rel=1e-9, abs=1e-9)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)


@given(rows=rows_of(TENTHS, st.tuples(TENTHS, TENTHS, TENTHS)), weights=WEIGHTS)
@settings(database=None, deadline=None)
def test_a_draw_of_quantiles_is_scored_as_its_rows_are(
    rows: list[tuple[float, tuple[float, ...], int]], weights: list[int]
) -> None:
    outcome, prediction, clusters = arrays(rows)
    found = drawn(Quantiles(LEVELS), outcome, prediction, clusters, weights)
    expected = peers.quantiles(*repeated(outcome, prediction, clusters, weights), LEVELS)
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 2**32))
@settings(database=None, deadline=None, max_examples=25)
def test_class_wise_calibration_is_the_mean_of_that_of_each_class(seed: int) -> None:
    random = np.random.default_rng(seed)
    prediction = np.round(random.dirichlet((1, 2, 3), 500), 2)
    prediction[:, 2] = 1 - prediction[:, 0] - prediction[:, 1]
    outcome = random.integers(0, 3, 500)
    found = scores_of(outcome, prediction, CLASSES.metrics)
    assert found == pytest.approx(peers.multiclass(outcome, prediction), abs=1e-9)


def test_the_class_wise_calibration_of_a_draw_keeps_the_bins_of_all_rows() -> None:
    random = np.random.default_rng(1)
    prediction, outcome = random.dirichlet((1, 1, 1), 400), random.integers(0, 3, 400)
    clusters, weights = np.arange(400) % CLUSTERS, np.array([[0, 3, 1, 2]])
    rows = np.repeat(np.arange(400), weights[0][clusters])
    expected = []
    for number in range(3):
        bins = calibration_bins(prediction[:, number])[rows]
        gaps = prediction[rows, number] - (outcome[rows] == number)
        expected.append(sum(abs(gaps[bins == each].sum()) for each in np.unique(bins)) / len(rows))
    scorer = ModelScorer(Rows(outcome, prediction, clusters, CLUSTERS), [CLASSES.metric("calibration_error")])
    found = scorer.scores(Draw.of(weights.astype(np.float32), np.full(CLUSTERS, 100.0)))
    assert found["calibration_error"][0] == pytest.approx(np.mean(expected))


def test_two_classes_are_scored_as_true_and_false_are() -> None:
    random = np.random.default_rng(2)
    predicted = random.random(300)
    happened = random.random(300) < predicted
    two = Multiclass(("no", "yes")).score(
        np.where(happened, "yes", "no"), np.stack([1 - predicted, predicted], axis=1)
    )
    one = Binary().score(happened, predicted)
    for name in ("log_loss", "roc_auc"):
        assert two[name] == pytest.approx(one[name])
    assert two["brier"] == pytest.approx(2 * one["brier"])


def test_the_variance_of_outcomes_is_exact_far_from_zero() -> None:
    random = np.random.default_rng(3)
    outcome, prediction = random.normal(size=(2, 400))
    clusters = np.arange(400) % CLUSTERS
    weights = [2, 1, 0, 1]
    near = drawn(Regression(), outcome, prediction, clusters, weights)
    far = drawn(Regression(), outcome + 2**40, prediction + 2**40, clusters, weights)
    assert far == pytest.approx(near, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e12 / 3, 1e-12 / 3, -6e149])
def test_constant_outcomes_leave_no_variance_to_explain(value: float) -> None:
    outcome = np.full(60, value)
    prediction = outcome * np.where(np.arange(60) % 2, 1.5, 0.5) + (1.0 if value == 0 else 0.0)
    found = Regression().score(outcome, prediction)
    assert set(found) == {"absolute_error", "rmse", "bias"}
    assert all(np.isfinite(list(found.values())))


def test_a_draw_of_constant_clusters_has_a_variance_only_where_they_differ() -> None:
    outcome = np.repeat([0.1, 0.3, 0.1, 0.3], 25)
    prediction = outcome + np.tile([0.01, -0.01], 50)
    clusters = np.repeat(np.arange(4), 25)
    same = drawn(Regression(), outcome, prediction, clusters, [1, 0, 3, 0])
    other = drawn(Regression(), outcome, prediction, clusters, [1, 2, 0, 1])
    assert np.isnan(same["r2"])
    assert same["rmse"] == pytest.approx(0.01)
    assert other["r2"] == pytest.approx(1 - 0.01**2 / np.var([0.1, 0.3, 0.3, 0.3]))


def test_a_class_that_neither_occurs_nor_is_predicted_is_not_counted_and_has_no_ranking() -> None:
    outcome = np.array(["low", "low", "high", "high"])
    prediction = np.array([[0.8, 0, 0.2], [0.4, 0, 0.6], [0.1, 0, 0.9], [0.2, 0, 0.8]])
    found = CLASSES.score(outcome, prediction)
    assert "roc_auc" not in found
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["accuracy"] == 0.75


def test_quantiles_that_cross_are_counted_and_have_no_negative_width() -> None:
    found = Quantiles(LEVELS).score([1.0, 1.0], [[0.0, 1.0, 3.0], [4.0, 1.0, 3.0]])
    assert (found["crossing"], found["interval_width"], found["interval_coverage"]) == (0.5, 2.0, 0.5)


def test_one_level_has_no_interval() -> None:
    assert set(Quantiles((0.5,)).score([1.0, 2.0], [1.5, 1.5])) == {"pinball_loss", "coverage_error"}


@given(st.integers(0, 2**32), st.integers(2, 40))
@settings(database=None, deadline=None, max_examples=25)
def test_pairs_of_clusters_count_what_a_walk_along_the_ranking_does(seed: int, clusters: int) -> None:
    random = np.random.default_rng(seed)
    outcome, prediction = random.random(200) < 0.3, np.round(random.random(200), 1)
    rows = Rows(outcome, prediction, np.arange(200) % clusters, clusters)
    counts = random.multinomial(clusters, np.ones(clusters) / clusters, size=50).astype(np.float32)
    draw = Draw.of(counts, np.bincount(rows.clusters).astype(float))
    walked, paired = Ranking(rows).scores(draw)["roc_auc"], Outranked(rows).scores(draw)["roc_auc"]
    np.testing.assert_array_equal(walked, paired)


def test_classes_are_ranked_alike_in_few_and_many_clusters() -> None:
    random = np.random.default_rng(4)
    prediction, outcome = random.dirichlet((1, 1, 1), 300), random.integers(0, 3, 300)
    counts = random.integers(0, 3, size=(5, 10))
    few = Rows(outcome, prediction, np.arange(300) // 30, 10)
    many = Rows(outcome, prediction, np.arange(300), 300)
    assert many.cluster_count > MAX_PAIRED_CLUSTERS
    by_cluster = ClassRankings(few).scores(Draw.of(counts.astype(float), np.full(10, 30.0)))
    by_row = ClassRankings(many).scores(Draw.of(np.repeat(counts, 30, axis=1).astype(float), np.ones(300)))
    assert by_row["roc_auc"] == pytest.approx(by_cluster["roc_auc"], abs=1e-12)
