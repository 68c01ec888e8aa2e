"""Tests the gates, each at its threshold and on both sides of it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledgerline.evaluation.comparison import Comparison, Difference, compare
from ledgerline.evaluation.gates import (
    Better,
    Calibrated,
    FastEnough,
    NoSliceWorse,
    SameSignature,
    Unbiased,
    Within,
)
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.metrics import row_metric
from ledgerline.evaluation.policy import default_policy, evaluate
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.rulings import Findings, Gate, Latencies, Ruling
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.evaluation.slices import SliceDifference

LOG_LOSS = Difference(
    "log_loss", 0.54, 0.58, gain=0.04, low=0.02, high=0.06, at_least=0.025, lower_is_better=True
)
CALIBRATION = Difference(
    "calibration_error", 0.03, 0.02, gain=-0.01, low=-0.02, high=0.005, at_least=-0.015, lower_is_better=True
)
FINE = SliceDifference("carrier", "AA", 4000, staging=0.16, production=0.17, gain=0.01, low=-0.01, high=0.03)
UNSURE = SliceDifference("carrier", "HA", 120, 0.2, 0.17, gain=-0.03, low=-0.08, high=0.02)
WORSE = SliceDifference("carrier", "UA", 5000, 0.19, 0.17, gain=-0.02, low=-0.03, high=-0.01)
SMALL = SliceDifference("carrier", "OO", 3, None, None, None, None, None)

LATENCIES = Latencies(staging_ms=6.0, production_ms=5.0)

COMPARISON = Comparison(
    kind=Binary(),
    production_name="production version 3",
    rows=28_000,
    facts={"positives": 7_000},
    clusters=31,
    resamples=1000,
    alpha=0.05,
    differences=(LOG_LOSS, CALIBRATION),
    undefined=(),
    slice_metric="brier",
    slices=(FINE, UNSURE, SMALL),
    staging_calibration=(),
    production_calibration=(),
)


def ruling_of(
    gate: Gate,
    comparison: Comparison = COMPARISON,
    latencies: Latencies = LATENCIES,
    problems: tuple[str, ...] = (),
) -> Ruling:
    return gate.evaluate(Findings(comparison, latencies, problems))


def with_differences(*differences: Difference) -> Comparison:
    return replace(COMPARISON, differences=differences)


def test_a_model_that_passes_all_gates_has_a_ruling_with_numbers_for_each() -> None:
    found = evaluate(default_policy(Binary()), Findings(COMPARISON, LATENCIES, ()))
    assert [ruling.rule for ruling in found] == [
        "better_than_production",
        "no_slice_worse",
        "calibrated",
        "fast_enough",
        "same_signature",
    ]
    assert all(ruling.passed for ruling in found)
    assert [ruling.text for ruling in found] == [
        (
            "log_loss is 0.5400, against 0.5800 of production version 3 (lower is better): a gain of 0.0400, "
            "which with 95 % confidence is at least 0.0250 and so exceeds 0.0000."
        ),
        (
            "None of 2 slices is significantly worse than the brier of production version 3 by more than "
            "0.0100; carrier HA seems most so, by 0.0300."
        ),
        "calibration_error is 0.0300, which is within the 0.0500 allowed (the fixed bound).",
        "One row takes 6 ms, 1.2 times the 5 ms of production version 3, which is within the 1.5 allowed.",
        "A client of production version 3 can use staging without a change.",
    ]


def test_a_model_that_passes_no_gate_has_a_reason_for_each() -> None:
    comparison = replace(
        COMPARISON,
        differences=(replace(LOG_LOSS, at_least=-0.001), replace(CALIBRATION, staging=0.051)),
        slices=(WORSE, FINE),
    )
    problems = ("Staging does not accept hour, which clients send.", "Another.")
    found = evaluate(default_policy(Binary()), Findings(comparison, Latencies(9.0, 5.0), problems))
    assert not any(ruling.passed for ruling in found)
    assert [ruling.text for ruling in found] == [
        (
            "log_loss is 0.5400, against 0.5800 of production version 3 (lower is better): a gain of 0.0400, "
            "which with 95 % confidence is at least -0.0010 and so does not exceed 0.0000."
        ),
        (
            "1 of 2 slices are worse than the brier of production version 3 by more than 0.0100, and "
            "significantly worse: carrier UA by 0.0200."
        ),
        "calibration_error is 0.0510, which is above the 0.0500 allowed (the fixed bound).",
        "One row takes 9 ms, 1.8 times the 5 ms of production version 3, which is above the 1.5 allowed.",
        (
            "A client of production version 3 cannot use staging without a change: Staging does not accept "
            "hour, which clients send. Another."
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
    ruling = ruling_of(Better(margin=margin), comparison)
    assert (ruling.passed, ruling.value, ruling.threshold) == (passed, at_least, margin)


def test_a_gain_that_is_not_significant_does_not_count() -> None:
    comparison = with_differences(replace(LOG_LOSS, low=None, high=None, at_least=None), CALIBRATION)
    ruling = ruling_of(Better(), comparison)
    assert not ruling.passed
    assert ruling.value is None
    assert "too few" in ruling.text


def test_another_metric_may_decide() -> None:
    auc = Difference(
        "roc_auc", 0.72, 0.7, gain=0.02, low=0.0, high=0.04, at_least=0.004, lower_is_better=False
    )
    ruling = ruling_of(Better("roc_auc"), with_differences(auc, CALIBRATION))
    assert ruling.passed
    assert ruling.text.startswith("roc_auc is 0.7200, against 0.7000 of production version 3: a gain of")


@pytest.mark.parametrize(
    ("gain", "high", "passed"),
    [(-0.02, -0.001, False), (-0.02, 0.001, True), (-0.01, -0.001, True), (0.02, 0.03, True)],
    ids=[
        "worse by more, significantly",
        "worse by more, perhaps",
        "significantly worse, by no more",
        "better",
    ],
)
def test_a_slice_is_refused_when_it_is_worse_by_more_than_allowed_and_significantly_worse(
    gain: float, high: float, passed: bool
) -> None:
    comparison = replace(COMPARISON, slices=(FINE, replace(WORSE, gain=gain, high=high)))
    ruling = ruling_of(NoSliceWorse(most=0.01), comparison)
    assert (ruling.passed, ruling.threshold) == (passed, 0.01)
    assert ruling.value == -min(gain, 0.01)


def test_the_worst_slices_are_named_first_and_the_others_counted() -> None:
    slices = tuple(replace(WORSE, value=f"U{number}", gain=-0.02 - number / 100) for number in range(5))
    ruling = ruling_of(NoSliceWorse(most=0.01), replace(COMPARISON, slices=slices))
    assert ruling.text.endswith(
        "carrier U4 by 0.0600, carrier U3 by 0.0500, carrier U2 by 0.0400 and 2 more."
    )


@pytest.mark.parametrize("slices", [(), (SMALL,)])
def test_slices_that_cannot_be_evaluated_are_not_refused(slices: tuple[SliceDifference, ...]) -> None:
    ruling = ruling_of(NoSliceWorse(most=0.01), replace(COMPARISON, slices=slices))
    assert ruling.passed
    assert ruling.value is None
    assert ruling.text == "No slice has enough rows to be evaluated."


@pytest.mark.parametrize(
    ("staging", "production", "passed", "threshold"),
    [(0.05, 0.02, True, 0.05), (0.051, 0.02, False, 0.05), (0.1, 0.11, True, 0.11), (0.11, 0.1, False, 0.1)],
)
def test_a_month_that_surprised_production_more_does_not_keep_it(
    staging: float, production: float, passed: bool, threshold: float
) -> None:
    comparison = with_differences(LOG_LOSS, replace(CALIBRATION, staging=staging, production=production))
    ruling = ruling_of(Calibrated(most=0.05), comparison)
    assert (ruling.passed, ruling.value) == (passed, staging)
    assert ruling.threshold == pytest.approx(threshold)
    assert (f"production version 3 has {production:.4f}" in ruling.text) is (production > 0.05)


@pytest.mark.parametrize(("staging_ms", "passed"), [(7.5, True), (7.6, False), (1, True)])
def test_staging_may_be_slower_by_so_much(staging_ms: float, passed: bool) -> None:
    ruling = ruling_of(FastEnough(), latencies=Latencies(staging_ms, 5))
    assert (ruling.passed, ruling.value, ruling.threshold) == (passed, staging_ms / 5, 1.5)


def test_the_first_version_is_compared_with_a_baseline_and_not_in_speed() -> None:
    first = replace(COMPARISON, production_name="the baseline carrier_hour_rate")
    assert "0.5800 of the baseline carrier_hour_rate" in ruling_of(Better(), first).text
    fast = ruling_of(FastEnough(), first, Latencies(6.0, None))
    assert fast.passed
    assert fast.value is None
    assert fast.text == "One row takes 6 ms; there is no production version to compare that with."


def test_a_model_with_the_predictions_of_production_is_not_promoted() -> None:
    random = np.random.default_rng(1)
    predicted = random.random(3000)
    comparison = compare(
        Binary(), random.random(3000) < predicted, predicted, predicted, clusters=np.arange(3000) // 100
    )
    assert not ruling_of(Better(), comparison).passed
    assert ruling_of(NoSliceWorse(most=0.01), comparison).passed
    assert ruling_of(Calibrated(most=0.05), comparison).passed


def test_a_comparison_without_the_deciding_metric_is_not_evaluated() -> None:
    with pytest.raises(ComparisonError, match="not by brier"):
        ruling_of(Better("brier"))


def test_a_comparison_by_other_slices_than_those_of_the_gate_is_not_evaluated() -> None:
    with pytest.raises(ComparisonError, match="compared by brier, not by log_loss"):
        ruling_of(NoSliceWorse(most=1, metric="log_loss"))


@pytest.mark.parametrize("gate", [Better("roc_auc"), Within("roc_auc", least=0.6)], ids=["Better", "Within"])
def test_a_metric_that_the_rows_leave_undefined_passes_no_gate(gate: Gate) -> None:
    ruling = ruling_of(gate, replace(COMPARISON, undefined=("roc_auc",)))
    assert (ruling.passed, ruling.value) == (False, None)
    assert ruling.text == "roc_auc is not defined on these rows."


DEMAND = replace(
    COMPARISON,
    kind=Regression(),
    differences=(
        Difference("absolute_error", 19.1, 247.0, 227.9, 210.0, 245.0, 213.5, lower_is_better=True),
        Difference("bias", 3.5, 2.0, -1.5, -4.0, 1.0, -3.6, lower_is_better=True),
        Difference("r2", 0.8, 0.1, 0.7, 0.5, 0.9, 0.55, lower_is_better=False),
    ),
    slice_metric="absolute_error",
)


def test_margins_and_bounds_may_be_in_any_unit() -> None:
    assert ruling_of(Better(margin=213), DEMAND).passed
    assert not ruling_of(Better(margin=214), DEMAND).passed
    assert ruling_of(Better(margin=-1e12), DEMAND).passed
    slices = (replace(WORSE, gain=-40.0, high=-2.0),)
    assert ruling_of(NoSliceWorse(most=50), replace(DEMAND, slices=slices)).passed
    assert not ruling_of(NoSliceWorse(most=30), replace(DEMAND, slices=slices)).passed


@pytest.mark.parametrize(
    ("staging", "production", "passed", "threshold"),
    [(3.0, 0.5, True, 3.0), (3.1, 0.5, False, 3.0), (3.5, 4.0, True, 4.0), (4.1, 4.0, False, 4.0)],
)
def test_a_bias_may_be_as_large_as_allowed_or_as_that_of_production(
    staging: float, production: float, passed: bool, threshold: float
) -> None:
    bias = replace(DEMAND.differences[1], staging=staging, production=production)
    ruling = ruling_of(Unbiased(most=3), replace(DEMAND, differences=(bias,)))
    assert (ruling.rule, ruling.passed, ruling.value) == ("unbiased", passed, staging)
    assert ruling.threshold == threshold
    assert ruling.text.startswith(f"bias is {staging:.4f}, which is {'within' if passed else 'above'} the")


@pytest.mark.parametrize(
    ("gate", "passed", "text"),
    [
        (Within("r2", least=0.8), True, "r2 is 0.8000, which is at least the 0.8000 demanded."),
        (Within("r2", least=0.81), False, "r2 is 0.8000, which is below the 0.8100 demanded."),
        (Within("bias", most=3.5), True, "bias is 3.5000, which is within the 3.5000 allowed."),
        (Within("bias", most=3), False, "bias is 3.5000, which is above the 3.0000 allowed."),
    ],
)
def test_a_metric_may_have_a_bound_that_does_not_depend_on_production(
    gate: Within, passed: bool, text: str
) -> None:
    ruling = ruling_of(gate, DEMAND)
    assert (ruling.rule, ruling.passed, ruling.text) == (f"{gate.metric}_within", passed, text)


def test_gates_describe_their_requirements() -> None:
    assert Better().description == (
        "With confidence 1 - alpha, staging is better than production by more than the margin."
    )
    assert Within("cost", most=5).description == "cost of staging is at most 5, independent of production."
    assert SameSignature().description == "A client of production can use staging without a change."


COST = row_metric("cost", by_row=lambda outcome, prediction: abs(outcome - prediction) * 9.0)


def test_a_custom_metric_may_decide() -> None:
    outcome = np.arange(400) % 7.0
    comparison = compare(
        Regression(),
        outcome,
        outcome + 1,
        outcome + 2,
        clusters=np.arange(400) // 10,
        slices={"half": np.arange(400) % 2},
        metrics=[*Regression().metrics, COST],
        slice_metric=COST,
    )
    ruling = ruling_of(Better(COST, margin=8), comparison)
    assert ruling.passed
    assert ruling.text.startswith("cost is 9.0000, against 18.0000 of production (lower is better)")
    assert ruling_of(NoSliceWorse(most=0, metric=COST), comparison).text.startswith(
        "None of 2 slices is significantly worse than the cost of production"
    )
    assert not ruling_of(Within(COST, most=8), comparison).passed


@pytest.mark.parametrize(
    ("kind", "gate", "message"),
    [
        (Regression(), Calibrated(most=0.1), r"gate Calibrated \(calibrated\): regression has no.*Unbiased"),
        (Binary(), Unbiased(most=0.1), r"gate Unbiased \(unbiased\): binary has no bias.*Calibrated"),
        (Quantiles((0.5,)), Unbiased(most=1), "quantiles has no bias"),
        (
            Regression(),
            Better("log_loss"),
            "gate Better .*log_loss; for regression choose from abs",
        ),
        (Regression(), Within("brier", most=1), r"gate Within \(brier_within\): .*brier; for regression"),
        (
            Multiclass(("a", "b")),
            NoSliceWorse(1, "roc_auc"),
            "metric is roc_auc, which is not a mean",
        ),
        (Binary(), NoSliceWorse(1, "absolute_error"), "NoSliceWorse.*absolute_error; for binary"),
        (Quantiles((0.1, 0.9)), NoSliceWorse(1, "interval_coverage"), "not a mean over rows"),
        (
            Quantiles((0.5,)),
            Better("interval_width"),
            "interval_width; for quantiles choose from pin",
        ),
    ],
)
def test_a_gate_that_does_not_fit_the_predictions_is_named(
    kind: PredictionKind, gate: Gate, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gate.require_fits(kind)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Better(margin=math.nan), "margin of the gate Better is nan; it must be a finite number"),
        (lambda: Better(margin=math.inf), "margin of the gate Better is inf"),
        (lambda: Better(margin="0"), "margin of the gate Better is '0'; it must be a number"),  # pyright: ignore[reportArgumentType]
        (lambda: Better(metric=3), "metric of the gate Better is 3; pass the name"),  # pyright: ignore[reportArgumentType]
        (
            lambda: NoSliceWorse(most=-0.1),
            "most of the gate NoSliceWorse is -0.1; it must be finite, and",
        ),
        (lambda: NoSliceWorse(most=True), "most of the gate NoSliceWorse is True; it must be a number"),
        (lambda: Calibrated(most=2), "most of the gate Calibrated is 2; it must be between 0 and 1"),
        (lambda: Unbiased(most=-1), "most of the gate Unbiased is -1"),
        (
            lambda: FastEnough(math.inf),
            "ratio of the gate FastEnough is inf; it must be finite, and 0",
        ),
        (lambda: Within("r2"), "gate Within needs either most or least"),
        (lambda: Within("r2", most=1, least=0), "gate Within needs either most or least"),
        (lambda: Within("r2", least=math.nan), "least of the gate Within is nan"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
