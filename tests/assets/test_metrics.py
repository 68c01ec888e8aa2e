"""Tests the scores on cases that are small enough to compute by hand."""

import math

import pandas as pd
import pytest

from assets.delay_model import TrainingConfig, model_input, train
from assets.features import FEATURES, LABEL, NUMERIC_FEATURES
from assets.metrics import (
    MIN_SLICE_FLIGHTS,
    calibration,
    carrier_hour_baseline,
    carrier_hour_rates,
    permutation_importance,
    score,
    score_slices,
)

FLIGHTS = pd.DataFrame(
    {"carrier": ["AA", "AA", "AA", "UA"], "sched_dep_time": [1700, 1759, 1800, 515], "origin": "EWR"}
)


def two_groups(flights: int, share_late: float) -> tuple[pd.Series, pd.Series]:
    """Two groups of flights with predictions 0.2 and 0.8; only the second is late as often as predicted."""
    late = pd.Series(
        [i < flights * 0.2 for i in range(flights)] + [i < flights * share_late for i in range(flights)]
    )
    return late, pd.Series([0.2] * flights + [0.8] * flights)


def test_scores_are_those_worked_out_by_hand() -> None:
    late = pd.Series([True, False, True, False])
    scores = score(late, pd.Series([0.9, 0.8, 0.6, 0.1]))
    # Three of four pairs of a late and a punctual flight are in the right order.
    assert scores["roc_auc"] == pytest.approx(3 / 4)
    # Precision at each late flight, from the top: 1/1 and 2/3.
    assert scores["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["brier"] == pytest.approx((0.1**2 + 0.8**2 + 0.4**2 + 0.1**2) / 4)
    assert scores["log_loss"] == pytest.approx(-(2 * math.log(0.9) + math.log(0.2) + math.log(0.6)) / 4)


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    late, predicted = two_groups(100, share_late=0.8)
    assert score(late, predicted)["calibration_error"] == pytest.approx(0, abs=1e-12)


def test_an_error_of_six_tenths_for_half_of_the_flights_is_three_tenths() -> None:
    late, predicted = two_groups(100, share_late=0.2)
    assert score(late, predicted)["calibration_error"] == pytest.approx(0.3)


def test_calibration_bins_hold_about_equally_many_flights() -> None:
    predicted = pd.Series([i / 1000 for i in range(1000)])
    table = calibration(predicted > 0.5, predicted)
    assert table["flights"].tolist() == [100] * 10
    assert table["predicted"].is_monotonic_increasing
    assert table["observed"].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.99, 1, 1, 1, 1])


def test_one_probability_for_all_flights_can_be_scored() -> None:
    scores = score(pd.Series([True, False, False, False]), pd.Series([0.5] * 4))
    assert scores == pytest.approx(
        {
            "roc_auc": 0.5,
            "pr_auc": 0.25,
            "log_loss": math.log(2),
            "brier": 0.25,
            "calibration_error": 0.25,
        }
    )


def test_carrier_hour_rates_are_shares_of_late_flights() -> None:
    rates = carrier_hour_rates(FLIGHTS, pd.Series([True, False, True, False], dtype="boolean"))
    assert rates == {"AA 17": 0.5, "AA 18": 1.0, "UA 5": 0.0}


def test_the_baseline_predicts_the_overall_rate_for_unknown_groups() -> None:
    unseen = FLIGHTS.assign(carrier=["AA", "ZZ", "AA", "UA"], sched_dep_time=[1730, 1730, 600, 559])
    predicted = carrier_hour_baseline(unseen, {"AA 17": 0.5, "UA 5": 0.0}, late_rate=0.3)
    assert predicted.tolist() == [0.5, 0.3, 0.3, 0.0]
    assert predicted.index.equals(unseen.index)


def test_a_slice_is_scored_once_it_is_large_enough_and_has_both_outcomes() -> None:
    large, small, punctual = MIN_SLICE_FLIGHTS, MIN_SLICE_FLIGHTS - 1, MIN_SLICE_FLIGHTS
    rows = pd.DataFrame({"carrier": ["AA"] * large + ["UA"] * small + ["B6"] * punctual, "origin": "EWR"})
    late = pd.Series([i % 2 == 0 for i in range(large + small)] + [False] * punctual)
    table = score_slices(rows, late, late * 0.5 + 0.25).set_index(["slice", "value"])
    assert table.index.tolist() == [
        ("carrier", "AA"),
        ("carrier", "B6"),
        ("carrier", "UA"),
        ("origin", "EWR"),
    ]
    assert table["flights"].tolist() == [large, punctual, small, large + small + punctual]
    assert table["roc_auc"].dropna().to_dict() == {("carrier", "AA"): 1.0, ("origin", "EWR"): 1.0}
    assert table["brier"].dropna().tolist() == pytest.approx([0.0625, 0.0625])
    assert table["late_rate"].tolist() == pytest.approx([0.5, 0, 50 / 99, 100 / 299], abs=0.01)


@pytest.mark.parametrize("informative", ["precip", "carrier"])
def test_the_only_relevant_feature_is_the_most_important(informative: str) -> None:
    rows = pd.DataFrame(
        {"carrier": "AA", "origin": "EWR", "dest": "IAH", "manufacturer": "BOEING"}, range(2000)
    )
    rows = rows.assign(**{name: float(i) for i, name in enumerate(NUMERIC_FEATURES)})
    late = pd.Series([i % 3 == 0 for i in range(2000)])
    predictive = late.map({True: "ZZ", False: "AA"}) if informative == "carrier" else late.astype(float)
    rows = rows.assign(**{informative: predictive, LABEL: late})
    pipeline = train(rows, TrainingConfig(max_iter=10, max_features=1.0))
    table = permutation_importance(pipeline, model_input(rows), late, seed=1)
    assert set(table["feature"]) == set(FEATURES)
    assert table["feature"].iloc[0] == informative
    assert table["loss_of_roc_auc"].iloc[0] > 0.3
    assert table["loss_of_roc_auc"].iloc[1:].tolist() == [0.0] * (len(FEATURES) - 1)
