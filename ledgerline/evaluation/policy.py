"""What staging must prove before it becomes production: five rules, each with the number it was judged by.

How the numbers are found is elsewhere: comparison.py, signatures.py. What happens after a ruling is, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ledgerline.evaluation.comparison import ALPHA, RESAMPLES, SEED, Comparison, SliceDifference
from ledgerline.evaluation.resampling import LOWER_IS_BETTER, METRICS

BETTER = "better_than_production"
SLICES = "no_slice_worse"
CALIBRATED = "calibrated"
FAST = "fast_enough"
SIGNATURE = "same_signature"
RULES = (BETTER, SLICES, CALIBRATED, FAST, SIGNATURE)

NAMED_SLICES = 3  # in a text; the comparison holds all


@dataclass(frozen=True)
class Policy:
    """What staging must prove.

    Attributes:
        primary_metric: The metric in which it must be better.
        margin: By more than how much, in the metric's unit. The lower bound of the gain must exceed it, with
            confidence 1 - alpha; the estimate alone is not enough. Above 0 it also allows for what rows do
            not show: a model that is better on most days and much worse in storms wins too many months that
            had none (benchmarks/gate.py). Below 0: staging may be worse by so much.
        alpha: How often a model that is no better than the margin may be promoted by luck.
        largest_slice_loss: How much worse a slice may be, in the metric of the slices. Staging is refused for
            a slice that seems worse by more than this and is surely worse at all (its interval, which allows
            for the number of slices, lies below 0). The estimate alone would refuse most good models, for
            one small slice among many always seems bad; an interval all beyond the bound would refuse none,
            for small slices have wide ones. So who is in a slice is protected once there is evidence.
        largest_calibration_error: What the calibration error of staging may be, on these rows, or that of
            production if that is larger: a month that surprises both would otherwise keep the one that was
            surprised more. The estimate is judged.
        largest_latency_ratio: How much longer staging may take for one row, as a multiple of production.
        resamples: How often the rows are drawn anew.
        seed: Of the draws: the same models on the same rows get the same ruling.
    """

    primary_metric: str = "log_loss"
    margin: float = 0.0
    alpha: float = ALPHA
    largest_slice_loss: float = 0.01
    largest_calibration_error: float = 0.05
    largest_latency_ratio: float = 1.5
    resamples: int = RESAMPLES
    seed: int = SEED

    def __post_init__(self) -> None:
        if self.primary_metric not in METRICS:
            raise ValueError(f"primary_metric is {self.primary_metric!r}; choose from {', '.join(METRICS)}.")
        self._require_between("margin", -1, 1)
        self._require_between("alpha", 0.0005, 0.4)
        self._require_between("largest_slice_loss", 0, 1)
        self._require_between("largest_calibration_error", 0, 1)
        self._require_between("largest_latency_ratio", 0, math.inf)
        self._require_between("resamples", 100, 1_000_000)
        self._require_between("seed", 0, 2**63 - 1)
        for name in ("resamples", "seed"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a whole number.")

    def _require_between(self, name: str, lowest: float, highest: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} is {value!r}; it must be a number.")
        if not math.isfinite(value) or not lowest <= value <= highest:
            limits = f"{lowest:g} or more" if highest == math.inf else f"between {lowest:g} and {highest:g}"
            raise ValueError(f"{name} is {value}; it must be {limits}.")


@dataclass(frozen=True)
class Latencies:
    """How long one row takes.

    Attributes:
        staging_ms: The fastest of many predictions by staging, in milliseconds.
        production_ms: The same of production; None where there is none.
    """

    staging_ms: float
    production_ms: float | None

    def __post_init__(self) -> None:
        for name in ("staging_ms", "production_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a time above 0.")


@dataclass(frozen=True)
class Ruling:
    """Whether staging keeps one rule.

    Attributes:
        rule: Of RULES.
        passed: Whether it does.
        value: The number that was judged; None where there is none.
        threshold: What it was held against; None where there is nothing.
        text: One sentence that says both.
    """

    rule: str
    passed: bool
    value: float | None
    threshold: float | None
    text: str


def judge(
    policy: Policy, comparison: Comparison, latency: Latencies, signature_problems: Sequence[str]
) -> tuple[Ruling, ...]:
    """Judge staging by all rules, also after one was broken, in the order of RULES.

    Args:
        policy: The rules' numbers.
        comparison: Made with the policy's alpha, of its primary metric and the calibration error.
        latency: Of one row.
        signature_problems: What a client of production could not do with staging.

    Raises:
        ValueError: The comparison was made with another alpha.
        ComparisonError: The comparison lacks a metric.
    """
    if comparison.alpha != policy.alpha:
        raise ValueError(
            f"The models were compared with alpha {comparison.alpha}, the policy has {policy.alpha}; "
            "compare them with the policy's."
        )
    return (
        _better(policy, comparison),
        _no_slice_worse(policy, comparison),
        _calibrated(policy, comparison),
        _fast_enough(policy, latency, comparison.production_name),
        _same_signature(signature_problems, comparison.production_name),
    )


def _better(policy: Policy, comparison: Comparison) -> Ruling:
    found = comparison.difference(policy.primary_metric)
    confidence = f"{100 * (1 - policy.alpha):g} %"
    said = (
        f"{found.metric} is {_number(found.staging)}, against {_number(found.production)} of "
        f"{comparison.production_name}"
    )
    if found.at_least is None:
        return Ruling(
            BETTER, False, None, policy.margin, f"{said}; these rows are too few to tell how sure that is."
        )
    passed = found.at_least > policy.margin
    lower = " (lower is better)" if found.metric in LOWER_IS_BETTER else ""
    must = "exceeds" if passed else "does not exceed"
    return Ruling(
        rule=BETTER,
        passed=passed,
        value=found.at_least,
        threshold=policy.margin,
        text=(
            f"{said}{lower}: a gain of {_number(found.gain)}, which with {confidence} confidence is at least "
            f"{_number(found.at_least)} and so {must} {_number(policy.margin)}."
        ),
    )


def _no_slice_worse(policy: Policy, comparison: Comparison) -> Ruling:
    judged = [(found, found.gain) for found in comparison.slices if found.gain is not None]
    bound = policy.largest_slice_loss
    if not judged:
        return Ruling(SLICES, True, None, bound, "No slice has enough rows to be judged.")
    worst, lowest_gain = min(judged, key=lambda pair: pair[1])
    worse = [(found, gain) for found, gain in judged if _is_surely_worse(found, bound)]
    measured = f"the {comparison.slice_metric} of {comparison.production_name}"
    if worse:
        worse.sort(key=lambda pair: pair[1])
        named = ", ".join(
            f"{found.column} {found.value} by {_number(-gain)}" for found, gain in worse[:NAMED_SLICES]
        )
        more = f" and {len(worse) - NAMED_SLICES} more" if len(worse) > NAMED_SLICES else ""
        text = (
            f"{len(worse)} of {len(judged)} slices are worse than {measured} by more than {_number(bound)}, "
            f"and surely worse: {named}{more}."
        )
        return Ruling(SLICES, False, -worse[0][1], bound, text)
    text = f"None of {len(judged)} slices is surely worse than {measured} by more than {_number(bound)}"
    if lowest_gain < 0:
        text += f"; {worst.column} {worst.value} seems most so, by {_number(-lowest_gain)}"
    return Ruling(SLICES, True, 0.0 - lowest_gain, bound, f"{text}.")


def _is_surely_worse(found: SliceDifference, bound: float) -> bool:
    return found.gain is not None and found.high is not None and found.gain < -bound and found.high < 0


def _calibrated(policy: Policy, comparison: Comparison) -> Ruling:
    found = comparison.difference("calibration_error")
    threshold = max(policy.largest_calibration_error, found.production)
    why = (
        f"{comparison.production_name} has {_number(found.production)}"
        if found.production > policy.largest_calibration_error
        else "whatever it is compared with"
    )
    passed = found.staging <= threshold
    return Ruling(
        rule=CALIBRATED,
        passed=passed,
        value=found.staging,
        threshold=threshold,
        text=(
            f"calibration_error is {_number(found.staging)}, which is {'within' if passed else 'above'} the "
            f"{_number(threshold)} allowed ({why})."
        ),
    )


def _fast_enough(policy: Policy, latency: Latencies, production_name: str) -> Ruling:
    allowed = policy.largest_latency_ratio
    takes = f"One row takes {latency.staging_ms:.3g} ms"
    if latency.production_ms is None:
        text = f"{takes}; there is no production version to compare that with."
        return Ruling(FAST, True, None, allowed, text)
    ratio = latency.staging_ms / latency.production_ms
    passed = ratio <= allowed
    return Ruling(
        rule=FAST,
        passed=passed,
        value=ratio,
        threshold=allowed,
        text=(
            f"{takes}, {ratio:.3g} times the {latency.production_ms:.3g} ms of {production_name}, which is "
            f"{'within' if passed else 'above'} the {allowed:g} allowed."
        ),
    )


def _same_signature(problems: Sequence[str], production_name: str) -> Ruling:
    text = f"A client of {production_name} can use staging as it is."
    if problems:
        text = f"A client of {production_name} cannot use staging as it is: {' '.join(problems)}"
    return Ruling(SIGNATURE, not problems, float(len(problems)), 0.0, text)


def _number(value: float) -> str:
    """Four digits behind the point, more for a number that would read as 0."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.0001 else f"{value:.1e}"
