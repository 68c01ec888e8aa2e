"""Tests lists of gates: refused lists, requirements, and their sealed form."""

import json
import math
from dataclasses import FrozenInstanceError, asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest

from ledgerline.evaluation.comparison import compare
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
from ledgerline.evaluation.policy import Policy, default_policy, evaluate
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.rulings import Findings, Gate, Latencies, Ruling
from ledgerline.evaluation.samples import ComparisonError

KINDS = (Binary(), Multiclass(("a", "b", "c")), Regression(), Quantiles((0.1, 0.5, 0.9)))


def absolute(outcome: Any, prediction: Any) -> Any:
    return np.abs(outcome - prediction)


COST = row_metric("cost", by_row=absolute)


@dataclass(frozen=True)
class EnoughRows(Gate):
    """The comparison rests on enough rows."""

    least: int
    rule: str = "enough_rows"

    def evaluate(self, findings: Findings) -> Ruling:
        rows = findings.comparison.rows
        return Ruling(self.rule, rows >= self.least, rows, self.least, f"{rows} of {self.least} rows.")


def findings(kind: PredictionKind, policy: Policy, **options: Any) -> Findings:
    random = np.random.default_rng(1)
    outcome, predicted = random.normal(size=400), random.normal(size=400)
    comparison = compare(
        kind,
        outcome,
        predicted,
        predicted + 1,
        clusters=np.arange(400) // 10,
        metrics=policy.metrics(kind),
        slice_metric=policy.slice_metric(kind),
        **options,
    )
    return Findings(comparison, Latencies(1.0, None), ())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_prediction_has_a_policy_that_fits_it(kind: PredictionKind) -> None:
    policy = default_policy(kind)
    policy.require_fits(kind)
    rules = [gate.rule for gate in policy.gates]
    assert [rules[0], rules[1], rules[-2], rules[-1]] == [
        "better_than_production",
        "no_slice_worse",
        "fast_enough",
        "same_signature",
    ]
    assert ("calibrated" in rules) is (kind.name != "regression")
    assert all(gate.description.endswith(".") for gate in policy.gates)


def test_the_policy_of_true_and_false_has_the_numbers_it_always_had() -> None:
    assert default_policy(Binary()) == Policy(
        (Better(margin=0.0), NoSliceWorse(0.01), Calibrated(0.05), FastEnough(1.5), SameSignature()),
        alpha=0.05,
        resamples=1000,
        seed=2013,
    )


def test_gates_are_evaluated_in_their_order_and_may_be_custom() -> None:
    policy = Policy([EnoughRows(500), Better(), EnoughRows(1, rule="any_row"), Better(COST, rule="cheaper")])
    rulings = evaluate(policy, findings(Regression(), policy))
    assert [(ruling.rule, ruling.passed) for ruling in rulings] == [
        ("enough_rows", False),
        ("better_than_production", True),
        ("any_row", True),
        ("cheaper", True),
    ]
    assert EnoughRows(1).description == "The comparison rests on enough rows."


def test_models_are_compared_by_all_that_gates_need() -> None:
    policy = Policy([NoSliceWorse(1, metric=COST), Within(COST, most=3), Better("rmse")])
    assert [metric.name for metric in policy.metrics(Regression())] == [
        "absolute_error",
        "rmse",
        "bias",
        "r2",
        "cost",
    ]
    assert policy.slice_metric(Regression()) == COST
    assert Policy([Better()]).slice_metric(Binary()).name == "brier"
    assert evaluate(policy, findings(Regression(), policy))


def test_a_policy_is_sealed_with_each_gate_and_its_numbers() -> None:
    policy = Policy(
        [Better(COST, margin=2), NoSliceWorse(0.5), Within("r2", least=0.1), EnoughRows(9)], alpha=0.1
    )
    assert json.loads(json.dumps(policy.as_dict(), allow_nan=False)) == {
        "alpha": 0.1,
        "resamples": 1000,
        "seed": 2013,
        "gates": [
            {
                "gate": "Better",
                "rule": "better_than_production",
                "metric": {
                    "name": "cost",
                    "lower_is_better": True,
                    "target": None,
                    "by": f"{__name__}.absolute",
                },
                "margin": 2,
            },
            {"gate": "NoSliceWorse", "rule": "no_slice_worse", "most": 0.5, "metric": None},
            {"gate": "Within", "rule": "r2_within", "metric": "r2", "most": None, "least": 0.1},
            {"gate": "EnoughRows", "rule": "enough_rows", "least": 9},
        ],
    }


