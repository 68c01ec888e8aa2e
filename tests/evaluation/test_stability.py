"""Tests the population stability index: 0 without a difference, always finite, and known numbers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from assets.features import CATEGORICAL_FEATURES, FEATURES
from ledgerline.evaluation.stability import MIN_SHARE, population_stability_index, psi_by_column

if TYPE_CHECKING:
    from pandas import DataFrame

NORMAL = pd.Series(np.random.default_rng(2013).normal(size=20_000), name="normal")


def index_of(reference: Sequence[object], current: Sequence[object]) -> float:
    return population_stability_index(pd.Series(list(reference)), pd.Series(list(current)))


def term(reference: float, current: float) -> float:
    """Return the summand of one bin from its shares."""
    reference, current = max(reference, MIN_SHARE), max(current, MIN_SHARE)
    return (current - reference) * math.log(current / reference)


@pytest.mark.parametrize("column", FEATURES)
def test_real_columns_do_not_differ_from_themselves(column: str, feature_rows: "DataFrame") -> None:
    assert population_stability_index(feature_rows[column], feature_rows[column]) == 0
    shuffled = feature_rows[column].sample(frac=1, random_state=1)
    assert population_stability_index(feature_rows[column], shuffled) == 0


@pytest.mark.parametrize("times", [1, 3])
def test_only_shares_count_and_not_the_number_of_rows(times: int) -> None:
    again = pd.concat([NORMAL] * times)
    assert population_stability_index(NORMAL, again) == pytest.approx(0, abs=1e-12)


def test_another_sample_of_the_same_differs_by_chance_alone() -> None:
    rng = np.random.default_rng(7)
    found = [population_stability_index(NORMAL, pd.Series(rng.normal(size=2_000))) for _ in range(20)]
    assert np.mean(found) == pytest.approx(9 * (1 / 20_000 + 1 / 2_000), rel=0.3)


def test_a_shift_by_a_standard_deviation_is_far_above_a_quarter() -> None:
    # The J-divergence of two normal distributions with equal variance is the square of the shift.
    assert population_stability_index(NORMAL, NORMAL + 1) == pytest.approx(1, rel=0.1)
    assert population_stability_index(NORMAL, NORMAL + 0.1) < 0.02


def test_numbers_beyond_the_reference_fall_into_the_outer_bins() -> None:
    beyond = pd.Series([NORMAL.max() + 1, math.inf, NORMAL.min() - 1, -math.inf])
    expected = 2 * term(0.1, 0.5) + 8 * term(0.1, 0)
    assert population_stability_index(NORMAL, beyond) == pytest.approx(expected, rel=1e-2)


def test_one_that_is_lower_than_the_only_number_is_a_difference() -> None:
    assert index_of([5.0] * 4, [3.0] * 4) == pytest.approx(2 * term(1, 0))
    assert index_of([5] * 4, [5] * 9) == 0


def test_the_most_frequent_number_has_a_separate_bin() -> None:
    rain = [0.0] * 90 + [0.1 * n for n in range(1, 11)]
    assert index_of(rain, [0.0] * 100) == pytest.approx(term(0.9, 1) + term(0.1, 0))
    assert index_of(rain, [-1.0] * 100) == pytest.approx(term(0.9, 0) + term(0, 1) + term(0.1, 0))


def test_missing_numbers_have_a_separate_bin() -> None:
    reference, current = [1.0, 2.0, math.nan, math.nan], [1.0, 2.0, 1.0, 2.0]
    assert index_of(reference, current) == pytest.approx(2 * term(0.25, 0.5) + term(0.5, 0))


@pytest.mark.parametrize("kind", ["float64", "object", "Int64", "boolean", "string"])
def test_a_column_that_is_missing_altogether_is_a_finite_difference(kind: str) -> None:
    gone = pd.Series([None] * 50, dtype=kind)
    assert population_stability_index(gone, gone) == 0
    # Ten bins that are left, and one that all are in.
    lost = 10 * term(0.1, 0) + term(0, 1)
    assert population_stability_index(NORMAL, gone) == pytest.approx(lost, rel=1e-3)
    found = population_stability_index(gone, NORMAL)
    assert found == pytest.approx(2 * term(0, 1))
    words = pd.Series(["EWR", "JFK"])
    assert population_stability_index(words, gone) == pytest.approx(2 * term(0.5, 0) + term(0, 1))


def test_an_unseen_category_counts_as_other() -> None:
    seen = ["AA"] * 60 + ["UA"] * 40
    assert index_of(seen, ["AA"] * 60 + ["ZZ"] * 40) == pytest.approx(term(0.4, 0) + term(0, 0.4))
    assert index_of(seen, ["ZZ", "YY"] * 50) == pytest.approx(term(0.6, 0) + term(0.4, 0) + term(0, 1))


def test_rare_categories_are_other_together_with_unseen_ones() -> None:
    seen = ["AA"] * 980 + [f"rare {n}" for n in range(20)]
    assert index_of(seen, ["AA"] * 980 + ["unseen"] * 20) == pytest.approx(0, abs=1e-12)
    assert index_of(seen, ["AA"] * 980 + ["rare 1"] * 20) == pytest.approx(0, abs=1e-12)


def test_missing_categories_have_a_separate_bin() -> None:
    seen = ["AA"] * 50 + [None] * 50
    assert index_of(seen, ["AA"] * 50 + ["ZZ"] * 50) == pytest.approx(term(0.5, 0) + term(0, 0.5))


def test_booleans_with_gaps_are_compared() -> None:
    reference = pd.Series([True, False, None, None], dtype="boolean")
    current = pd.Series([True, True, None, None], dtype="boolean")
    assert population_stability_index(reference, current) == pytest.approx(term(0.25, 0.5) + term(0.25, 0))


def test_it_is_symmetric_for_equal_bins() -> None:
    assert index_of(["a", "a", "b"], ["a", "b", "b"]) == pytest.approx(
        index_of(["a", "b", "b"], ["a", "a", "b"])
    )


def test_numbers_that_became_texts_are_a_difference_and_not_an_error() -> None:
    assert index_of([1, 2, 1, 2], ["1", "2", "1", "2"]) == pytest.approx(2 * term(0.5, 0) + term(0, 1))


@pytest.mark.parametrize("kind", ["float64", "object"])
def test_no_rows_are_refused_and_named(kind: str) -> None:
    nothing = pd.Series([], dtype=kind, name="temp")
    with pytest.raises(ValueError, match="no current rows of 'normal'"):
        population_stability_index(NORMAL, nothing)
    with pytest.raises(ValueError, match="no reference rows of 'temp'"):
        population_stability_index(nothing, NORMAL)


def test_the_column_that_differs_most_is_the_first(feature_rows: "DataFrame") -> None:
    other = feature_rows.assign(temp=feature_rows["temp"] + 50, origin="EWR")
    indices = psi_by_column(feature_rows, other, FEATURES)
    assert set(list(indices)[:2]) == {"temp", "origin"}
    assert sorted(indices) == sorted(FEATURES)
    assert list(indices.values()) == sorted(indices.values(), reverse=True)
    assert set(list(indices.values())[2:]) == {0}


def test_no_columns_have_no_index(feature_rows: "DataFrame") -> None:
    assert psi_by_column(feature_rows, feature_rows, []) == {}


def test_two_days_of_the_same_flights_differ_little_in_their_schedule(feature_rows: "DataFrame") -> None:
    first, second = (rows for _, rows in feature_rows.groupby("date"))
    indices = psi_by_column(first, second, CATEGORICAL_FEATURES)
    assert max(indices.values()) < 0.25
