"""The gates of this library. Each has a threshold in its unit and explains its ruling in a sentence.

The numbers come from comparison.py and signatures.py. Promotion is in ledgerline/registry.
"""

from dataclasses import dataclass
from typing import Any

from ledgerline.evaluation.comparison import Comparison, Difference
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.readable import number
from ledgerline.evaluation.rulings import Findings, Gate, Ruling, require_number
from ledgerline.evaluation.samples import ComparisonError


@dataclass(frozen=True)
class Better(Gate):
    """With confidence 1 - alpha, staging is better than production by more than the margin.

    Attributes:
        metric: Metric in which staging must be better; the primary metric of the kind of prediction if None.
        margin: Amount that the lower bound of the gain must exceed, in the metric's unit, with confidence
            1 - alpha. A margin above 0 also guards against rare failures that the evaluation rows do not
            contain (the gate benchmark measures this). With a margin below 0 staging may be worse by that
            amount.
        rule: Name of the rule.
    """

    metric: Metric | str | None = None
    margin: float = 0.0
    rule: str = "better_than_production"

    def __post_init__(self) -> None:
        _require_metric(self, self.metric)
        require_number(self, "margin")

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the metric that the gate evaluates."""
        return (_resolved(kind, self.metric or kind.primary_metric),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Compare the lower bound of the gain with the margin."""
        comparison = findings.comparison
        metric = self.metric or comparison.kind.primary_metric
        difference = _difference(comparison, metric)
        if difference is None:
            return _undefined(self.rule, metric, self.margin)
        confidence = f"{100 * (1 - comparison.alpha):g} %"
        measured = (
            f"{difference.metric} is {number(difference.staging)}, against {number(difference.production)} "
            f"of {comparison.production_name}"
        )
        if difference.at_least is None:
            text = f"{measured}; these rows are too few for a confidence interval."
            return Ruling(self.rule, False, None, self.margin, text)
        passed = difference.at_least > self.margin
        text = (
            f"{measured}{_direction(difference)}: a gain of {number(difference.gain)}, which with "
            f"{confidence} confidence is at least {number(difference.at_least)} and so "
            f"{'exceeds' if passed else 'does not exceed'} {number(self.margin)}."
        )
        return Ruling(self.rule, passed, difference.at_least, self.margin, text)


@dataclass(frozen=True)
class NoSliceWorse(Gate):
    """No slice of the rows gets predictions that are significantly and noticeably worse.

    Staging is refused if a slice is worse by more than `most` (estimate) and significantly worse than 0 (its
    interval, which is adjusted for the number of slices, lies below 0). The estimate alone would refuse most
    good models, because among many small slices one nearly always has a bad estimate. Requiring the whole
    interval to lie beyond the bound would refuse almost no model, because small slices have wide intervals.

    Attributes:
        most: Amount by which a slice may be worse, in the unit of the slice metric; 0 or more.
        metric: Slice metric, a mean over rows; the slice metric of the kind of prediction if None.
        rule: Name of the rule.
    """

    most: float
    metric: Metric | str | None = None
    rule: str = "no_slice_worse"

    NAMED = 3  # in a ruling's text; the comparison contains all

    def __post_init__(self) -> None:
        _require_metric(self, self.metric)
        require_number(self, "most", lowest=0)

    def slice_metric(self, kind: PredictionKind) -> Metric:
        """Return the metric by which slices must be compared.

        Raises:
            ComparisonError: The kind does not have the metric, or the metric is not a mean over rows.
        """
        metric = _resolved(kind, self.metric or kind.slice_metric)
        if not metric.is_defined_for_slices:
            raise ComparisonError(
                f"metric is {metric.name}, which is not a mean over rows; slices need one that is."
            )
        return metric

    def require_fits(self, kind: PredictionKind) -> None:
        """Refuse a metric that is not defined for slices."""
        try:
            self.slice_metric(kind)
        except ComparisonError as error:
            raise ValueError(f"The gate {type(self).__name__} ({self.rule}): {error}") from error

    def evaluate(self, findings: Findings) -> Ruling:
        """Find the slices that are significantly worse, and by more than the bound."""
        comparison, bound = findings.comparison, self.most
        wanted = self.metric.name if isinstance(self.metric, Metric) else self.metric
        if wanted is not None and wanted != comparison.slice_metric:
            raise ComparisonError(
                f"Slices were compared by {comparison.slice_metric}, not by {wanted}; compare them by it."
            )
        gains = [(part, part.gain) for part in comparison.slices if part.gain is not None]
        if not gains:
            return Ruling(self.rule, True, None, bound, "No slice has enough rows to be evaluated.")
        evaluated = sorted(gains, key=lambda pair: pair[1])
        worst, lowest_gain = evaluated[0]
        significant = [pair for pair in evaluated if pair[0].high is not None and pair[0].high < 0]
        worse = [(part, gain) for part, gain in significant if gain < -bound]
        measured = f"the {comparison.slice_metric} of {comparison.production_name}"
        if worse:
            named = ", ".join(
                f"{part.column} {part.value} by {number(-gain)}" for part, gain in worse[: self.NAMED]
            )
            more = f" and {len(worse) - self.NAMED} more" if len(worse) > self.NAMED else ""
            text = (
                f"{len(worse)} of {len(evaluated)} slices are worse than {measured} by more than "
                f"{number(bound)}, and significantly worse: {named}{more}."
            )
            return Ruling(self.rule, False, -worse[0][1], bound, text)
        text = (
            f"None of {len(evaluated)} slices is significantly worse than {measured} by more than "
            f"{number(bound)}"
        )
        if lowest_gain < 0:
            text += f"; {worst.column} {worst.value} seems most so, by {number(-lowest_gain)}"
        return Ruling(self.rule, True, 0.0 - lowest_gain, bound, f"{text}.")


