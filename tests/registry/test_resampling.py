"""The scores of draws, beside scikit-learn's on the same rows, and beside each other."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from assets.metrics import calibration, score
from ledgerline.evaluation.resampling import (
    LOSSES,
    METRICS,
    Scorer,
    calibration_bins,
    gain,
    paired_scores,
    paired_slice_losses,
)
from ledgerline.evaluation.samples import Sample

CLUSTERS = 5

# Few values, so that there are many ties, also across outcomes.
ROWS = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]), st.integers(0, CLUSTERS - 1)
    ),
    min_size=2,
    max_size=40,
)
WEIGHTS = st.lists(st.integers(0, 4), min_size=CLUSTERS, max_size=CLUSTERS)


def random_sample(seed: int, rows: int = 600, clusters: int = 12) -> Sample:
    """Two models that know something, round their answers (ties), and say some things with certainty."""
    random = np.random.default_rng(seed)
    knowledge = random.normal(size=(3, rows))
    outcome = knowledge.sum(axis=0) > 0.5
    staging, production = (
        np.round(1 / (1 + np.exp(-knowledge[number] - knowledge[2])), 2) for number in range(2)
    )
    return Sample(outcome, staging, production, np.arange(rows) % clusters)


def scores_of_peer(
    outcome: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, float]:
    options: dict[str, Any] = {"sample_weight": weights}
    return {
        "roc_auc": float(sklearn_metrics.roc_auc_score(outcome, probability, **options)),
        "pr_auc": float(sklearn_metrics.average_precision_score(outcome, probability, **options)),
        "log_loss": float(sklearn_metrics.log_loss(outcome, probability, labels=[False, True], **options)),
        "brier": float(sklearn_metrics.brier_score_loss(outcome, probability, **options)),
    }


@pytest.mark.parametrize(("precision", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@given(rows=ROWS, by_cluster=WEIGHTS)
@settings(database=None, deadline=None)
def test_weighted_scores_are_those_of_scikit_learn_with_ties_too(
    precision: type[np.floating], tolerance: float, rows: list[tuple[bool, float, int]], by_cluster: list[int]
) -> None:
    outcome, probability, clusters = (np.array(column) for column in zip(*rows, strict=True))
    clusters[0] = CLUSTERS - 1  # so that each weight has its cluster's number
    weights = np.array(by_cluster, dtype=float)[clusters]
    assume(0 < weights[outcome].sum() < weights.sum())

    scorer = Scorer(outcome, probability, clusters, ("pr_auc", "log_loss", "brier", "roc_auc"))
    found = scorer.scores(np.array([by_cluster], dtype=precision))

    expected = scores_of_peer(outcome, probability, weights)
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, abs=tolerance)


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(database=None, deadline=None, max_examples=25)
def test_scores_of_all_rows_are_those_that_training_logs(seed: int, digits: int) -> None:
    sample = random_sample(seed)
    probability = np.round(sample.staging, digits)
    found = Scorer(sample.outcome, probability, sample.clusters, METRICS).scores(np.ones((1, 12)))
    logged = score(pd.Series(sample.outcome), pd.Series(probability))
    assert {name: value[0] for name, value in found.items()} == pytest.approx(logged, abs=1e-9)


def test_one_probability_for_all_rows_is_one_bin() -> None:
    outcome, clusters = np.array([True, False, False, False]), np.array([0, 1, 0, 1])
    found = Scorer(outcome, np.full(4, 0.5), clusters, METRICS).scores(np.ones((1, 2)))
    assert found["calibration_error"][0] == 0.25
    assert found["roc_auc"][0] == 0.5
    assert found["pr_auc"][0] == 0.25


def test_bins_are_those_of_the_calibration_that_training_logs() -> None:
    sample = random_sample(3)
    table = calibration(pd.Series(sample.outcome), pd.Series(sample.staging))
    assert np.bincount(calibration_bins(sample.staging)).tolist() == table["flights"].tolist()


def test_the_calibration_error_of_a_draw_keeps_the_bins_of_all_rows() -> None:
    sample = random_sample(4)
    weights = np.random.default_rng(1).integers(0, 4, size=(1, 12))
    found = Scorer(sample.outcome, sample.staging, sample.clusters, METRICS).scores(weights.astype(float))
    drawn = np.repeat(np.arange(len(sample.outcome)), weights[0][sample.clusters])
    bins = calibration_bins(sample.staging)[drawn]
    gaps = [
        abs(sample.staging[drawn][bins == number].sum() - sample.outcome[drawn][bins == number].sum())
        for number in np.unique(bins)
    ]
    assert found["calibration_error"][0] == pytest.approx(sum(gaps) / len(drawn))


def test_a_draw_has_as_many_clusters_as_there_are_each_as_likely_and_some_more_than_once() -> None:
    # The loss of a row is 8 ** -cluster, so that a sum of them tells which were drawn.
    outcome = np.array([True, False] * 4)
    clusters = np.repeat(np.arange(4), 2)
    sure = np.sqrt(np.repeat([1, 1 / 8, 1 / 64, 1 / 512], 2))
    sample = Sample(outcome, np.where(outcome, 1 - sure, sure), outcome.astype(float), clusters)
    sums = -paired_scores(sample, ("brier",), 4000, seed=1)["brier"].gains * 4
    counts = np.stack([np.floor(np.round(sums * 512) / 8**power) % 8 for power in (3, 2, 1, 0)])
    assert set(counts.sum(axis=0)) == {4}
    assert counts.mean(axis=1) == pytest.approx([1, 1, 1, 1], abs=0.06)
    assert counts.var(axis=1) == pytest.approx([0.75] * 4, abs=0.06)


@pytest.mark.parametrize("metric", sorted(LOSSES))
def test_a_slice_of_all_rows_is_scored_as_all_rows_are_draw_by_draw(metric: str) -> None:
    sample = random_sample(5)
    (whole, half) = paired_slice_losses(
        sample, metric, [np.ones(600, dtype=bool), np.arange(600) < 300], 500, seed=9
    )
    expected = paired_scores(sample, (metric,), 500, seed=9)[metric]
    assert (whole.staging, whole.production) == pytest.approx((expected.staging, expected.production))
    np.testing.assert_allclose(whole.gains, expected.gains, atol=1e-12)
    assert half.staging != whole.staging


def test_the_same_seed_gives_the_same_draws_and_another_does_not() -> None:
    sample = random_sample(6)
    first, again, other = (paired_scores(sample, METRICS, 200, seed) for seed in (1, 1, 2))
    for metric in METRICS:
        np.testing.assert_array_equal(first[metric].gains, again[metric].gains)
        assert not np.array_equal(first[metric].gains, other[metric].gains)


def test_more_draws_begin_with_the_same_ones() -> None:
    sample = random_sample(7, rows=3000, clusters=3000)  # a thousand draws do not fit into memory at once
    few, many = (paired_scores(sample, ("brier",), draws, 1)["brier"].gains for draws in (10, 1000))
    assert many.shape == (1000,)
    np.testing.assert_allclose(many[:10], few)


def test_models_that_say_the_same_gain_exactly_nothing() -> None:
    sample = random_sample(8)
    same = Sample(sample.outcome, sample.staging, sample.staging.copy(), sample.clusters)
    for scores in paired_scores(same, METRICS, 200, seed=1).values():
        assert scores.staging == scores.production
        assert (scores.gains == 0).all()


def test_a_draw_of_one_outcome_has_no_ranking_but_a_loss() -> None:
    outcome = np.array([True, True, False, False])
    said = np.array([0.9, 0.4, 0.6, 0.1])
    sample = Sample(outcome, said, 1 - said, np.array([0, 0, 1, 1]))
    scores = paired_scores(sample, METRICS, 400, seed=1)
    assert np.isnan(scores["roc_auc"].gains).mean() == pytest.approx(0.5, abs=0.1)
    assert np.isnan(scores["pr_auc"].gains).mean() == pytest.approx(0.25, abs=0.1)
    assert not np.isnan(scores["log_loss"].gains).any()
    assert not np.isnan(scores["calibration_error"].gains).any()


def test_a_draw_without_a_row_of_a_slice_has_no_loss_of_it() -> None:
    sample = random_sample(9, clusters=3)
    (scores,) = paired_slice_losses(sample, "brier", [sample.clusters == 0], 900, seed=1)
    assert np.isnan(scores.gains).mean() == pytest.approx((2 / 3) ** 3, abs=0.05)


@pytest.mark.parametrize("metric", METRICS)
def test_a_gain_is_positive_where_staging_is_better(metric: str) -> None:
    outcome = np.array([True, False] * 50)
    good, bad = np.where(outcome, 0.8, 0.2), np.where(outcome, 0.2, 0.8)
    scores = paired_scores(Sample(outcome, good, bad, np.arange(100) // 10), (metric,), 50, seed=1)[metric]
    assert gain(metric, scores.staging, scores.production) > 0
    assert (scores.gains > 0).all()
