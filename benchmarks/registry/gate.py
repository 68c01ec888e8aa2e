"""Measures how often the gate promotes a model that is not better, and how long a comparison takes.

Months of simulated rows are compared in the same way as real ones. The predictions of a model have an error
that all rows of a day share, and an error for each row. Therefore the expected loss of a model is known
exactly, and each promotion of a model that is not better is a false positive.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import root_scalar
from scipy.special import expit

from benchmarks.context import Context, Result, Value
from benchmarks.processes import processor_seconds
from ledgerline.evaluation.comparison import Comparison, compare
from ledgerline.evaluation.gates import Better
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.policy import default_policy
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.resampling import paired_scores
from ledgerline.evaluation.rulings import Findings, Latencies
from ledgerline.evaluation.samples import Sample

KIND = Binary()
POLICY = default_policy(KIND)
METRIC = KIND.metric(KIND.primary_metric)
DAYS, FEW_DAYS = 31, 10
MARGIN = 0.0025  # half a percent of the log loss

# The logit of a row has a part that the models know, and a part for the day, which they do not know.
KNOWN_MEAN, KNOWN_SPREAD, DAY_SPREAD = -1.4, 0.9, 0.5
ROW_ERROR = 0.3
SHARED = 0.8  # of the variance is common to both models' errors, as after training on similar data
BAD_DAYS, BAD_ERROR = 0.1, 3.0
NODES = 60  # nodes of the quadrature; more nodes do not change the result
CARRIERS, ORIGINS = 16, 3


@dataclass(frozen=True)
class Model:
    """The standard deviations of a model's error, in logits, on ordinary days and on one day in ten."""

    error: float
    bad_error: float


STEADY = Model(0.5, 0.5)


@dataclass(frozen=True)
class Month:
    """The rows of a month: outcomes, both predictions, and days."""

    outcome: NDArray[np.bool_]
    staging: NDArray[np.float64]
    production: NDArray[np.float64]
    day: NDArray[np.intp]


def measure_gate(context: Context) -> list[Result]:
    """Count promotions of models whose expected loss is exactly that of production."""
    pairs, slow_pairs, size = context.pick((2000, 300, 200), (60, 10, 60))
    moody = _as_good_as_steady(lambda error: Model(error, BAD_ERROR * error))
    bad_days = "staging has bad days"

    def promoted(
        staging: Model, production: Model = STEADY, days: int = DAYS, margin: float = 0.0
    ) -> Callable[[int], bool]:
        return lambda seed: _passes(simulated(staging, production, days, size, seed), margin)

    def by_rows(seed: int) -> bool:
        month = simulated(STEADY, STEADY, DAYS, size, seed)
        return _passes(replace(month, day=np.arange(len(month.day))))

    def by_percentiles(staging: Model, seed: int) -> bool:
        month = simulated(staging, STEADY, DAYS, size, seed)
        sample = Sample(month.outcome, month.staging, month.production, month.day)
        gains = paired_scores(sample, (METRIC,), POLICY.resamples, POLICY.seed)[METRIC.name].gains
        return bool(np.quantile(gains, POLICY.alpha) > 0)

    def slice_is_worse(seed: int) -> bool:
        month = simulated(STEADY, STEADY, DAYS, size, seed)
        comparison = _compared(month, (METRIC,), _slices(month, seed))
        return any(each.high is not None and each.high < 0 for each in comparison.slices)

    cases: Sequence[tuple[str, Callable[[int], bool], int, float]] = (
        ("alike", promoted(STEADY), pairs, POLICY.alpha),
        (f"alike, {FEW_DAYS} days", promoted(STEADY, days=FEW_DAYS), pairs, POLICY.alpha),
        (bad_days, promoted(moody), pairs, POLICY.alpha),
        (f"{bad_days}, margin {MARGIN:g}", promoted(moody, margin=MARGIN), pairs, POLICY.alpha),
        ("production has bad days", promoted(STEADY, moody), pairs, POLICY.alpha),
        ("alike, percentiles of the draws instead", partial(by_percentiles, STEADY), pairs, POLICY.alpha),
        (f"{bad_days}, percentiles instead", partial(by_percentiles, moody), pairs, POLICY.alpha),
        ("alike, rows drawn instead of days", by_rows, slow_pairs, POLICY.alpha),
        ("alike: a slice surely worse", slice_is_worse, pairs, POLICY.alpha / 2),
    )
    rows: list[Sequence[Value]] = []
    for name, happens, times, intended in cases:
        count = sum(happens(seed) for seed in range(times))
        low, high = stats.binomtest(count, times).proportion_ci(method="wilson")
        rows.append((name, times, *(100 * float(share) for share in (count / times, low, high, intended))))
    notes = (
        f"By {METRIC.name}, {POLICY.resamples} draws. From, to: 95 % interval of the share.",
        f"Bad days: one in ten, with {BAD_ERROR:g} times the error. A month with few hides them.",
        f"A slice: any of {CARRIERS} carriers and {ORIGINS} origins whose simultaneous interval is below 0.",
    )
    title = f"Promotions of a model that is not better, in months of {DAYS} days"
    columns = ("models", "months", "promoted, %", "from", "to", "intended, %")
    return [Result(title, columns, rows, notes)]


