"""The rules, each at its threshold and on both sides of it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledgerline.evaluation.comparison import Comparison, Difference, SliceDifference, compare
from ledgerline.evaluation.policy import RULES, Latencies, Policy, Ruling, judge
from ledgerline.evaluation.samples import ComparisonError

LOG_LOSS = Difference(
    "log_loss", staging=0.54, production=0.58, gain=0.04, low=0.02, high=0.06, at_least=0.025
)
CALIBRATION = Difference("calibration_error", 0.03, 0.02, -0.01, -0.02, 0.005, -0.015)
FINE = SliceDifference("carrier", "AA", 4000, staging=0.16, production=0.17, gain=0.01, low=-0.01, high=0.03)
UNSURE = SliceDifference("carrier", "HA", 120, 0.2, 0.17, gain=-0.03, low=-0.08, high=0.02)
WORSE = SliceDifference("carrier", "UA", 5000, 0.19, 0.17, gain=-0.02, low=-0.03, high=-0.01)
SMALL = SliceDifference("carrier", "OO", 3, None, None, None, None, None)

LATENCIES = Latencies(staging_ms=6.0, production_ms=5.0)

COMPARISON = Comparison(
    production_name="production version 3",
    rows=28_000,
    positives=7_000,
    clusters=31,
    resamples=1000,
    alpha=0.05,
    differences=(LOG_LOSS, CALIBRATION),
    slice_metric="brier",
    slices=(FINE, UNSURE, SMALL),
    staging_calibration=(),
    production_calibration=(),
)


def rulings(
    policy: Policy | None = None,
    comparison: Comparison = COMPARISON,
    latencies: Latencies = LATENCIES,
    problems: tuple[str, ...] = (),
) -> dict[str, Ruling]:
    return {ruling.rule: ruling for ruling in judge(policy or Policy(), comparison, latencies, problems)}


def with_differences(*differences: Difference) -> Comparison:
    return replace(COMPARISON, differences=differences)


def test_a_model_that_keeps_all_rules_is_told_so_with_numbers() -> None:
    found = judge(Policy(), COMPARISON, LATENCIES, ())
    assert [ruling.rule for ruling in found] == list(RULES)
    assert all(ruling.passed for ruling in found)
    assert [ruling.text for ruling in found] == [
        (
            "log_loss is 0.5400, against 0.5800 of production version 3 (lower is better): a gain of 0.0400, "
            "which with 95 % confidence is at least 0.0250 and so exceeds 0.0000."
        ),
        (
            "None of 2 slices is surely worse than the brier of production version 3 by more than 0.0100; "
            "carrier HA seems most so, by 0.0300."
        ),
        "calibration_error is 0.0300, which is within the 0.0500 allowed (whatever it is compared with).",
        "One row takes 6 ms, 1.2 times the 5 ms of production version 3, which is within the 1.5 allowed.",
        "A client of production version 3 can use staging as it is.",
    ]


def test_a_model_that_breaks_all_rules_is_told_each() -> None:
    found = rulings(
        comparison=replace(
            COMPARISON,
            differences=(replace(LOG_LOSS, at_least=-0.001), replace(CALIBRATION, staging=0.051)),
            slices=(WORSE, FINE),
        ),
        latencies=Latencies(9.0, 5.0),
        problems=("Staging does not take hour, which clients send.", "Another."),
    )
    assert not any(ruling.passed for ruling in found.values())
    assert [ruling.text for ruling in found.values()] == [
        (
            "log_loss is 0.5400, against 0.5800 of production version 3 (lower is better): a gain of 0.0400, "
            "which with 95 % confidence is at least -0.0010 and so does not exceed 0.0000."
        ),
        (
            "1 of 2 slices are worse than the brier of production version 3 by more than 0.0100, and surely "
            "worse: carrier UA by 0.0200."
        ),
        "calibration_error is 0.0510, which is above the 0.0500 allowed (whatever it is compared with).",
        "One row takes 9 ms, 1.8 times the 5 ms of production version 3, which is above the 1.5 allowed.",
        (
            "A client of production version 3 cannot use staging as it is: Staging does not take hour, which "
            "clients send. Another."
        ),
    ]


@pytest.mark.parametrize(
    ("at_least", "margin", "passed"),
    [(0.001, 0, True), (0, 0, False), (-0.001, 0, False), (0.01, 0.01, False), (-0.001, -0.002, True)],
)
def test_the_lower_bound_of_the_gain_must_exceed_the_margin(
    at_least: float, margin: float, passed: bool
) -> None:
    comparison = with_differences(replace(LOG_LOSS, at_least=at_least), CALIBRATION)
    ruling = rulings(Policy(margin=margin), comparison)["better_than_production"]
    assert (ruling.passed, ruling.value, ruling.threshold) == (passed, at_least, margin)


def test_a_gain_that_nobody_can_be_sure_of_does_not_count() -> None:
    comparison = with_differences(replace(LOG_LOSS, low=None, high=None, at_least=None), CALIBRATION)
    ruling = rulings(comparison=comparison)["better_than_production"]
    assert not ruling.passed
    assert ruling.value is None
    assert "too few" in ruling.text


def test_another_metric_may_decide() -> None:
    auc = Difference("roc_auc", 0.72, 0.7, 0.02, 0.0, 0.04, 0.004)
    ruling = rulings(Policy(primary_metric="roc_auc"), with_differences(auc, CALIBRATION))[RULES[0]]
    assert ruling.passed
    assert ruling.text.startswith("roc_auc is 0.7200, against 0.7000 of production version 3: a gain of")


@pytest.mark.parametrize(
    ("gain", "high", "passed"),
    [(-0.02, -0.001, False), (-0.02, 0.001, True), (-0.01, -0.001, True), (0.02, 0.03, True)],
    ids=["worse by more, surely", "worse by more, perhaps", "surely worse, by no more", "better"],
)
def test_a_slice_is_refused_when_it_is_worse_by_more_than_allowed_and_surely_worse(
    gain: float, high: float, passed: bool
) -> None:
    comparison = replace(COMPARISON, slices=(FINE, replace(WORSE, gain=gain, high=high)))
    ruling = rulings(comparison=comparison)["no_slice_worse"]
    assert (ruling.passed, ruling.threshold) == (passed, 0.01)
    assert ruling.value == -min(gain, 0.01)


def test_the_worst_slices_are_named_first_and_the_others_counted() -> None:
    slices = tuple(replace(WORSE, value=f"U{number}", gain=-0.02 - number / 100) for number in range(5))
    ruling = rulings(comparison=replace(COMPARISON, slices=slices))["no_slice_worse"]
    assert ruling.text.endswith(
        "carrier U4 by 0.0600, carrier U3 by 0.0500, carrier U2 by 0.0400 and 2 more."
    )


@pytest.mark.parametrize("slices", [(), (SMALL,)])
def test_where_no_slice_can_be_judged_none_is_refused(slices: tuple[SliceDifference, ...]) -> None:
    ruling = rulings(comparison=replace(COMPARISON, slices=slices))["no_slice_worse"]
    assert ruling.passed
    assert ruling.value is None
    assert ruling.text == "No slice has enough rows to be judged."


@pytest.mark.parametrize(
    ("staging", "production", "passed", "threshold"),
    [(0.05, 0.02, True, 0.05), (0.051, 0.02, False, 0.05), (0.1, 0.11, True, 0.11), (0.11, 0.1, False, 0.1)],
)
def test_a_month_that_surprised_production_more_does_not_keep_it(
    staging: float, production: float, passed: bool, threshold: float
) -> None:
    comparison = with_differences(LOG_LOSS, replace(CALIBRATION, staging=staging, production=production))
    ruling = rulings(comparison=comparison)["calibrated"]
    assert (ruling.passed, ruling.value) == (passed, staging)
    assert ruling.threshold == pytest.approx(threshold)
    assert (f"production version 3 has {production:.4f}" in ruling.text) is (production > 0.05)


@pytest.mark.parametrize(("staging_ms", "passed"), [(7.5, True), (7.6, False), (1, True)])
def test_staging_may_be_slower_by_so_much(staging_ms: float, passed: bool) -> None:
    ruling = rulings(latencies=Latencies(staging_ms, 5))["fast_enough"]
    assert (ruling.passed, ruling.value, ruling.threshold) == (passed, staging_ms / 5, 1.5)


def test_the_first_version_is_held_against_a_baseline_and_its_speed_against_nothing() -> None:
    first = replace(COMPARISON, production_name="the baseline carrier_hour_rate")
    found = rulings(comparison=first, latencies=Latencies(6.0, None))
    assert "0.5800 of the baseline carrier_hour_rate" in found["better_than_production"].text
    assert found["fast_enough"].passed
    assert found["fast_enough"].value is None
    assert (
        found["fast_enough"].text
        == "One row takes 6 ms; there is no production version to compare that with."
    )


def test_a_model_that_says_the_same_as_production_is_not_promoted() -> None:
    random = np.random.default_rng(1)
    said = random.random(3000)
    comparison = compare(random.random(3000) < said, said, said, clusters=np.arange(3000) // 100)
    found = rulings(comparison=comparison)
    assert not found["better_than_production"].passed
    assert found["no_slice_worse"].passed
    assert found["calibrated"].passed


def test_a_comparison_with_another_confidence_is_not_judged() -> None:
    with pytest.raises(ValueError, match=r"alpha 0\.05, the policy has 0\.1"):
        rulings(Policy(alpha=0.1))


def test_a_comparison_without_the_metric_that_decides_is_not_judged() -> None:
    with pytest.raises(ComparisonError, match="not by brier"):
        rulings(Policy(primary_metric="brier"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("primary_metric", "accuracy", "primary_metric is 'accuracy'; choose from roc_auc"),
        ("margin", math.nan, "margin is nan; it must be between -1 and 1"),
        ("margin", "0", "margin is '0'; it must be a number"),
        ("alpha", 0.0, "alpha is 0.0; it must be between 0.0005 and 0.4"),
        ("alpha", 0.5, "alpha is 0.5"),
        ("largest_slice_loss", -0.1, "largest_slice_loss is -0.1; it must be between 0 and 1"),
        ("largest_calibration_error", 2, "largest_calibration_error is 2"),
        ("largest_slice_loss", True, "largest_slice_loss is True; it must be a number"),
        ("largest_latency_ratio", math.inf, "largest_latency_ratio is inf; it must be 0 or more"),
        ("resamples", 99, "resamples is 99"),
        ("resamples", 1000.0, "resamples is 1000.0; it must be a whole number"),
        ("seed", -1, "seed is -1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**{field: value})


@pytest.mark.parametrize(("staging_ms", "production_ms"), [(0, 1), (math.nan, 1), (1, 0), (-1, None)])
def test_a_latency_that_is_no_time_is_refused(staging_ms: float, production_ms: float | None) -> None:
    with pytest.raises(ValueError, match="must be a time above 0"):
        Latencies(staging_ms, production_ms)
