"""Tests the kinds of prediction: which outcomes and predictions they accept, refuse and describe."""

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ledgerline.evaluation.kinds import Binary, Multiclass, Quantiles, Regression
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError

CLASSES = Multiclass(("a", "b", "c"))
LEVELS = Quantiles((0.1, 0.5, 0.9))
KINDS = (Binary(), CLASSES, Regression(), LEVELS)
NUMBERS = [3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True],
        [1, 0, 1],
        [1.0, 0.0, 1.0],
        [Decimal(1), Decimal(0), Decimal(1)],
        np.array([1, 0, 1], dtype=np.int8),
        pd.array([True, False, True], dtype="boolean"),
        pd.array([1, 0, 1], dtype="Int64"),
        pd.Series([True, False, True], index=[7, 7, 9]),
        pd.Series([1, 0, 1], dtype="category"),
        pd.Series([True, False, True], dtype="bool[pyarrow]"),
        pd.Series([True, False, True], dtype=object),
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', values)}",
)
def test_truth_may_be_of_any_type(values: Any) -> None:
    found = Binary().outcomes(values)
    assert found.dtype == np.bool_
    assert found.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "values",
    [
        NUMBERS,
        [3, 1, 2],
        [Decimal(3), Decimal(1), Decimal(2)],
        [Decimal(3), 1, 2.0],
        np.array(NUMBERS, dtype=np.float16),
        np.array(NUMBERS, dtype=np.uint8),
        pd.array(NUMBERS, dtype="Float32"),
        pd.array([3, 1, 2], dtype="Int16"),
        pd.Series(NUMBERS, index=["x", "y", "x"]),
        pd.Series(NUMBERS, dtype="category"),
        pd.Series(NUMBERS, dtype="double[pyarrow]"),
        pd.Series([Decimal(3), Decimal(1), Decimal(2)], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        pd.Series(NUMBERS, dtype=object),
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', values)}",
)
def test_numbers_may_be_of_any_type(values: Any) -> None:
    for found in (Regression().outcomes(values), Regression().predictions("staging", values, 3)):
        assert found.dtype == np.float64
        assert found.tolist() == NUMBERS
    scores = Regression().score(values, NUMBERS)
    assert (scores["absolute_error"], scores["r2"]) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (CLASSES, ["c", "a", "b"], [2, 0, 1]),
        (CLASSES, pd.Series(["c", "a", "b"], dtype="string"), [2, 0, 1]),
        (CLASSES, pd.Series(["c", "a", "b"], dtype="category", index=[3, 3, 3]), [2, 0, 1]),
        (CLASSES, np.array(["c", "a", "b"]), [2, 0, 1]),
        (Multiclass((3, 7)), [7, 3, 7], [1, 0, 1]),
        (Multiclass((3, 7)), pd.array([7, 3, 7], dtype="Int64"), [1, 0, 1]),
        (Multiclass((3, 7)), np.array([7.0, 3.0]), [1, 0]),
        (Multiclass((3, 7)), [Decimal(7), Decimal(3)], [1, 0]),
    ],
)
def test_classes_are_found_in_arrays_of_every_type(
    kind: Multiclass, values: Any, expected: list[int]
) -> None:
    assert kind.outcomes(values).tolist() == expected


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        *((kind, [], "There are no rows") for kind in KINDS),
        (Binary(), [True, None], "1 of 2 outcomes are missing, the first in row 1"),
        (Binary(), ["yes", "no"], "neither true nor false, the first in row 0: 'yes'"),
        (Binary(), [0, 1, 2], "neither true nor false, the first in row 2: 2"),
        (CLASSES, ["a", None, "b"], "1 of 3 outcomes are missing, the first in row 1"),
        (CLASSES, ["a", "d", "e"], "2 of 3 outcomes are not in the classes 'a', 'b', 'c'.* 'd' in row 1"),
        (Multiclass((1, 2)), ["1", "2"], "not in the classes 1, 2; the first is '1' in row 0"),
        (Multiclass(("1", "2")), [1, 2], "not in the classes '1', '2'; the first is 1 in row 0"),
        (Regression(), [1.0, math.nan], "1 of 2 outcomes are NaN, the first in row 1; leave out"),
        (Regression(), [1.0, None], "1 of 2 outcomes are NaN, the first in row 1"),
        (Regression(), pd.array([1, None], dtype="Int64"), "1 of 2 outcomes are NaN, the first in row 1"),
        (Regression(), [1.0, -math.inf], "1 of 2 outcomes are infinite, the first in row 1"),
        (Regression(), [1.0, 1e200], r"1 of 2 outcomes are beyond 1e\+150, the first in row 1; use another"),
        (Regression(), ["1", "2"], "The outcome holds something other than numbers, the first in row 0: '1'"),
        (Regression(), pd.Series(pd.to_timedelta([1, 2])), "The outcome holds timedelta64"),
        (Regression(), [1 + 2j, 1], "The outcome holds complex128"),
        (LEVELS, [1.0, math.nan], "1 of 2 outcomes are NaN"),
    ],
)
def test_an_outcome_that_is_not_of_the_kind_is_named(kind: PredictionKind, values: Any, message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        kind.outcomes(values)


HALVES = [[0.5, 0.5], [0.25, 0.75]]
THIRDS = [[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]]


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        (Binary(), [0.5, 0.75], [0.5, 0.75]),
        (Binary(), HALVES, [0.5, 0.75]),
        (Binary(), np.array(HALVES, dtype=np.float32), [0.5, 0.75]),
        (Binary(), pd.DataFrame(HALVES), [0.5, 0.75]),
        (Binary(), [[0.5], [0.75]], [0.5, 0.75]),
        (Binary(), pd.DataFrame({"late": [0.75, 0.25], "early": [0.25, 0.75]}), [0.25, 0.75]),
        (Binary(), pd.DataFrame({True: [0.25, 0.75], False: [0.75, 0.25]}), [0.25, 0.75]),
        (Binary(), pd.DataFrame({"1": [0.25], "0": [0.75]}), [0.25]),
        (Multiclass((1, 2, 3)), pd.DataFrame(THIRDS), THIRDS),
        (Binary(), pd.Series([0.5, 0.75], dtype="Float64"), [0.5, 0.75]),
        (CLASSES, THIRDS, THIRDS),
        (CLASSES, pd.DataFrame(THIRDS, columns=["x", "y", "z"]), THIRDS),
        (CLASSES, pd.DataFrame(THIRDS, columns=list("abc"))[["c", "a", "b"]], THIRDS),
        (Multiclass((1, 2, 3)), pd.DataFrame(THIRDS, columns=[1, 2, 3])[[3, 1, 2]], THIRDS),
        (Regression(), [1, 2], [1.0, 2.0]),
        (Regression(), [[1.5], [2.5]], [1.5, 2.5]),
        (Regression(), pd.DataFrame({"kwh": [Decimal(1), Decimal(2)]}), [1.0, 2.0]),
        (LEVELS, [[1, 2, 3], [3, 2, 1]], [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]),
        (LEVELS, pd.DataFrame({0.9: [3], 0.1: [1], 0.5: [2]}), [[1.0, 2.0, 3.0]]),
        (LEVELS, pd.DataFrame({"0.9": [3], "0.1": [1], "0.5": [2]}), [[1.0, 2.0, 3.0]]),
        (Quantiles((0.5,)), [1.0, 2.0], [[1.0], [2.0]]),
        (Quantiles((0.5,)), [[1.0], [2.0]], [[1.0], [2.0]]),
    ],
)
def test_predictions_may_have_the_types_that_models_return(
    kind: PredictionKind, answer: Any, expected: Any
) -> None:
    found = kind.predictions("staging", answer, len(expected))
    assert found.dtype == np.float64
    assert found.tolist() == expected
    assert kind.predictions("staging", found, len(expected)).tolist() == expected


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [
        (Binary(), [0.5], "There are 2 outcomes, but staging has 1 values"),
        (Binary(), [[0.5, 0.5]], "There are 2 outcomes, but staging has 1 values"),
        (Binary(), THIRDS, r"staging has shape \(2, 3\)"),
        (
            Binary(),
            [0.5, math.nan],
            "1 of 2 probabilities of staging are NaN, the first in row 1; a model",
        ),
        (
            Binary(),
            [0.5, 1.5],
            "1 of 2 predictions of staging are not probabilities, the first is 1.5 in row 1",
        ),
        (Binary(), [[0.5, 0.5], [0.5, 0.6]], "do not sum to 1 in 1 of 2 rows, the first is row 1 with 1.1"),
        (Binary(), [[0.5, 0.5], [0.5]], "The rows of staging have different lengths"),
        (Binary(), ["a", "b"], "staging holds something other than numbers, the first in row 0: 'a'"),
        (CLASSES, HALVES, r"staging has shape \(2, 2\); pass 3 columns, one for each class: a, b, c"),
        (CLASSES, [0.5, 0.5], r"staging has shape \(2,\); pass 3 columns"),
        (
            CLASSES,
            pd.DataFrame(THIRDS, columns=list("bad")),
            "staging has the columns b, a, d; pass a, b, c, or",
        ),
        (LEVELS, pd.DataFrame(THIRDS, columns=[0.9, 0.5, 0.2]), "columns 0.9, 0.5, 0.2; pass 0.1, 0.5, 0.9"),
        (Regression(), np.ma.masked_values([1.0, 9.0], 9.0), "1 of 2 predictions of staging are NaN.* row 1"),
        (CLASSES, np.ma.masked_values(np.array(THIRDS), 0.125), "1 of 2 probabilities of staging are NaN"),
        (CLASSES, THIRDS[:1], "There are 2 outcomes, but staging has 1 values"),
        (
            CLASSES,
            [THIRDS[0], [0.5, 0.5, 0.5]],
            "sum to 1 in 1 of 2 rows, the first is row 1 with 1.5",
        ),
        (CLASSES, [THIRDS[0], [-0.5, 1.0, 0.5]], "not probabilities, the first is -0.5 in row 1"),
        (CLASSES, [THIRDS[0], [math.nan, 0.5, 0.5]], "1 of 2 probabilities of staging are NaN.* row 1"),
        (Regression(), [1.0, math.nan], "1 of 2 predictions of staging are NaN, the first in row 1"),
        (Regression(), [math.inf, 1.0], "1 of 2 predictions of staging are infinite, the first in row 0"),
        (Regression(), HALVES, r"staging has shape \(2, 2\); pass one number for each row"),
        (Regression(), [1.0, "x"], "staging holds something other than numbers, the first in row 1: 'x'"),
        (LEVELS, HALVES, r"pass 3 columns, one for each level: 0.1, 0.5, 0.9"),
        (LEVELS, [[1, 2, 3], [1, math.nan, 3]], "1 of 2 predictions of staging are NaN, the first in row 1"),
        (LEVELS, [[1, 2, 3], [1, math.inf, 3]], "1 of 2 predictions of staging are infinite.* row 1"),
    ],
)
def test_a_prediction_that_is_not_of_the_kind_is_named(
    kind: PredictionKind, answer: Any, message: str
) -> None:
    with pytest.raises(ComparisonError, match=message):
        kind.predictions("staging", answer, 2)


