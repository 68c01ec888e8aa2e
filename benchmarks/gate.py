"""How often the gate promotes a model by luck, how often it misses a better one, and how long it takes.

Months of made-up rows are judged as real ones are. What the models say of a row is wrong by an error of the
whole day, which all its rows share, and one of its own; so how good a model is in the long run is known
exactly, and every promotion of one that is no better is luck.

    .venv/bin/python -m benchmarks.gate [--quick] [--json FILE]
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from sklearn import metrics

from benchmarks.results import Result, Value
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
GATE = Better()
LATENCIES = Latencies(1.0, None)
WIDTH = 132  # where the output is no terminal

# The logit of a row: what the models know of it, and what the day adds, which none of them knows.
KNOWN_MEAN, KNOWN_SPREAD = -1.4, 0.9
DAY_SPREAD = 0.5
# By how much a model is wrong about a row, besides the day; most of the variance of both errors
# is shared: the models have learned from much the same.
ROW_ERROR = 0.3
SHARED = 0.8
BAD_DAYS, BAD_ERROR = 0.1, 3.0
NODES = 60  # of the quadrature: more change nothing

CARRIERS, ORIGINS = 16, 3


@dataclass(frozen=True)
class Model:
    """How wrong a model is about days.

    Attributes:
        error: Standard deviation of its error on an ordinary day, in logits.
        bad_error: The same on a bad day, of which there is one in ten.
    """

    error: float
    bad_error: float

    @classmethod
    def steady(cls, error: float) -> "Model":
        """A model to which all days are alike."""
        return cls(error, error)


@dataclass(frozen=True)
class Month:
    """What both models are judged on: for each row what happened, what they said, and its day."""

    outcome: NDArray[np.bool_]
    staging: NDArray[np.float64]
    production: NDArray[np.float64]
    day: NDArray[np.intp]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pairs: Months that are judged for each row of a table.
        slow_pairs: The same where rows are drawn one by one.
        rows: In a day.
        speed_rows: In the month whose comparison is timed.
        rounds: How often it is.
        peer_draws: How many draws the loop makes that it is compared with.
    """

    pairs: int
    slow_pairs: int
    rows: int
    speed_rows: int
    rounds: int
    peer_draws: int


FULL = Size(pairs=2000, slow_pairs=300, rows=200, speed_rows=28_000, rounds=5, peer_draws=20)
QUICK = Size(pairs=60, slow_pairs=10, rows=60, speed_rows=3_000, rounds=1, peer_draws=2)

STEADY = Model.steady(0.5)
DAYS, FEW_DAYS = 31, 10
MARGIN = 0.0025  # half a percent of the log loss
GAINS = (-0.008, -0.004, -0.002, 0.002, 0.004, 0.008, 0.016)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works, not how well")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = {
        "processors": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scikit-learn")},
    }
    console.print(about)
    results = []
    for measure in (luck, misses, speed):
        started = time.monotonic()
        result = measure(size)
        result.show(console)
        results.append(result)
        console.print(f"{result.section}: {time.monotonic() - started:.0f} s", highlight=False)
    if arguments.json is not None:
        told = {"machine": about, "results": [result.as_json() for result in results]}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


def luck(size: Size) -> Result:
    """Promotions of models that are exactly as good as production."""
    moody = as_good(STEADY, lambda error: Model(error, BAD_ERROR * error))
    slow = size.slow_pairs
    cases: Sequence[tuple[str, Callable[[int], bool], int]] = (
        ("alike", _judged(STEADY, STEADY, DAYS, size), size.pairs),
        (f"alike, in {FEW_DAYS} days", _judged(STEADY, STEADY, FEW_DAYS, size), size.pairs),
        ("staging has bad days", _judged(moody, STEADY, DAYS, size), size.pairs),
        (f"staging has bad days, margin {MARGIN:g}", _judged(moody, STEADY, DAYS, size, MARGIN), size.pairs),
        ("production has bad days", _judged(STEADY, moody, DAYS, size), size.pairs),
        ("alike, percentiles of the draws instead", _by_percentiles(STEADY, STEADY, size), size.pairs),
        ("bad days, percentiles of the draws instead", _by_percentiles(moody, STEADY, size), size.pairs),
        ("alike, rows drawn one by one instead", _by_rows(STEADY, STEADY, size), slow),
    )
    rows = [_rate(name, is_promoted, pairs, POLICY.alpha) for name, is_promoted, pairs in cases]
    rows.append(_rate("alike: a slice surely worse", _slice_is_worse(size), size.pairs, POLICY.alpha / 2))
    return Result(
        "luck",
        f"Promotions of a model that is no better, in months of {DAYS} days",
        ("models", "months", "promoted, %", "from", "to", "meant, %"),
        rows,
        (
            f"By {METRIC.name}, {POLICY.resamples} draws. From, to: 95 % interval of the share.",
            (
                f"Bad days: one in ten, with an error {BAD_ERROR:g} times as large; the expected loss is the "
                "same. A month that happens to have few of them cannot show what they cost. That is what a "
                "margin is for."
            ),
            f"A slice: any of {CARRIERS} and {ORIGINS} whose simultaneous interval lies below 0.",
        ),
    )