@dataclass(frozen=True)
class Calibrated(Gate):
    """The predictions of staging are calibrated.

    The gate evaluates the calibration error of probabilities or the coverage error of quantiles. Both are
    shares.

    Attributes:
        most: Maximum error (the estimate, from 0 to 1). If the error of production on these rows is larger,
            staging may have that error, because unusual rows would otherwise keep the worse model in
            production.
        rule: Name of the rule.
    """

    most: float
    rule: str = "calibrated"

    def __post_init__(self) -> None:
        require_number(self, "most", lowest=0, highest=1)

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the calibration metric of the kind."""
        if kind.calibration_metric is None:
            raise ComparisonError(f"{kind.name} has no calibration that is a share; use the gate Unbiased.")
        return (kind.metric(kind.calibration_metric),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Compare the error with its maximum."""
        (metric,) = self.metrics(findings.comparison.kind)
        return _within_production(self.rule, metric.name, self.most, findings.comparison)


@dataclass(frozen=True)
class Unbiased(Gate):
    """On average staging predicts neither too much nor too little.

    Attributes:
        most: Maximum bias (absolute value of the mean error, the estimate), in the unit of the outcome. If
            the bias of production on these rows is larger, staging may have that bias.
        rule: Name of the rule.
    """

    most: float
    rule: str = "unbiased"

    def __post_init__(self) -> None:
        require_number(self, "most", lowest=0)

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the bias."""
        if "bias" not in {metric.name for metric in kind.metrics}:
            raise ComparisonError(f"{kind.name} has no bias; use the gate Calibrated.")
        return (kind.metric("bias"),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Compare the bias with its maximum."""
        return _within_production(self.rule, "bias", self.most, findings.comparison)


@dataclass(frozen=True)
class FastEnough(Gate):
    """A prediction by staging takes about as long as one by production.

    Attributes:
        ratio: Maximum latency for one row, as a multiple of that of production.
        rule: Name of the rule.
    """

    ratio: float = 1.5
    rule: str = "fast_enough"

    def __post_init__(self) -> None:
        require_number(self, "ratio", lowest=0)

    def evaluate(self, findings: Findings) -> Ruling:
        """Compare the ratio of both latencies with its maximum."""
        latency = findings.latency
        takes = f"One row takes {latency.staging_ms:.3g} ms"
        if latency.production_ms is None:
            text = f"{takes}; there is no production version to compare that with."
            return Ruling(self.rule, True, None, self.ratio, text)
        ratio = latency.staging_ms / latency.production_ms
        passed = ratio <= self.ratio
        text = (
            f"{takes}, {ratio:.3g} times the {latency.production_ms:.3g} ms of "
            f"{findings.comparison.production_name}, which is {'within' if passed else 'above'} the "
            f"{self.ratio:g} allowed."
        )
        return Ruling(self.rule, passed, ratio, self.ratio, text)


