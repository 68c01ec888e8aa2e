"""Policies: the gates that staging must pass, and the confidence they need. The gates are in gates.py."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from ledgerline.evaluation.comparison import ALPHA, RESAMPLES, SEED
from ledgerline.evaluation.gates import Better, Calibrated, FastEnough, NoSliceWorse, SameSignature
from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.prediction_kind import PredictionKind, require_kind
from ledgerline.evaluation.rulings import Findings, Gate, Ruling, require_between

# Dagster allows these characters in the name of an asset check.
_RULE = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Policy:
    """The gates that staging must pass.

    Attributes:
        gates: The gates, each with a different rule, in the order in which they are evaluated and listed.
        alpha: Probability with which a model that does not exceed a margin may be promoted by chance.
        resamples: Number of draws of the rows.
        seed: Seed of the draws: the same models on the same rows get the same rulings.

    Example:
        >>> [gate.rule for gate in Policy([Better(margin=2.0), NoSliceWorse(most=5.0), FastEnough()]).gates]
        ['better_than_production', 'no_slice_worse', 'fast_enough']
    """

    gates: Sequence[Gate]
    alpha: float = ALPHA
    resamples: int = RESAMPLES
    seed: int = SEED

    def __post_init__(self) -> None:
        if isinstance(self.gates, Gate) or not isinstance(self.gates, Sequence) or not self.gates:
            raise ValueError(f"gates is {self.gates!r}; pass a list of gates.")
        object.__setattr__(self, "gates", tuple(self.gates))
        for gate in self.gates:
            _require_gate(gate)
        rules = [gate.rule for gate in self.gates]
        twice = sorted({rule for rule in rules if rules.count(rule) > 1})
        if twice:
            raise ValueError(
                f"More than one gate has the rule {', '.join(twice)}; give one of them another: rule=..."
            )
        require_between("alpha", self.alpha, 0.0005, 0.4)
        for name, lowest, highest in (("resamples", 100, 1_000_000), ("seed", 0, 2**63 - 1)):
            value = getattr(self, name)
            require_between(name, value, lowest, highest)
            if not isinstance(value, int):
                raise ValueError(f"{name} is {value!r}; it must be a whole number.")

    def require_fits(self, kind: PredictionKind) -> None:
        """Refuse a kind of prediction for which one of the gates has no meaning.

        Raises:
            ValueError: A gate has no meaning for the kind; the error names the gate and its field.
        """
        require_kind(kind)
        for gate in self.gates:
            gate.require_fits(kind)
        self.metrics(kind)
        self.slice_metric(kind)

    def metrics(self, kind: PredictionKind) -> tuple[Metric, ...]:
        """List the metrics to compare models by: all metrics of the kind, and further ones that gates need.

        Raises:
            ValueError: Two different metrics have the same name.
        """
        metrics = {metric.name: metric for metric in kind.metrics}
        for gate in self.gates:
            for metric in gate.metrics(kind):
                if metrics.setdefault(metric.name, metric) != metric:
                    raise ValueError(
                        f"metric of the gate {type(gate).__name__} ({gate.rule}) has the name {metric.name}, "
                        "which another metric has; rename it."
                    )
        return tuple(metrics.values())

    def slice_metric(self, kind: PredictionKind) -> Metric:
        """Return the metric to compare slices by.

        Raises:
            ValueError: Two gates need different metrics.
        """
        metrics = [gate.slice_metric(kind) for gate in self.gates if isinstance(gate, NoSliceWorse)]
        if any(metric != metrics[0] for metric in metrics):
            names = " and by ".join(metric.name for metric in metrics)
            raise ValueError(
                f"The gates NoSliceWorse need slices by {names}; slices are compared by one metric."
            )
        return metrics[0] if metrics else kind.metric(kind.slice_metric)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON values, which are sealed with the evidence."""
        return {
            "alpha": self.alpha,
            "resamples": self.resamples,
            "seed": self.seed,
            "gates": [gate.as_dict() for gate in self.gates],
        }


def default_policy(kind: PredictionKind) -> Policy:
    """Return gates for a kind of prediction, with thresholds that do not depend on the outcomes' unit.

    A slice may be worse by 0.01 in the Brier score, or by 0.02 with several classes. In other units no
    tolerance can be chosen here, so a slice must not be significantly worse at all. For the same reason a
    regression has no bound on its bias; add `Unbiased(most=...)`.
    """
    require_kind(kind)
    tolerance = 0.01 if isinstance(kind, Binary) else 0.02 if isinstance(kind, Multiclass) else 0.0
    gates: list[Gate] = [Better(), NoSliceWorse(most=tolerance)]
    if isinstance(kind, Binary | Multiclass | Quantiles):
        gates.append(Calibrated(most=0.05))
    return Policy((*gates, FastEnough(ratio=1.5), SameSignature()))


def evaluate(policy: Policy, findings: Findings) -> tuple[Ruling, ...]:
    """Evaluate all gates in their order, also after one of them refuses.

    Args:
        policy: The gates.
        findings: Comparison with the policy's alpha and the metrics that it needs, latencies, and problems
            with the signature.

    Raises:
        ValueError: The comparison was made with another alpha, or a gate returns something other than its
            ruling.
        ComparisonError: The comparison lacks a metric.
    """
    if findings.comparison.alpha != policy.alpha:
        raise ValueError(
            f"The models were compared with alpha {findings.comparison.alpha}, the policy has "
            f"{policy.alpha}; compare them with the policy's."
        )
    rulings = []
    for gate in policy.gates:
        ruling = gate.evaluate(findings)
        if not isinstance(ruling, Ruling) or ruling.rule != gate.rule:
            name = type(gate).__name__
            raise ValueError(
                f"The gate {name} returned {ruling!r:.80}; it must return a Ruling of {gate.rule}."
            )
        rulings.append(ruling)
    return tuple(rulings)


def _require_gate(gate: Any) -> None:
    if not isinstance(gate, Gate):
        raise ValueError(f"gates has {gate!r}, which is not a gate.")
    name = type(gate).__name__
    if not is_dataclass(gate) or not gate.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(f"The gate {name} must be a frozen dataclass.")
    rule = getattr(gate, "rule", None)
    if not isinstance(rule, str) or not _RULE.fullmatch(rule):
        raise ValueError(
            f"rule of the gate {name} is {rule!r}; it must have letters, digits and underscores."
        )
    try:
        json.dumps(gate.as_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The gate {name} ({rule}) cannot be sealed: its as_dict is not JSON ({error})."
        ) from error
