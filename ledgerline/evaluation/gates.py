"""Gates: what staging must prove before it becomes production, each with its own unit and sentence.

How the numbers are found is elsewhere: comparison.py, signatures.py. What happens after a ruling is, too.
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
        metric: The metric in which it must be better; the primary one of the kind of prediction if None.
        margin: By more than how much, in the metric's unit. The lower bound of the gain must exceed it, with
            confidence 1 - alpha; the estimate alone is not enough. Above 0 it also allows for what rows do
            not show: a model that is better on most days and much worse in storms wins too many months that
            had none (benchmarks/gate.py). Below 0: staging may be worse by so much.
        rule: The name of the rule.
    """

    metric: Metric | str | None = None
    margin: float = 0.0
    rule: str = "better_than_production"

    def __post_init__(self) -> None:
        _require_metric(self, self.metric)
        require_number(self, "margin")

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the metric that decides."""
        return (_resolved(kind, self.metric or kind.primary_metric),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Hold the lower bound of the gain against the margin."""
        comparison = findings.comparison
        metric = self.metric or comparison.kind.primary_metric
        found = _difference(comparison, metric)
        if found is None:
            return _undefined(self.rule, metric, self.margin)
        confidence = f"{100 * (1 - comparison.alpha):g} %"
        said = (
            f"{found.metric} is {number(found.staging)}, against {number(found.production)} of "
            f"{comparison.production_name}"
        )
        if found.at_least is None:
            text = f"{said}; these rows are too few to tell how sure that is."
            return Ruling(self.rule, False, None, self.margin, text)
        passed = found.at_least > self.margin
        must = "exceeds" if passed else "does not exceed"
        return Ruling(
            rule=self.rule,
            passed=passed,
            value=found.at_least,
            threshold=self.margin,
            text=(
                f"{said}{_direction(found)}: a gain of {number(found.gain)}, which with {confidence} "
                f"confidence is at least {number(found.at_least)} and so {must} {number(self.margin)}."
            ),
        )


@dataclass(frozen=True)
class NoSliceWorse(Gate):
    """No slice of the rows gets surely and noticeably worse predictions.

    Staging is refused for a slice that seems worse by more than `most` and is surely worse at all (its
    interval, which allows for the number of slices, lies below 0). The estimate alone would refuse most good
    models, for one small slice among many always seems bad; an interval all beyond the bound would refuse
    none, for small slices have wide ones. So who is in a slice is protected once there is evidence.

    Attributes:
        most: How much worse a slice may be, in the unit of the metric of the slices; 0 or more.
        metric: That metric, a mean over rows; the one of the kind of prediction if None.
        rule: The name of the rule.
    """

    most: float
    metric: Metric | str | None = None
    rule: str = "no_slice_worse"

    NAMED = 3  # in a text; the comparison holds all

    def __post_init__(self) -> None:
        _require_metric(self, self.metric)
        require_number(self, "most", lowest=0)

    def slice_metric(self, kind: PredictionKind) -> Metric:
        """Return the metric by which slices must be compared.

        Raises:
            ComparisonError: The kind does not have it, or it is no mean over rows.
        """
        metric = _resolved(kind, self.metric or kind.slice_metric)
        if not metric.is_defined_for_slices:
            raise ComparisonError(
                f"metric is {metric.name}, which is no mean over rows, so slices have none."
            )
        return metric

    def require_fits(self, kind: PredictionKind) -> None:
        """Refuse a metric that slices do not have."""
        try:
            self.slice_metric(kind)
        except ComparisonError as error:
            raise ValueError(f"The gate {type(self).__name__} ({self.rule}): {error}") from error

    def evaluate(self, findings: Findings) -> Ruling:
        """Look for a slice that is surely worse, and by more than allowed."""
        comparison, bound = findings.comparison, self.most
        wanted = self.metric.name if isinstance(self.metric, Metric) else self.metric
        if wanted is not None and wanted != comparison.slice_metric:
            raise ComparisonError(
                f"Slices were compared by {comparison.slice_metric}, not by {wanted}; compare them by it."
            )
        evaluated = [(found, found.gain) for found in comparison.slices if found.gain is not None]
        if not evaluated:
            return Ruling(self.rule, True, None, bound, "No slice has enough rows to be judged.")
        worst, lowest_gain = min(evaluated, key=lambda pair: pair[1])
        worse = sorted(
            (
                (found, gain)
                for found, gain in evaluated
                if found.high is not None and gain < -bound and found.high < 0
            ),
            key=lambda pair: pair[1],
        )
        measured = f"the {comparison.slice_metric} of {comparison.production_name}"
        if worse:
            named = ", ".join(
                f"{found.column} {found.value} by {number(-gain)}" for found, gain in worse[: self.NAMED]
            )
            more = f" and {len(worse) - self.NAMED} more" if len(worse) > self.NAMED else ""
            text = (
                f"{len(worse)} of {len(evaluated)} slices are worse than {measured} by more than "
                f"{number(bound)}, and surely worse: {named}{more}."
            )
            return Ruling(self.rule, False, -worse[0][1], bound, text)
        text = f"None of {len(evaluated)} slices is surely worse than {measured} by more than {number(bound)}"
        if lowest_gain < 0:
            text += f"; {worst.column} {worst.value} seems most so, by {number(-lowest_gain)}"
        return Ruling(self.rule, True, 0.0 - lowest_gain, bound, f"{text}.")