@dataclass(frozen=True)
class SameSignature(Gate):
    """A client of production can use staging without a change.

    Attributes:
        rule: Name of the rule.
    """

    rule: str = "same_signature"

    def evaluate(self, findings: Findings) -> Ruling:
        """Count the differences that break a client."""
        problems, name = findings.signature_problems, findings.comparison.production_name
        text = f"A client of {name} can use staging without a change."
        if problems:
            text = f"A client of {name} cannot use staging without a change: {' '.join(problems)}"
        return Ruling(self.rule, not problems, float(len(problems)), 0.0, text)


@dataclass(frozen=True)
class Within(Gate):
    """A metric of staging lies within a fixed bound, independent of production.

    Attributes:
        metric: The metric.
        most: Upper bound, in the metric's unit. Give either this or `least`.
        least: Lower bound, in the metric's unit.
        rule: Name of the rule; the metric's name and `_within` if empty.
    """

    metric: Metric | str
    most: float | None = None
    least: float | None = None
    rule: str = ""

    def __post_init__(self) -> None:
        _require_metric(self, self.metric)
        if (self.most is None) == (self.least is None):
            raise ValueError("The gate Within needs either most or least.")
        require_number(self, "least" if self.most is None else "most")
        if not self.rule:
            object.__setattr__(self, "rule", f"{_name(self.metric)}_within")

    @property
    def description(self) -> str:
        """The condition in one sentence."""
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{_name(self.metric)} of staging is {bound}, independent of production."

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the metric."""
        return (_resolved(kind, self.metric),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Compare the metric with the bound."""
        threshold = self.least if self.most is None else self.most
        difference = _difference(findings.comparison, self.metric)
        if threshold is None or difference is None:
            return _undefined(self.rule, self.metric, threshold)
        if self.most is not None:
            passed = difference.staging <= threshold
            is_so = f"{'within' if passed else 'above'} the {number(threshold)} allowed"
        else:
            passed = difference.staging >= threshold
            is_so = f"{'at least' if passed else 'below'} the {number(threshold)} demanded"
        text = f"{difference.metric} is {number(difference.staging)}, which is {is_so}."
        return Ruling(self.rule, passed, difference.staging, threshold, text)


def _require_metric(gate: Gate, metric: Any) -> None:
    if metric is not None and not isinstance(metric, Metric | str):
        raise ValueError(
            f"metric of the gate {type(gate).__name__} is {metric!r}; pass the name of a metric, or a Metric."
        )


def _resolved(kind: PredictionKind, metric: Metric | str) -> Metric:
    return metric if isinstance(metric, Metric) else kind.metric(metric)


def _name(metric: Metric | str) -> str:
    return metric.name if isinstance(metric, Metric) else metric


def _difference(comparison: Comparison, metric: Metric | str) -> Difference | None:
    return None if _name(metric) in comparison.undefined else comparison.difference(_name(metric))


def _undefined(rule: str, metric: Metric | str, threshold: float | None) -> Ruling:
    return Ruling(rule, False, None, threshold, f"{_name(metric)} is not defined on these rows.")


def _within_production(rule: str, metric: str, most: float, comparison: Comparison) -> Ruling:
    """Compare a metric, whose lower values are better, with the larger of a bound and production's value."""
    difference = _difference(comparison, metric)
    if difference is None:
        return _undefined(rule, metric, most)
    threshold = max(most, difference.production)
    why = (
        f"{comparison.production_name} has {number(difference.production)}"
        if difference.production > most
        else "the fixed bound"
    )
    passed = difference.staging <= threshold
    text = (
        f"{metric} is {number(difference.staging)}, which is {'within' if passed else 'above'} the "
        f"{number(threshold)} allowed ({why})."
    )
    return Ruling(rule, passed, difference.staging, threshold, text)


def _direction(difference: Difference) -> str:
    if difference.target is not None:
        return f" ({difference.target:g} is best)"
    return " (lower is better)" if difference.lower_is_better else ""