def misses(size: Size) -> Result:
    """What becomes of models that are worse, or better, by a known gain."""
    rows: list[Sequence[Value]] = []
    pairs, spreads = size.pairs // 2, []
    for gained in GAINS:
        staging = as_good(STEADY, Model.steady, gained)
        found = [_compared(simulated(staging, STEADY, DAYS, size.rows, seed)) for seed in range(pairs)]
        spreads.append(statistics.stdev(comparison.difference(METRIC.name).gain for comparison in found))
        count = sum(map(_is_better, found))
        promoted = 100 * count / pairs
        said = f"{'better' if gained > 0 else 'worse'} by {abs(gained):g}"
        missed = 100 - promoted if gained > 0 else None
        rows.append((said, pairs, promoted, *_interval(count, pairs), missed))
    return Result(
        "misses",
        f"Promotions of a worse or better model, in months of {DAYS} days",
        ("expected log loss", "months", "promoted, %", "from", "to", "missed, %"),
        rows,
        (
            (
                f"The expected log loss of production is {expected_loss(STEADY):.3f}. From month to month "
                f"the gain of the same models has a standard deviation of {statistics.mean(spreads):.4f}."
            ),
        ),
    )


def speed(size: Size) -> Result:
    """How long a comparison takes for each kind of prediction, beside the loop that one would write."""
    month = simulated(STEADY, STEADY, DAYS, math.ceil(size.speed_rows / DAYS), 1)
    slices = sliced(month, 1)
    seconds = {
        kind.name: _seconds(kind, month.day, slices, columns, size.rounds)
        for kind, *columns in _of_each_kind(month)
    }
    started = time.process_time()
    naive_draws(month, size.peer_draws)
    peer = (time.process_time() - started) / size.peer_draws * POLICY.resamples
    rows: list[Sequence[Value]] = [
        (f"compare, {name}, with {CARRIERS + ORIGINS} slices", taken, taken / seconds[KIND.name])
        for name, taken in seconds.items()
    ]
    rows.append(("a loop over scikit-learn, binary, without slices", peer, peer / seconds[KIND.name]))
    return Result(
        "speed",
        f"One comparison by all metrics: {len(month.day):,} rows, {DAYS} days, {POLICY.resamples:,} draws",
        ("way", "processor seconds", "ratio"),
        rows,
        (
            f"Ours: median of {size.rounds}. The loop: {size.peer_draws} draws, scaled; it bins with pandas.",
            "Three classes, three levels.",
        ),
    )


def _of_each_kind(month: Month) -> list[tuple[PredictionKind, NDArray, NDArray, NDArray]]:
    """The kinds, each with outcomes and predictions that are made from those of the month."""
    random = np.random.default_rng(2)
    one, other = month.staging, month.production
    three, three_others = (np.stack([1 - said, 0.75 * said, 0.25 * said], axis=1) for said in (one, other))
    numbers = month.outcome + random.normal(size=len(month.day))
    quantiles, other_quantiles = (said[:, None] + np.array([-1.3, 0.0, 1.3]) for said in (one, other))
    labels = np.where(month.outcome, random.choice([1, 1, 1, 2], len(month.day)), 0)
    return [
        (KIND, month.outcome, one, other),
        (Multiclass((0, 1, 2)), labels, three, three_others),
        (Regression(), numbers, one, other),
        (Quantiles((0.1, 0.5, 0.9)), numbers, quantiles, other_quantiles),
    ]


def _seconds(
    kind: PredictionKind,
    day: NDArray[np.intp],
    slices: dict[str, NDArray[np.int64]],
    columns: Sequence[NDArray],
    rounds: int,
) -> float:
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        compare(kind, *columns, clusters=day, slices=slices)
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def naive_draws(month: Month, draws: int) -> list[dict[str, float]]:
    """Gains of so many draws, each of which takes rows apart and scores them anew."""
    random = np.random.default_rng(1)
    table = pd.DataFrame(
        {"late": month.outcome, "staging": month.staging, "production": month.production, "day": month.day}
    )
    rows_of_day = [rows.to_numpy() for rows in table.groupby("day").groups.values()]
    gains = []
    for _ in range(draws):
        drawn = random.integers(0, len(rows_of_day), len(rows_of_day))
        rows = table.loc[np.concatenate([rows_of_day[day] for day in drawn])].reset_index(drop=True)
        staging, production = (_naive_scores(rows["late"], rows[name]) for name in ("staging", "production"))
        gains.append({metric: staging[metric] - production[metric] for metric in staging})
    return gains


def _naive_scores(outcome: "pd.Series", probability: "pd.Series") -> dict[str, float]:
    bins = pd.DataFrame({"predicted": probability, "observed": outcome.astype(float)}).groupby(
        pd.qcut(probability, 10, duplicates="drop"), observed=True
    )
    means = bins.mean()
    gaps = (means["predicted"] - means["observed"]).abs()
    return {
        "roc_auc": float(metrics.roc_auc_score(outcome, probability)),
        "pr_auc": float(metrics.average_precision_score(outcome, probability)),
        "log_loss": float(metrics.log_loss(outcome, probability)),
        "brier": float(metrics.brier_score_loss(outcome, probability)),
        "calibration_error": float((gaps * bins.size()).sum() / len(outcome)),
    }