@dataclass(frozen=True)
class Calibrated(Gate):
    """What staging predicts comes true about as often as it says.

    Judged is the calibration error of probabilities, or the coverage error of quantiles. Both are shares.

    Attributes:
        most: What the error may be on these rows, from 0 to 1, or that of production if that is larger: rows
            that surprise both would otherwise keep the one that was surprised more. The estimate is judged.
        rule: The name of the rule.
    """

    most: float
    rule: str = "calibrated"

    def __post_init__(self) -> None:
        require_number(self, "most", lowest=0, highest=1)

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the kind's measure of calibration."""
        if kind.calibration_metric is None:
            raise ComparisonError(f"{kind.name} has no calibration that is a share; use the gate Unbiased.")
        return (kind.metric(kind.calibration_metric),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Hold the error against what is allowed."""
        (metric,) = self.metrics(findings.comparison.kind)
        return _within_production(self.rule, metric.name, self.most, findings.comparison)


@dataclass(frozen=True)
class Unbiased(Gate):
    """On the whole staging predicts neither too much nor too little.

    Attributes:
        most: What the bias may be on these rows (the absolute value of the mean error), in the unit of the
            outcome, or that of production if that is larger. The estimate is judged.
        rule: The name of the rule.
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
        """Hold the bias against what is allowed."""
        return _within_production(self.rule, "bias", self.most, findings.comparison)


@dataclass(frozen=True)
class FastEnough(Gate):
    """One prediction takes about as long as one of production.

    Attributes:
        ratio: How much longer staging may take for one row, as a multiple of production.
        rule: The name of the rule.
    """

    ratio: float = 1.5
    rule: str = "fast_enough"

    def __post_init__(self) -> None:
        require_number(self, "ratio", lowest=0)

    def evaluate(self, findings: Findings) -> Ruling:
        """Hold the ratio of both latencies against the one allowed."""
        latency = findings.latency
        takes = f"One row takes {latency.staging_ms:.3g} ms"
        if latency.production_ms is None:
            text = f"{takes}; there is no production version to compare that with."
            return Ruling(self.rule, True, None, self.ratio, text)
        ratio = latency.staging_ms / latency.production_ms
        passed = ratio <= self.ratio
        return Ruling(
            rule=self.rule,
            passed=passed,
            value=ratio,
            threshold=self.ratio,
            text=(
                f"{takes}, {ratio:.3g} times the {latency.production_ms:.3g} ms of "
                f"{findings.comparison.production_name}, which is {'within' if passed else 'above'} the "
                f"{self.ratio:g} allowed."
            ),
        )


@dataclass(frozen=True)
class SameSignature(Gate):
    """A client of production can call staging in the same way.

    Attributes:
        rule: The name of the rule.
    """

    rule: str = "same_signature"

    def evaluate(self, findings: Findings) -> Ruling:
        """Count the problems."""
        problems, name = findings.signature_problems, findings.comparison.production_name
        text = f"A client of {name} can use staging as it is."
        if problems:
            text = f"A client of {name} cannot use staging as it is: {' '.join(problems)}"
        return Ruling(self.rule, not problems, float(len(problems)), 0.0, text)


@dataclass(frozen=True)
class Within(Gate):
    """A metric of staging lies within a bound, whatever production's is.

    Attributes:
        metric: The metric.
        most: What it may be at most, in its unit; give this or `least`.
        least: What it must be at least.
        rule: The name of the rule; the metric's with `_within` if empty.
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
        """One sentence on what is asked for."""
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{_name(self.metric)} of staging is {bound}, whatever production's is."

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """Return the metric."""
        return (_resolved(kind, self.metric),)

    def evaluate(self, findings: Findings) -> Ruling:
        """Hold the metric against the bound."""
        threshold = self.least if self.most is None else self.most
        found = _difference(findings.comparison, self.metric)
        if threshold is None or found is None:
            return _undefined(self.rule, self.metric, threshold)
        if self.most is not None:
            passed = found.staging <= threshold
            is_so = f"{'within' if passed else 'above'} the {number(threshold)} allowed"
        else:
            passed = found.staging >= threshold
            is_so = f"{'at least' if passed else 'below'} the {number(threshold)} demanded"
        text = f"{found.metric} is {number(found.staging)}, which is {is_so}."
        return Ruling(self.rule, passed, found.staging, threshold, text)


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
    """Hold a metric, of which lower is better, against a bound or what production has."""
    found = _difference(comparison, metric)
    if found is None:
        return _undefined(rule, metric, most)
    threshold = max(most, found.production)
    why = (
        f"{comparison.production_name} has {number(found.production)}"
        if found.production > most
        else "whatever it is compared with"
    )
    passed = found.staging <= threshold
    return Ruling(
        rule=rule,
        passed=passed,
        value=found.staging,
        threshold=threshold,
        text=(
            f"{metric} is {number(found.staging)}, which is {'within' if passed else 'above'} the "
            f"{number(threshold)} allowed ({why})."
        ),
    )


def _direction(found: Difference) -> str:
    if found.target is not None:
        return f" ({found.target:g} is best)"
    return " (lower is better)" if found.lower_is_better else ""
