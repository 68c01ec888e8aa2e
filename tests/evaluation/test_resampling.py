"""Tests the scores of draws, compared with scikit-learn's on the same rows and with each other."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ledgerline.evaluation.calibration import calibration_bins
from ledgerline.evaluation.kinds import Binary
from ledgerline.evaluation.metrics import Draw, Metric, Rows
from ledgerline.evaluation.resampling import ModelScorer, paired_scores, paired_slice_scores
from ledgerline.evaluation.samples import Sample
from tests.evaluation import peers

METRICS = Binary().metrics


def random_sample(seed: int, rows: int = 600, clusters: int = 12) -> Sample:
    """Return two informative models with ties and with some predictions of 0 and 1."""
    random = np.random.default_rng(seed)
    knowledge = random.normal(size=(3, rows))
    outcome = knowledge.sum(axis=0) > 0.5
    staging, production = (
        np.round(1 / (1 + np.exp(-knowledge[number] - knowledge[2])), 2) for number in range(2)
    )
    return Sample(outcome, staging, production, np.arange(rows) % clusters)


def binary(*names: str) -> list[Metric]:
    return [Binary().metric(name) for name in names]


def drawn(
    outcome: NDArray[np.bool_],
    prediction: NDArray[np.float64],
    clusters: NDArray[np.intp],
    weights: NDArray[np.floating],
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, NDArray[np.float64]]:
    """Scores of draws that are given by their weights: a row for each, a column for each cluster."""
    rows = Rows(outcome, prediction, clusters, weights.shape[1])
    counted = np.bincount(clusters, minlength=weights.shape[1]).astype(float)
    return ModelScorer(rows, metrics).scores(Draw.of(weights, counted))


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(database=None, deadline=None, max_examples=25)
def test_scores_of_all_rows_are_those_of_scikit_learn(seed: int, digits: int) -> None:
    sample = random_sample(seed)
    probability = np.round(sample.staging, digits)
    found = drawn(sample.outcome, probability, sample.clusters, np.ones((1, 12)))
    expected = peers.binary(sample.outcome, probability)
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, abs=1e-9)


def test_one_probability_for_all_rows_is_one_bin() -> None:
    outcome, clusters = np.array([True, False, False, False]), np.array([0, 1, 0, 1])
    found = drawn(outcome, np.full(4, 0.5), clusters, np.ones((1, 2)))
    assert found["calibration_error"][0] == 0.25
    assert found["roc_auc"][0] == 0.5
    assert found["pr_auc"][0] == 0.25


def test_bins_are_those_of_pandas() -> None:
    sample = random_sample(3)
    table = peers.calibration(sample.outcome, sample.staging)
    assert np.bincount(calibration_bins(sample.staging)).tolist() == table["rows"].tolist()


def test_the_calibration_error_of_a_draw_keeps_the_bins_of_all_rows() -> None:
    sample = random_sample(4)
    weights = np.random.default_rng(1).integers(0, 4, size=(1, 12))
    found = drawn(sample.outcome, sample.staging, sample.clusters, weights.astype(float))
    rows = np.repeat(np.arange(len(sample.outcome)), weights[0][sample.clusters])
    bins = calibration_bins(sample.staging)[rows]
    gaps = [
        abs(sample.staging[rows][bins == number].sum() - sample.outcome[rows][bins == number].sum())
        for number in np.unique(bins)
    ]
    assert found["calibration_error"][0] == pytest.approx(sum(gaps) / len(rows))


def test_a_draw_has_as_many_clusters_as_there_are_each_as_likely_and_some_more_than_once() -> None:
    # The loss of a row is 8 ** -cluster, so that a sum of them identifies the drawn clusters.
    outcome = np.array([True, False] * 4)
    clusters = np.repeat(np.arange(4), 2)
    sure = np.sqrt(np.repeat([1, 1 / 8, 1 / 64, 1 / 512], 2))
    sample = Sample(outcome, np.where(outcome, 1 - sure, sure), outcome.astype(float), clusters)
    sums = -paired_scores(sample, binary("brier"), 4000, seed=1)["brier"].gains * 4
    counts = np.stack([np.floor(np.round(sums * 512) / 8**power) % 8 for power in (3, 2, 1, 0)])
    assert set(counts.sum(axis=0)) == {4}
    assert counts.mean(axis=1) == pytest.approx([1, 1, 1, 1], abs=0.06)
    assert counts.var(axis=1) == pytest.approx([0.75] * 4, abs=0.06)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_a_slice_of_all_rows_is_scored_as_all_rows_are_draw_by_draw(metric: str) -> None:
    sample = random_sample(5)
    (whole, half) = paired_slice_scores(
        sample, Binary().metric(metric), [np.ones(600, dtype=bool), np.arange(600) < 300], 500, seed=9
    )
    expected = paired_scores(sample, binary(metric), 500, seed=9)[metric]
    assert (whole.staging, whole.production) == pytest.approx((expected.staging, expected.production))
    np.testing.assert_allclose(whole.gains, expected.gains, atol=1e-12)
    assert half.staging != whole.staging


def test_the_same_seed_gives_the_same_draws_and_another_does_not() -> None:
    sample = random_sample(6)
    first, again, other = (paired_scores(sample, METRICS, 200, seed) for seed in (1, 1, 2))
    for metric in METRICS:
        np.testing.assert_array_equal(first[metric.name].gains, again[metric.name].gains)
        assert not np.array_equal(first[metric.name].gains, other[metric.name].gains)


def test_more_draws_begin_with_the_same_ones() -> None:
    sample = random_sample(7, rows=3000, clusters=3000)  # a thousand draws do not fit into memory at once
    few, many = (paired_scores(sample, binary("brier"), draws, 1)["brier"].gains for draws in (10, 1000))
    assert many.shape == (1000,)
    np.testing.assert_allclose(many[:10], few)


def test_equal_predictions_have_a_gain_of_exactly_zero() -> None:
    sample = random_sample(8)
    same = Sample(sample.outcome, sample.staging, sample.staging.copy(), sample.clusters)
    for scores in paired_scores(same, METRICS, 200, seed=1).values():
        assert scores.staging == scores.production
        assert (scores.gains == 0).all()


def test_a_draw_of_one_outcome_has_no_ranking_but_a_loss() -> None:
    outcome = np.array([True, True, False, False])
    predicted = np.array([0.9, 0.4, 0.6, 0.1])
    sample = Sample(outcome, predicted, 1 - predicted, np.array([0, 0, 1, 1]))
    scores = paired_scores(sample, METRICS, 400, seed=1)
    assert np.isnan(scores["roc_auc"].gains).mean() == pytest.approx(0.5, abs=0.1)
    assert np.isnan(scores["pr_auc"].gains).mean() == pytest.approx(0.25, abs=0.1)
    assert not np.isnan(scores["log_loss"].gains).any()
    assert not np.isnan(scores["calibration_error"].gains).any()


def test_a_draw_without_a_row_of_a_slice_has_no_loss_of_it() -> None:
    sample = random_sample(9, clusters=3)
    (scores,) = paired_slice_scores(sample, Binary().metric("brier"), [sample.clusters == 0], 900, seed=1)
    assert np.isnan(scores.gains).mean() == pytest.approx((2 / 3) ** 3, abs=0.05)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_gain_is_positive_where_staging_is_better(metric: Metric) -> None:
    outcome = np.array([True, False] * 50)
    good, bad = np.where(outcome, 0.8, 0.2), np.where(outcome, 0.2, 0.8)
    sample = Sample(outcome, good, bad, np.arange(100) // 10)
    scores = paired_scores(sample, (metric,), 50, seed=1)[metric.name]
    assert metric.gain(scores.staging, scores.production) > 0
    assert (scores.gains > 0).all()