def simulated(staging: Model, production: Model, days: int, rows: int, seed: int) -> Month:
    """A month of about so many rows a day."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), random.poisson(rows, days) + 1)
    count = len(day)
    known = random.normal(KNOWN_MEAN, KNOWN_SPREAD, count)
    outcome = random.random(count) < _sigmoid(known + random.normal(0, DAY_SPREAD, days)[day])
    shared_of_day, shared_of_row = random.normal(size=days), random.normal(size=count)
    said = []
    for model in (staging, production):
        spread = np.where(random.random(days) < BAD_DAYS, model.bad_error, model.error)
        of_day = spread * _partly(shared_of_day, random.normal(size=days))
        of_row = ROW_ERROR * _partly(shared_of_row, random.normal(size=count))
        said.append(_sigmoid(known + of_day[day] + of_row))
    return Month(outcome, said[0], said[1], day)


def sliced(month: Month, seed: int) -> dict[str, NDArray[np.int64]]:
    """A carrier and an origin for each row; carriers are large and small, down to a tenth of a percent."""
    random = np.random.default_rng(seed)
    shares = 0.65 ** np.arange(CARRIERS)
    return {
        "carrier": random.choice(CARRIERS, len(month.day), p=shares / shares.sum()),
        "origin": random.integers(0, ORIGINS, len(month.day)),
    }


@cache
def expected_loss(model: Model) -> float:
    """The log loss of a model in the long run, by Gauss-Hermite quadrature."""
    bad = _loss_with_error(math.hypot(model.bad_error, ROW_ERROR))
    return (1 - BAD_DAYS) * _loss_with_error(math.hypot(model.error, ROW_ERROR)) + BAD_DAYS * bad


def as_good(other: Model, of_error: Callable[[float], Model], gain: float = 0.0) -> Model:
    """The model of a kind whose expected loss is lower than that of another one by a gain."""
    wanted = expected_loss(other) - gain
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_loss(of_error(middle)) < wanted else (low, middle)
    return of_error((low + high) / 2)


def _loss_with_error(spread: float) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    known = KNOWN_MEAN + KNOWN_SPREAD * nodes
    happens = _sigmoid(known[:, None] + DAY_SPREAD * nodes) @ weights
    said = known[:, None] + spread * nodes
    loss = happens[:, None] * np.logaddexp(0, -said) + (1 - happens[:, None]) * np.logaddexp(0, said)
    return float(weights @ loss @ weights)


def _judged(
    staging: Model, production: Model, days: int, size: Size, margin: float = 0.0
) -> Callable[[int], bool]:
    gate = Better(margin=margin)

    def is_promoted(seed: int) -> bool:
        return _is_better(_compared(simulated(staging, production, days, size.rows, seed)), gate)

    return is_promoted


def _by_rows(staging: Model, production: Model, size: Size) -> Callable[[int], bool]:
    def is_promoted(seed: int) -> bool:
        month = simulated(staging, production, DAYS, size.rows, seed)
        return _is_better(_compared(replace(month, day=np.arange(len(month.day)))))

    return is_promoted


def _by_percentiles(staging: Model, production: Model, size: Size) -> Callable[[int], bool]:
    def is_promoted(seed: int) -> bool:
        month = simulated(staging, production, DAYS, size.rows, seed)
        sample = Sample(month.outcome, month.staging, month.production, month.day)
        scores = paired_scores(sample, (METRIC,), POLICY.resamples, POLICY.seed)
        return bool(np.quantile(scores[METRIC.name].gains, POLICY.alpha) > 0)

    return is_promoted


def _slice_is_worse(size: Size) -> Callable[[int], bool]:
    def is_worse(seed: int) -> bool:
        month = simulated(STEADY, STEADY, DAYS, size.rows, seed)
        comparison = compare(
            KIND,
            month.outcome,
            month.staging,
            month.production,
            clusters=month.day,
            metrics=(METRIC,),
            slices=sliced(month, seed),
        )
        return any(found.high is not None and found.high < 0 for found in comparison.slices)

    return is_worse


def _compared(month: Month) -> Comparison:
    return compare(
        KIND,
        month.outcome,
        month.staging,
        month.production,
        clusters=month.day,
        metrics=(METRIC, "calibration_error"),
    )


def _is_better(comparison: Comparison, gate: Better = GATE) -> bool:
    return gate.evaluate(Findings(comparison, LATENCIES, ())).passed


def _rate(name: str, happens: Callable[[int], bool], pairs: int, meant: float) -> Sequence[Value]:
    count = sum(happens(seed) for seed in range(pairs))
    return name, pairs, 100 * count / pairs, *_interval(count, pairs), 100 * meant


def _interval(count: int, pairs: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent."""
    found = stats.binomtest(count, pairs).proportion_ci(method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logit))


def _partly(shared: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    return math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * own


if __name__ == "__main__":
    main()
