"""How much better staging is than production on the same rows, and how sure that is. What follows: policy.py.

The rows of a cluster (all of one day, say) share what the models did not know, such as the weather, and so
they are wrong together. Rows are therefore drawn in whole clusters. Drawing them one by one would find
intervals that are far too narrow, and promote by luck (benchmarks/gate.py shows how often).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.resampling import (
    LOSSES,
    METRICS,
    PairedScores,
    calibration_bins,
    gain,
    paired_scores,
    paired_slice_losses,
)
from ledgerline.evaluation.samples import ComparisonError, Sample, checked_sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ledgerline.evaluation.samples import Column

SLICE_METRIC = "brier"
ALPHA = 0.05
RESAMPLES = 1000
SEED = 2013

# A slice with less is listed without numbers: its loss says nothing, and neither does its spread.
MIN_SLICE_ROWS = 100
MIN_SLICE_CLUSTERS = 5

# A metric that so few draws leave defined has no interval.
MIN_DEFINED = 0.95


@dataclass(frozen=True)
class Difference:
    """One metric of both models.

    Attributes:
        metric: Its name.
        staging: Its value for staging.
        production: Its value for production.
        gain: How much better staging is: positive if it is, whichever way the metric points.
        low: The lower end of the two-sided interval around the gain, with confidence 1 - alpha.
        high: The upper end.
        at_least: What the gain exceeds with confidence 1 - alpha: the one-sided bound, by which it is
            decided. None, as `low` and `high` are, where the metric is hardly ever defined.
    """

    metric: str
    staging: float
    production: float
    gain: float
    low: float | None
    high: float | None
    at_least: float | None


@dataclass(frozen=True)
class SliceDifference:
    """The mean loss of both models among some of the rows; None where these are too few to tell.

    Attributes:
        column: What the rows were divided by.
        value: What these rows have there.
        rows: How many they are.
        staging: The loss of staging.
        production: The loss of production.
        gain: How much better staging is.
        low: The lower end of an interval around the gain. With confidence 1 - alpha the intervals of all
            slices are right at once, so that many slices do not make a bad one by chance.
        high: The upper end.
    """

    column: str
    value: str
    rows: int
    staging: float | None
    production: float | None
    gain: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CalibrationPoint:
    """Rows with about the same probability.

    Attributes:
        predicted: Their mean probability.
        observed: The share of them in which it happened.
        rows: How many they are.
    """

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Staging and production on the same rows.

    Attributes:
        production_name: What staging is compared with, as a text names it.
        rows: How many rows there are.
        positives: In how many of them it happened.
        clusters: How many clusters they form.
        resamples: How often they were drawn anew.
        alpha: One minus the confidence of each interval.
        differences: One for each metric.
        slice_metric: The loss by which slices are compared.
        slices: One for each value of each column, in the order of the columns.
        staging_calibration: What staging said and what happened, from low to high probabilities.
        production_calibration: The same of production.
    """

    production_name: str
    rows: int
    positives: int
    clusters: int
    resamples: int
    alpha: float
    differences: tuple[Difference, ...]
    slice_metric: str
    slices: tuple[SliceDifference, ...]
    staging_calibration: tuple[CalibrationPoint, ...]
    production_calibration: tuple[CalibrationPoint, ...]

    def difference(self, metric: str) -> Difference:
        """The difference in one metric.

        Raises:
            ComparisonError: The models were not compared by it.
        """
        for found in self.differences:
            if found.metric == metric:
                return found
        compared = ", ".join(found.metric for found in self.differences)
        raise ComparisonError(f"The models were compared by {compared}, not by {metric}; compare them by it.")

    def as_dict(self) -> dict[str, Any]:
        """The same as values of JSON: finite numbers, None, texts, lists and dicts."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def compare(
    outcome: "Column",
    staging: "Column",
    production: "Column",
    *,
    clusters: "Column",
    slices: "Mapping[str, Column] | None" = None,
    metrics: Sequence[str] = METRICS,
    slice_metric: str = SLICE_METRIC,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    production_name: str = "production",
) -> Comparison:
    """Compare the probabilities of two models on the same rows.

    Args:
        outcome: For each row, whether it happened.
        staging: For each row, the probability that staging gave it.
        production: The same of production, or of the baseline that stands in for it.
        clusters: For each row, a label of what it shares with others, such as its day. Different labels for
            all rows: they have nothing in common.
        slices: For each column, the label of each row. A row without one is in no slice of the column.
        metrics: Of METRICS.
        slice_metric: Of LOSSES. A mean over rows is defined for any slice, as a rank metric is not. The
            default is the Brier score, because one row adds at most 1 to it: the log loss of a hundred rows
            can be one row.
        alpha: One minus the confidence of each interval.
        resamples: How often the clusters are drawn anew.
        seed: The same one gives the same intervals.
        production_name: What staging is compared with, as a text should name it.

    Raises:
        ComparisonError: These rows cannot tell; the message says why, and what to do.
    """
    _require_options(metrics, slice_metric, alpha, resamples)
    sample = checked_sample(outcome, staging, production, clusters)
    scores = paired_scores(sample, metrics, resamples, seed)
    return Comparison(
        production_name=production_name,
        rows=len(sample.outcome),
        positives=int(sample.outcome.sum()),
        clusters=sample.cluster_count,
        resamples=resamples,
        alpha=alpha,
        differences=tuple(
            _difference(metric, scores[metric], sample.cluster_count, alpha) for metric in metrics
        ),
        slice_metric=slice_metric,
        slices=_slice_differences(
            sample, slices or {}, slice_metric, alpha=alpha, resamples=resamples, seed=seed
        ),
        staging_calibration=_calibration(sample.outcome, sample.staging),
        production_calibration=_calibration(sample.outcome, sample.production),
    )


def _difference(metric: str, scores: PairedScores, clusters: int, alpha: float) -> Difference:
    """The interval of one metric: the gain, and so many standard errors to each side as Student's t says.

    The percentiles of the draws, which are more common, are too narrow for a month of days, for two reasons
    known in advance: the spread of draws from G clusters is too small by sqrt((G - 1) / G), and it is itself
    an estimate, which t with G - 1 degrees of freedom allows for. See Hesterberg, What Teachers Should Know
    About the Bootstrap, The American Statistician 69 (2015), and on the degrees of freedom Cameron and
    Miller, A Practitioner's Guide to Cluster-Robust Inference, Journal of Human Resources 50 (2015).

    benchmarks/gate.py shows percentiles that promote too often where t does not. On the same made-up months
    two refinements, adjusting t for skewness and studentising each draw, promote too often as well: gains of
    single days have long tails, so that the skewness of a month is mostly that of its strangest day.
    """
    import numpy as np

    gained = gain(metric, scores.staging, scores.production)
    defined = scores.gains[~np.isnan(scores.gains)]
    if len(defined) < MIN_DEFINED * len(scores.gains):
        return Difference(metric, scores.staging, scores.production, gained, None, None, None)
    from scipy import stats

    error = _standard_error(defined, clusters)
    two_sided, one_sided = (error * float(stats.t.isf(level, clusters - 1)) for level in (alpha / 2, alpha))
    return Difference(
        metric=metric,
        staging=scores.staging,
        production=scores.production,
        gain=gained,
        low=gained - two_sided,
        high=gained + two_sided,
        at_least=gained - one_sided,
    )


def _standard_error(gains: "NDArray[np.float64]", clusters: int) -> float:
    return float(gains.std(ddof=1)) * math.sqrt(clusters / (clusters - 1))


def _slice_differences(
    sample: Sample,
    slices: "Mapping[str, Column]",
    metric: str,
    *,
    alpha: float,
    resamples: int,
    seed: int,
) -> tuple[SliceDifference, ...]:
    import numpy as np

    parts = [
        (column, value, rows)
        for column, labels in slices.items()
        for value, rows in _divided(column, labels, len(sample.outcome))
    ]
    clusters = [len(np.unique(sample.clusters[rows])) for _, _, rows in parts]
    telling = [
        number
        for number, (_, _, rows) in enumerate(parts)
        if rows.sum() >= MIN_SLICE_ROWS
        and clusters[number] >= MIN_SLICE_CLUSTERS
        and 0 < sample.outcome[rows].sum() < rows.sum()
    ]
    scores = paired_slice_losses(sample, metric, [parts[number][2] for number in telling], resamples, seed)
    half_widths = _simultaneous_half_widths(scores, [clusters[number] for number in telling], alpha)
    told = dict(zip(telling, zip(scores, half_widths, strict=True), strict=True))
    differences = []
    for number, (column, value, rows) in enumerate(parts):
        if number not in told:
            empty = SliceDifference(column, value, int(rows.sum()), None, None, None, None, None)
            differences.append(empty)
            continue
        found, half_width = told[number]
        gained = gain(metric, found.staging, found.production)
        differences.append(
            SliceDifference(
                column=column,
                value=value,
                rows=int(rows.sum()),
                staging=found.staging,
                production=found.production,
                gain=gained,
                low=gained - half_width,
                high=gained + half_width,
            )
        )
    return tuple(differences)


def _simultaneous_half_widths(
    scores: Sequence[PairedScores], clusters: Sequence[int], alpha: float
) -> list[float]:
    """For each slice, half the width of its interval, so that all intervals are right at once.

    In each draw the slice counts that is furthest from its own mean, in its own standard errors; what this
    exceeds in a share alpha of the draws is the critical value (Westfall and Young, Resampling-Based Multiple
    Testing, 1993). Slices that go up and down together thereby cost less than Bonferroni's correction takes.
    The draws are about normal and know nothing of how few clusters there are, so the level that the critical
    value means for a normal variable is looked up for Student's t, with the clusters that the slice has.
    """
    import numpy as np
    from scipy import stats

    if not scores:
        return []
    gains = np.stack([score.gains for score in scores], axis=1)
    deviations = np.abs(gains - np.nanmean(gains, axis=0))
    spreads = np.nanstd(gains, axis=0, ddof=1)
    scaled = np.divide(deviations, spreads, out=np.zeros_like(deviations), where=spreads > 0)
    critical = float(np.quantile(np.nan_to_num(scaled).max(axis=1), 1 - alpha, method="higher"))
    level = float(stats.norm.sf(critical))
    return [
        _standard_error(score.gains[~np.isnan(score.gains)], count) * float(stats.t.isf(level, count - 1))
        for score, count in zip(scores, clusters, strict=True)
    ]


def _calibration(
    outcome: "NDArray[np.bool_]", probability: "NDArray[np.float64]"
) -> tuple[CalibrationPoint, ...]:
    bins = calibration_bins(probability)
    points = []
    for number in range(int(bins.max()) + 1):
        rows = bins == number
        if rows.any():
            points.append(
                CalibrationPoint(
                    float(probability[rows].mean()), float(outcome[rows].mean()), int(rows.sum())
                )
            )
    return tuple(points)


def _divided(column: str, labels: "Column", rows: int) -> "list[tuple[str, NDArray[np.bool_]]]":
    """The rows that have each value, in the order of the values."""
    import pandas as pd

    codes, values = pd.factorize(pd.Series(labels))
    if len(codes) != rows:
        raise ComparisonError(
            f"The slices by {column} have {len(codes):,} labels for {rows:,} rows; pass one for each row."
        )
    named = sorted((str(value), number) for number, value in enumerate(values))
    return [(name, codes == number) for name, number in named]


def _require_options(metrics: Sequence[str], slice_metric: str, alpha: float, resamples: int) -> None:
    unknown = sorted(set(metrics).difference(METRICS))
    if unknown or not metrics:
        raise ComparisonError(
            f"Unknown metrics: {', '.join(unknown) or 'none given'}; choose from {', '.join(METRICS)}."
        )
    if slice_metric not in LOSSES:
        raise ComparisonError(
            f"Slices cannot be compared by {slice_metric}; choose from {', '.join(sorted(LOSSES))}."
        )
    if not 0 < alpha < 0.5:
        raise ComparisonError(f"alpha is {alpha}; it must lie between 0 and 0.5, for instance 0.05.")
    if resamples < 100:
        raise ComparisonError(f"{resamples} resamples are too few for an interval; take 1000.")