def test_probabilities_in_single_precision_or_rounded_sum_to_about_one() -> None:
    exact = np.random.default_rng(1).dirichlet(np.ones(3), 500)
    for rough in (exact.astype(np.float32), np.round(exact, 3)):
        assert CLASSES.predictions("staging", rough, 500) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multiclass(()), "classes is .*at least two"),
        (lambda: Multiclass(("a",)), "classes is .*at least two"),
        (lambda: Multiclass("abc"), "classes is 'abc'; pass several labels"),  # pyright: ignore[reportArgumentType]
        (lambda: Multiclass(3), "classes is 3"),  # pyright: ignore[reportArgumentType]
        (lambda: Multiclass(("a", "b", "a")), "classes has a label twice"),
        (lambda: Multiclass(("1", 1)), "classes has a label twice"),
        (lambda: Multiclass(("a", 1.5)), "classes has 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: Multiclass((False, True)), "classes has False"),
        (lambda: Quantiles(()), "levels is empty"),
        (lambda: Quantiles(0.5), "levels is 0.5; pass numbers"),  # pyright: ignore[reportArgumentType]
        (lambda: Quantiles((0.0, 0.5)), "levels is .*between 0 and 1"),
        (lambda: Quantiles((0.5, math.nan)), "levels is .*between 0 and 1"),
        (lambda: Quantiles((10, 90)), "levels is .*between 0 and 1"),
        (lambda: Quantiles((0.5, 0.1)), "levels is .*in ascending order"),
        (lambda: Quantiles((0.5, 0.5)), "levels is .*each once"),
        (lambda: Quantiles(("low", "high")), "levels is .*pass numbers"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_kind_that_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_kinds_may_be_declared_with_lists_and_are_compared_by_content() -> None:
    assert Multiclass(["a", "b"]) == Multiclass(("a", "b"))  # pyright: ignore[reportArgumentType]
    assert hash(Quantiles([0.1, 0.9])) == hash(Quantiles((0.1, 0.9)))  # pyright: ignore[reportArgumentType]
    assert Quantiles((0.1, 0.9)).metrics == Quantiles((0.1, 0.9)).metrics


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_has_a_description(kind: PredictionKind) -> None:
    assert kind.method == ("predict_proba" if kind.model_type == "classifier" else "predict")
    assert kind.metric(kind.primary_metric).lower_is_better
    assert kind.metric(kind.slice_metric).is_defined_for_slices
    if kind.calibration_metric is not None:
        assert kind.metric(kind.calibration_metric)
    document = json.loads(json.dumps(kind.as_dict()))
    assert document["name"] == kind.name
    with pytest.raises(ComparisonError, match=f"gini; for {kind.name} choose from"):
        kind.metric("gini")


def test_facts_describe_outcomes_in_values_of_json() -> None:
    facts = [
        Binary().facts(Binary().outcomes([1, 0, 1])),
        CLASSES.facts(CLASSES.outcomes(["b", "b", "a"])),
        Regression().facts(np.array([1.0, 3.0])),
        LEVELS.facts(np.array([5.0])),
    ]
    assert json.loads(json.dumps(facts)) == [
        {"positives": 2},
        {"rows_by_class": {"a": 1, "b": 2, "c": 0}},
        {"mean": 2.0, "standard_deviation": 1.0},
        {"mean": 5.0, "standard_deviation": 0.0},
    ]


def test_scores_have_a_column_for_each_number_that_is_predicted() -> None:
    assert Binary().score_columns(np.array([0.5])).to_dict("list") == {"probability": [0.5]}
    assert CLASSES.score_columns(np.array(THIRDS[:1])).to_dict("list") == {
        "a": [0.5],
        "b": [0.25],
        "c": [0.25],
    }
    assert Regression().score_columns(np.array([4.0])).to_dict("list") == {"value": [4.0]}
    assert LEVELS.score_columns(np.array([[1.0, 2.0, 3.0]])).columns.tolist() == ["q0.1", "q0.5", "q0.9"]


def test_one_row_has_the_metrics_that_one_row_can_have() -> None:
    assert set(Binary().score([1], [0.75])) == {"pr_auc", "log_loss", "brier", "calibration_error"}
    assert set(CLASSES.score(["a"], THIRDS[:1])) == {
        "log_loss",
        "brier",
        "accuracy",
        "macro_f1",
        "calibration_error",
    }
    assert set(Regression().score([1], [2])) == {"absolute_error", "rmse", "bias"}
    assert LEVELS.score([2], [[1, 2, 3]])["interval_width"] == 2


def test_predictions_that_are_surely_wrong_have_a_finite_loss() -> None:
    assert Binary().score([True, False], [0.0, 0.0])["log_loss"] == pytest.approx(18.02, abs=0.01)
    assert math.isfinite(CLASSES.score(["a", "b"], [[0, 0, 1.0], [0, 0, 1.0]])["log_loss"])
