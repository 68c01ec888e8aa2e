"""Compares staging with production on the same rows, with confidence intervals. The rulings are in policy.py.

The rows of a cluster (for example, of one day) share influences that the models did not know, such as the
weather, so their errors are correlated. The bootstrap therefore draws whole clusters. Drawing single rows
would give intervals that are far too narrow, and models would be promoted by chance (the gate benchmark shows
how often).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.calibration import CalibrationPoint
from ledgerline.evaluation.intervals import half_widths
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.prediction_kind import PredictionKind, require_kind
from ledgerline.evaluation.resampling import PairedScores, paired_scores
from ledgerline.evaluation.samples import ComparisonError, Sample, cluster_numbers
from ledgerline.evaluation.slices import SliceDifference, slice_differences

if TYPE_CHECKING:
    from ledgerline.evaluation.samples import Answer, Column

ALPHA = 0.05
RESAMPLES = 1000
SEED = 2013


@dataclass(frozen=True)
class Difference:
    """The values of one metric for both models, and the gain.

    Attributes:
        gain: Amount by which staging is better; it is negative if staging is worse, for either direction of
            the metric.
        low: The lower end of the two-sided interval around the gain, with confidence 1 - alpha.
        at_least: One-sided lower bound of the gain with confidence 1 - alpha, which gates evaluate. None,
            like `low` and `high`, if the metric is defined in too few draws.
        lower_is_better: The direction of the metric.
        target: Best value of the metric, if that is neither the lowest nor the highest.
    """

    metric: str
    staging: float
    production: float
    gain: float
    low: float | None
    high: float | None
    at_least: float | None
    lower_is_better: bool
    target: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The results of comparing staging with production on the same rows.

    Attributes:
        production_name: Name, for messages, of the model that staging is compared with.
        facts: Values that describe the outcomes; the kind of prediction chooses them.
        resamples: Number of draws.
        alpha: One minus the confidence of each interval.
        differences: One difference for each metric that is defined on these rows.
        undefined: Names of the other metrics.
        slice_metric: The metric by which slices are compared.
        slices: One difference for each value of each column, in the order of the columns.
        staging_calibration: Calibration curve of staging, from low to high predictions.
    """

    kind: PredictionKind
    production_name: str
    rows: int
    facts: Mapping[str, Any]
    clusters: int
    resamples: int
    alpha: float
    differences: tuple[Difference, ...]
    undefined: tuple[str, ...]
    slice_metric: str
    slices: tuple[SliceDifference, ...]
    staging_calibration: tuple[CalibrationPoint, ...]
    production_calibration: tuple[CalibrationPoint, ...]

    def difference(self, metric: str) -> Difference:
        """Return the difference in one metric.

        Raises:
            ComparisonError: The comparison lacks the metric, or the metric is not defined on these rows.
        """
        for difference in self.differences:
            if difference.metric == metric:
                return difference
        if metric in self.undefined:
            raise ComparisonError(f"{metric} is not defined on these rows; compare on others.")
        compared = ", ".join(difference.metric for difference in self.differences)
        raise ComparisonError(f"The models were compared by {compared}, not by {metric}; compare them by it.")

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values: finite numbers, None, texts, lists and dicts."""
        values = asdict(self) | {"kind": self.kind.as_dict()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def compare(
    kind: PredictionKind,
    outcome: "Column",
    staging: "Answer",
    production: "Answer",
    *,
    clusters: "Column",
    slices: "Mapping[str, Column] | None" = None,
    metrics: Sequence[Metric | str] | None = None,
    slice_metric: Metric | str | None = None,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    production_name: str = "production",
) -> Comparison:
    """Compare the predictions of two models on the same rows.

    Args:
        kind: Kind of prediction.
        outcome: Outcome of each row.
        staging: Prediction of staging for each row.
        production: Prediction of production, or of the baseline, for each row.
        clusters: Label of the cluster of each row, such as its day. Give each row a different label if the
            rows are independent.
        slices: For each column, the label of each row. A row without a label is in no slice of the column.
        metrics: Metrics, or names of metrics of the kind; all metrics of the kind if None.
        slice_metric: Metric that is a mean over rows, and is therefore defined for any slice (a ranking is
            not); the slice metric of the kind if None.
        alpha: One minus the confidence of each interval.
        resamples: Number of draws of the clusters.
        seed: Seed of the draws; equal seeds give equal intervals.
        production_name: Name, for messages, of the model that staging is compared with.

    Raises:
        ComparisonError: The models cannot be compared on these rows; the message says why, and what to do.

    Example:
        >>> from ledgerline.evaluation.kinds import Regression
        >>> compare(Regression(), [1, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0], clusters=[1, 1, 2, 2]).rows
        4
    """
    require_kind(kind)
    compared, by_slice = _metrics(kind, metrics), _slice_metric(kind, metrics, slice_metric)
    _require_options(alpha, resamples)
    happened = kind.outcomes(outcome)
    reason = kind.untelling(happened)
    if reason is not None:
        raise ComparisonError(reason)
    rows = len(happened)
    sample = Sample(
        happened,
        kind.predictions("staging", staging, rows),
        kind.predictions("production", production, rows),
        cluster_numbers(clusters, rows),
    )
    scores = paired_scores(sample, compared, resamples, seed)
    defined = [
        metric
        for metric in compared
        if not (math.isnan(scores[metric.name].staging) or math.isnan(scores[metric.name].production))
    ]
    return Comparison(
        kind=kind,
        production_name=production_name,
        rows=rows,
        facts=kind.facts(happened),
        clusters=sample.cluster_count,
        resamples=resamples,
        alpha=alpha,
        differences=tuple(
            _difference(metric, scores[metric.name], sample.cluster_count, alpha) for metric in defined
        ),
        undefined=tuple(metric.name for metric in compared if metric not in defined),
        slice_metric=by_slice.name,
        slices=slice_differences(
            sample,
            slices or {},
            by_slice,
            tell_apart=lambda outcomes: kind.untelling(outcomes) is None,
            alpha=alpha,
            resamples=resamples,
            seed=seed,
        ),
        staging_calibration=kind.calibration(happened, sample.staging),
        production_calibration=kind.calibration(happened, sample.production),
    )


def _difference(metric: Metric, scores: PairedScores, clusters: int, alpha: float) -> Difference:
    gained = metric.gain(scores.staging, scores.production)
    two_sided, one_sided = half_widths(scores.gains, clusters, alpha) or (None, None)
    return Difference(
        metric=metric.name,
        staging=scores.staging,
        production=scores.production,
        gain=gained,
        low=None if two_sided is None else gained - two_sided,
        high=None if two_sided is None else gained + two_sided,
        at_least=None if one_sided is None else gained - one_sided,
        lower_is_better=metric.lower_is_better,
        target=metric.target,
    )


def _metrics(kind: PredictionKind, metrics: Sequence[Metric | str] | None) -> tuple[Metric, ...]:
    if metrics is None:
        return kind.metrics
    chosen = tuple(metric if isinstance(metric, Metric) else kind.metric(metric) for metric in metrics)
    if not chosen:
        raise ComparisonError(
            f"No metrics are given; for {kind.name} choose from "
            f"{', '.join(metric.name for metric in kind.metrics)}, or pass a metric of your own."
        )
    names = [metric.name for metric in chosen]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ComparisonError(f"More than one metric has the name {', '.join(twice)}; rename one.")
    return chosen


def _slice_metric(
    kind: PredictionKind, metrics: Sequence[Metric | str] | None, metric: Metric | str | None
) -> Metric:
    own = {each.name: each for each in metrics or () if isinstance(each, Metric)}
    if metric is None:
        metric = kind.slice_metric
    if not isinstance(metric, Metric):
        metric = own[metric] if metric in own else kind.metric(metric)
    if not metric.is_defined_for_slices:
        possible = sorted(each.name for each in (*kind.metrics, *own.values()) if each.is_defined_for_slices)
        raise ComparisonError(
            f"Slices cannot be compared by {metric.name}; choose from {', '.join(dict.fromkeys(possible))}."
        )
    return metric


def _require_options(alpha: float, resamples: int) -> None:
    if not 0 < alpha < 0.5:
        raise ComparisonError(f"alpha is {alpha}; it must lie between 0 and 0.5, for instance 0.05.")
    if resamples < 100:
        raise ComparisonError(f"{resamples} resamples are too few for an interval; take 1000.")