@dataclass(frozen=True)
class Returning(Gate):
    """A gate that returns something."""

    returned: Any = None
    rule: str = "returning"

    def evaluate(self, findings: Findings) -> Ruling:
        return self.returned

    def as_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("returned", [None, True, Ruling("another", True, None, None, "")])
def test_a_gate_that_returns_something_else_is_named(returned: Any) -> None:
    policy = Policy([Returning(returned)])
    with pytest.raises(ValueError, match=r"gate Returning returned .*a Ruling of returning"):
        evaluate(policy, findings(Regression(), policy))


def test_a_ruling_is_json_for_every_type_of_number() -> None:
    ruling = Ruling("own", np.bool_(True), np.int64(3), np.float32(0.5), "Fine.")  # pyright: ignore[reportArgumentType]
    assert json.loads(json.dumps(asdict(ruling))) == {
        "rule": "own",
        "passed": True,
        "value": 3.0,
        "threshold": 0.5,
        "text": "Fine.",
    }
    with pytest.raises(ValueError, match="value of the rule own is nan; it must be finite"):
        Ruling("own", True, math.nan, None, "")


@pytest.mark.parametrize("use", [default_policy, Policy([Better()]).require_fits])
def test_the_class_of_a_kind_is_refused_as_a_kind(use: Any) -> None:
    with pytest.raises(
        ComparisonError, match=r"Binary.* is not a kind of prediction; pass one, as Regression\(\)"
    ):
        use(Binary)


def test_a_comparison_with_another_confidence_is_not_evaluated() -> None:
    policy = Policy([Better()], alpha=0.1)
    with pytest.raises(ValueError, match=r"alpha 0\.05, the policy has 0\.1"):
        evaluate(policy, findings(Regression(), policy))


def test_a_policy_does_not_change() -> None:
    policy = Policy([Better()])
    assert policy.gates == (Better(),)
    with pytest.raises(FrozenInstanceError):
        policy.alpha = 0.1  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(policy, alpha=0.1).gates == policy.gates
    hash(policy)


class Thawed(Gate):
    """A gate that can change."""

    rule = "thawed"

    def evaluate(self, findings: Findings) -> Ruling:
        return Ruling(self.rule, True, None, None, findings.comparison.production_name)


@dataclass(frozen=True)
class Unsealable(EnoughRows):
    """A gate with a number that is not JSON."""

    rule: str = "unsealable"
    bound: complex = 1j


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates": []}, "gates is .*pass a list of gates"),
        ({"gates": Better()}, "gates is .*pass a list of gates"),
        ({"gates": [Better]}, "which is not a gate"),
        ({"gates": [Better(), Better("brier")]}, "rule better_than_production; give one of them another"),
        ({"gates": [Within("r2", least=0), Within("r2", most=1)]}, "rule r2_within"),
        ({"gates": [Better(rule="not a name")]}, "rule of the gate Better is 'not a name'"),
        ({"gates": [Thawed()]}, "gate Thawed must be a frozen dataclass"),
        ({"gates": [Unsealable(3)]}, "gate Unsealable .*cannot be sealed.*complex"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be between 0.0005 and 0.4"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"resamples": 99}, "resamples is 99"),
        ({"resamples": 1000.0}, "resamples is 1000.0; it must be a whole number"),
        ({"resamples": True}, "resamples is True; it must be a number"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**{"gates": [Better()], **options})


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ([Better(), Calibrated(0.1)], "gate Calibrated"),
        ([Better(row_metric("rmse", by_row=absolute))], "gate Better .*has the name rmse.*rename it"),
        ([Better(COST), Within(row_metric("cost", by_row=max), most=1)], "gate Within .*has the name cost"),
        (
            [NoSliceWorse(1), NoSliceWorse(1, metric=COST, rule="no_slice_dearer")],
            "need slices by absolute_error and by cost",
        ),
    ],
)
def test_gates_that_do_not_fit_a_kind_or_each_other_are_named(gates: list[Gate], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(gates).require_fits(Regression())


def test_a_bias_has_a_bound_in_the_unit_of_the_outcome() -> None:
    Policy([Unbiased(most=250.0)]).require_fits(Regression())


@pytest.mark.parametrize(("staging_ms", "production_ms"), [(0, 1), (math.nan, 1), (1, 0), (-1, None)])
def test_an_invalid_latency_is_refused(staging_ms: float, production_ms: float | None) -> None:
    with pytest.raises(ValueError, match="must be a time above 0"):
        Latencies(staging_ms, production_ms)