def measure_comparison(context: Context) -> list[Result]:
    """Measure the duration of a comparison for each kind of prediction."""
    rows_of_month, rounds = context.pick((28_000, 5), (3_000, 1))
    month = simulated(STEADY, STEADY, DAYS, math.ceil(rows_of_month / DAYS), 1)
    slices = _slices(month, 1)
    seconds = {}
    for kind, *columns in _of_each_kind(month):
        action = partial(compare, kind, *columns, clusters=month.day, slices=slices)
        seconds[kind.name] = statistics.median(processor_seconds(action) for _ in range(rounds))
    rows = [
        (f"compare, {name}, with {CARRIERS + ORIGINS} slices", taken, taken / seconds[KIND.name])
        for name, taken in seconds.items()
    ]
    title = f"One comparison by all metrics: {len(month.day):,} rows, {DAYS} days, {POLICY.resamples:,} draws"
    note = f"Medians of {rounds} rounds. Three classes; three quantiles."
    return [Result(title, ("comparison", "processor seconds", "ratio"), rows, (note,))]


def simulated(staging: Model, production: Model, days: int, rows: int, seed: int) -> Month:
    """Return a month with about this many rows per day."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), random.poisson(rows, days) + 1)
    count = len(day)
    known = random.normal(KNOWN_MEAN, KNOWN_SPREAD, count)
    outcome = random.random(count) < expit(known + random.normal(0, DAY_SPREAD, days)[day])
    shared_of_day, shared_of_row = random.normal(size=days), random.normal(size=count)
    predictions = []
    for model in (staging, production):
        spread = np.where(random.random(days) < BAD_DAYS, model.bad_error, model.error)
        of_day = spread * _partly(shared_of_day, random.normal(size=days))
        of_row = ROW_ERROR * _partly(shared_of_row, random.normal(size=count))
        predictions.append(expit(known + of_day[day] + of_row))
    return Month(outcome, predictions[0], predictions[1], day)


def _slices(month: Month, seed: int) -> dict[str, NDArray[np.int64]]:
    """Return a carrier and an origin for each row; the smallest carrier has a tenth of a percent."""
    random = np.random.default_rng(seed)
    shares = 0.65 ** np.arange(CARRIERS)
    return {
        "carrier": random.choice(CARRIERS, len(month.day), p=shares / shares.sum()),
        "origin": random.integers(0, ORIGINS, len(month.day)),
    }


def _expected_loss(model: Model) -> float:
    """Return the expected log loss of a model, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    known = KNOWN_MEAN + KNOWN_SPREAD * nodes
    happens = expit(known[:, None] + DAY_SPREAD * nodes) @ weights

    def loss(error: float) -> float:
        logit = known[:, None] + math.hypot(error, ROW_ERROR) * nodes
        each = happens[:, None] * np.logaddexp(0, -logit) + (1 - happens[:, None]) * np.logaddexp(0, logit)
        return float(weights @ each @ weights)

    return (1 - BAD_DAYS) * loss(model.error) + BAD_DAYS * loss(model.bad_error)


def _as_good_as_steady(of_error: Callable[[float], Model]) -> Model:
    """Return an unsteady model that has the expected loss of a steady one."""
    steady = _expected_loss(STEADY)
    solution = root_scalar(lambda error: _expected_loss(of_error(error)) - steady, bracket=(0.0, 5.0))
    return of_error(solution.root)


def _compared(
    month: Month, names: Sequence, slices: dict[str, NDArray[np.int64]] | None = None
) -> Comparison:
    data = (month.outcome, month.staging, month.production)
    return compare(KIND, *data, clusters=month.day, metrics=names, slices=slices or {})


def _passes(month: Month, margin: float = 0.0) -> bool:
    comparison = _compared(month, (METRIC, "calibration_error"))
    return Better(margin=margin).evaluate(Findings(comparison, Latencies(1.0, None), ())).passed


def _of_each_kind(month: Month) -> list[tuple[PredictionKind, NDArray, NDArray, NDArray]]:
    """Return each kind with outcomes and predictions that are derived from those of the month."""
    random = np.random.default_rng(2)
    one, other = month.staging, month.production
    three, other_three = (np.stack([1 - each, 0.75 * each, 0.25 * each], axis=1) for each in (one, other))
    numbers = month.outcome + random.normal(size=len(month.day))
    quantiles, other_quantiles = (each[:, None] + np.array([-1.3, 0.0, 1.3]) for each in (one, other))
    labels = np.where(month.outcome, random.choice([1, 1, 1, 2], len(month.day)), 0)
    return [
        (KIND, month.outcome, one, other),
        (Multiclass((0, 1, 2)), labels, three, other_three),
        (Regression(), numbers, one, other),
        (Quantiles((0.1, 0.5, 0.9)), numbers, quantiles, other_quantiles),
    ]


def _partly(shared: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    return math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * own
