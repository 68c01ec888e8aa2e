"""The kinds of prediction: how outcomes and predictions are checked, scored and drawn.

The comparison of two models is in comparison.py, and is the same for all kinds.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation import losses
from ledgerline.evaluation.calibration import CalibrationPoint, binned_curve
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.outcomes import class_numbers, require_classes, truths
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.predictions import class_probabilities, numbers, probabilities, quantiles
from ledgerline.evaluation.rankings import ClassRankings, Ranking
from ledgerline.evaluation.samples import ComparisonError, floats, require_finite
from ledgerline.evaluation.scorers import CalibrationGaps, Confusion, CoverageFactory, Moments

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ledgerline.evaluation.samples import Answer, Column


class _OfClasses(PredictionKind):
    """Base class of the kinds whose predictions are probabilities of classes."""

    method = "predict_proba"
    model_type = "classifier"
    primary_metric = "log_loss"
    slice_metric = "brier"
    calibration_metric = "calibration_error"


class _OfNumbers(PredictionKind):
    """Base class of the kinds whose outcomes are numbers."""

    method = "predict"
    model_type = "regressor"

    def outcomes(self, values: "Column") -> "NDArray[np.float64]":
        """Check that each outcome is a finite number."""
        outcome = floats("The outcome", values)
        if not len(outcome):
            raise ComparisonError("There are no rows; compare on a holdout that has some.")
        require_finite("outcomes", outcome, "leave out rows whose outcome is missing")
        return outcome

    def facts(self, outcome: "NDArray[Any]") -> dict[str, Any]:
        """Return mean and standard deviation, in the unit of the outcome."""
        return {"mean": float(outcome.mean()), "standard_deviation": float(outcome.std())}


@dataclass(frozen=True)
class Binary(_OfClasses):
    """A binary outcome, predicted by its probability.

    Outcomes are true or false (or 1 and 0). Predictions are the probability of true: one number for each row,
    or the two columns of `predict_proba`, of which the second is used.

    The metrics are `roc_auc` and `pr_auc` (area under the ROC curve; average precision), `log_loss` (nats),
    `brier` (mean squared difference of probability and outcome, 0 to 1: Brier, Verification of forecasts
    expressed in terms of probability, Monthly Weather Review 78, 1950), `calibration_error` (0 to 1). Slices
    are compared by the Brier score, to which one row adds at most 1, whereas a single row can dominate the
    log loss of a hundred rows.
    """

    name = "binary"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """List all metrics."""
        return _BINARY

    def outcomes(self, values: "Column") -> "NDArray[np.bool_]":
        """Check that each outcome is true or false, and return truth values."""
        return truths(values)

    def predictions(self, name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
        """Check that each prediction is a probability, and return that of true."""
        return probabilities(name, answer, rows)

    def facts(self, outcome: "NDArray[Any]") -> dict[str, Any]:
        """Count the positives."""
        return {"positives": int(outcome.sum())}

    @property
    def score_names(self) -> tuple[str, ...]:
        """Name the probability."""
        return ("probability",)

    def untelling(self, outcome: "NDArray[Any]") -> str | None:
        """Return a reason if all outcomes are the same, and None otherwise."""
        positives = int(outcome.sum())
        if positives not in {0, len(outcome)}:
            return None
        value = "negative" if positives == 0 else "positive"
        return (
            f"All {len(outcome):,} rows are {value}, so models cannot be told apart; compare on a holdout "
            "with both outcomes."
        )


@dataclass(frozen=True)
class Multiclass(_OfClasses):
    """One of several classes, predicted by the probability of each.

    Outcomes are labels of the classes, and are returned as the numbers of the classes, from 0. Predictions
    have a column for each class in the order of `classes` (a data frame with the labels as column names may
    have another order), and each row sums to 1.

    The metrics are `log_loss` (nats), `brier` (sum over classes of the squared difference of probability and
    outcome, 0 to 2, as Brier defined it), `accuracy` (share of rows whose most probable class is right),
    `macro_f1`, `roc_auc` (macro, one against the rest), `calibration_error` (class-wise). Slices are compared
    by the Brier score, to which one row adds at most 2.

    Attributes:
        classes: Labels: at least two different texts or whole numbers.
    """

    classes: tuple[str | int, ...]

    name = "multiclass"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", require_classes(self.classes))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """List all metrics."""
        return _MULTICLASS

    def outcomes(self, values: "Column") -> "NDArray[np.intp]":
        """Check that each outcome is one of the classes, and return their numbers."""
        return class_numbers(values, self.classes)

    def predictions(self, name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
        """Check that each prediction is a probability for each class."""
        return class_probabilities(name, answer, self.classes, rows)

    def calibration(
        self, outcome: "NDArray[Any]", prediction: "NDArray[np.float64]"
    ) -> tuple[CalibrationPoint, ...]:
        """Compute the mean probability of each class and the share of rows that have it, in bins."""
        return tuple(
            point
            for number, label in enumerate(self.classes)
            for point in binned_curve(outcome == number, prediction[:, number], str(label))
        )

    def facts(self, outcome: "NDArray[Any]") -> dict[str, Any]:
        """Count the rows of each class."""
        counts = {str(label): int((outcome == number).sum()) for number, label in enumerate(self.classes)}
        return {"rows_by_class": counts}

    @property
    def score_names(self) -> tuple[str, ...]:
        """Name the probability of each class by its label."""
        return tuple(map(str, self.classes))

    def at_large(
        self, outcome: "NDArray[Any]", prediction: "NDArray[np.float64]"
    ) -> dict[str, tuple[float, float]]:
        """Return, by score name, the mean probability of the class and the share of rows that have it."""
        return {
            name: (float(prediction[:, number].mean()), float((outcome == number).mean()))
            for number, name in enumerate(self.score_names)
        }

    def untelling(self, outcome: "NDArray[Any]") -> str | None:
        """Return a reason if all outcomes are the same class, and None otherwise."""
        if len(outcome) and (outcome != outcome[0]).any():
            return None
        return (
            f"All {len(outcome):,} rows have the class {self.classes[int(outcome[0])]!r}, so models "
            "cannot be told apart; compare on a holdout with several classes."
        )


@dataclass(frozen=True)
class Regression(_OfNumbers):
    """A number, predicted by one number.

    The metrics in the unit of the outcome are `absolute_error` (mean), `rmse` (root of the mean squared
    error) and `bias` (absolute value of the mean error: whether predictions are too high or too low on
    average). `r2` (share of the outcome's variance that is explained) has no unit.
    """

    name = "regression"
    primary_metric = "absolute_error"
    slice_metric = "absolute_error"
    calibration_metric = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """List all metrics."""
        return _REGRESSION

    def predictions(self, name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
        """Check that each prediction is a finite number."""
        return numbers(name, answer, rows)

    @property
    def score_names(self) -> tuple[str, ...]:
        """Name the predicted value."""
        return ("value",)


@dataclass(frozen=True)
class Quantiles(_OfNumbers):
    """A number, predicted by quantiles of its distribution.

    Predictions have a column for each level in ascending order (a data frame with the levels as column names
    may have another order). Quantiles of a row that are not in order are allowed, and `crossing` counts them.

    The metrics are `pinball_loss` (mean over levels, in the unit of the outcome: Koenker and Bassett,
    Regression Quantiles, Econometrica 46, 1978), `coverage_error` (mean over levels of the absolute
    difference between the share of outcomes at or below the quantile and its level, 0 to 1); with two levels
    or more also, of the outermost two, `interval_coverage` (share of outcomes from the lowest to the highest
    quantile, 0 to 1; best is the difference of their levels) and `interval_width` (mean distance, in the
    unit of the outcome), and `crossing` (share of rows whose quantiles are not in order).

    Attributes:
        levels: Levels of the quantiles, between 0 and 1, in ascending order.
    """

    levels: tuple[float, ...]

    name = "quantiles"
    primary_metric = "pinball_loss"
    slice_metric = "pinball_loss"
    calibration_metric = "coverage_error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _require_levels(self.levels))

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """List all metrics."""
        pinball = Metric("pinball_loss", True, by_row=losses.Pinball(self.levels))
        coverage = Metric("coverage_error", True, scorer=CoverageFactory(self.levels))
        if len(self.levels) < 2:
            return pinball, coverage
        nominal = self.levels[-1] - self.levels[0]
        return (
            pinball,
            coverage,
            Metric("interval_coverage", False, by_row=losses.inside, target=nominal),
            Metric("interval_width", True, by_row=losses.width),
            Metric("crossing", True, by_row=losses.crossing),
        )

    def predictions(self, name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
        """Check that each prediction is a finite number for each level."""
        return quantiles(name, answer, self.levels, rows)

    def calibration(
        self, outcome: "NDArray[Any]", prediction: "NDArray[np.float64]"
    ) -> tuple[CalibrationPoint, ...]:
        """Compute, for each level, the share of outcomes at or below its quantile."""
        return tuple(
            CalibrationPoint(level, float((outcome <= prediction[:, number]).mean()), len(outcome))
            for number, level in enumerate(self.levels)
        )

    @property
    def score_names(self) -> tuple[str, ...]:
        """Name the quantile of each level by "q" and the level."""
        return tuple(f"q{level}" for level in self.levels)

    def at_large(
        self, outcome: "NDArray[Any]", prediction: "NDArray[np.float64]"
    ) -> dict[str, tuple[float, float]]:
        """Return, by score name, the level and the share of outcomes at or below its predicted quantile."""
        return {
            name: (level, float((outcome <= prediction[:, number]).mean()))
            for number, (name, level) in enumerate(zip(self.score_names, self.levels, strict=True))
        }


_BINARY = (
    Metric("roc_auc", lower_is_better=False, scorer=Ranking),
    Metric("pr_auc", lower_is_better=False, scorer=Ranking),
    Metric("log_loss", lower_is_better=True, by_row=losses.log_loss),
    Metric("brier", lower_is_better=True, by_row=losses.brier),
    Metric("calibration_error", lower_is_better=True, scorer=CalibrationGaps),
)
_MULTICLASS = (
    Metric("log_loss", lower_is_better=True, by_row=losses.class_log_loss),
    Metric("brier", lower_is_better=True, by_row=losses.class_brier),
    Metric("accuracy", lower_is_better=False, by_row=losses.right),
    Metric("macro_f1", lower_is_better=False, scorer=Confusion),
    Metric("roc_auc", lower_is_better=False, scorer=ClassRankings),
    Metric("calibration_error", lower_is_better=True, scorer=CalibrationGaps),
)
_REGRESSION = (
    Metric("absolute_error", lower_is_better=True, by_row=losses.absolute_error),
    Metric("rmse", lower_is_better=True, scorer=Moments),
    Metric("bias", lower_is_better=True, scorer=Moments),
    Metric("r2", lower_is_better=False, scorer=Moments),
)


def _require_levels(levels: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(level) for level in levels)
    except (TypeError, ValueError):
        raise ValueError(f"levels is {levels!r}; pass numbers between 0 and 1, as (0.1, 0.5, 0.9).") from None
    if not numbers:
        raise ValueError("levels is empty; pass at least one number between 0 and 1, as (0.1, 0.5, 0.9).")
    if not all(0 < level < 1 for level in numbers):
        raise ValueError(f"levels is {numbers}; each must be between 0 and 1.")
    if sorted(set(numbers)) != list(numbers):
        raise ValueError(f"levels is {numbers}; pass each once, in ascending order.")
    return numbers
