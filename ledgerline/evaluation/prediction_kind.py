"""The interface of a kind of prediction. The kinds are in kinds.py."""

from abc import ABC, abstractmethod
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ledgerline.evaluation.calibration import CalibrationPoint, binned_curve
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.resampling import scores_of
from ledgerline.evaluation.samples import ComparisonError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ledgerline.evaluation.samples import Answer, Column


def require_kind(kind: Any) -> None:
    """Refuse something other than a kind of prediction, such as its class.

    Raises:
        ComparisonError: The value is not a kind of prediction.
    """
    if not isinstance(kind, PredictionKind):
        raise ComparisonError(f"{kind!r:.80} is not a kind of prediction; pass one, as Regression().")


class PredictionKind(ABC):
    """A kind of prediction: how the predictions of a model are checked, scored and drawn.

    `outcomes` and `predictions` check columns and return arrays; all other methods except `score` take these
    arrays.

    Attributes:
        name: Name of the kind, in one word.
        method: Method of a model that returns such predictions: "predict_proba" or "predict".
        model_type: MLflow's name of the type of such a model: "classifier" or "regressor".
        primary_metric: Metric by which models are compared by default.
        slice_metric: Metric by which slices are compared by default; it is a mean over rows.
        calibration_metric: Metric that the gate Calibrated evaluates; None if the kind has no calibration
            metric without a unit.
    """

    name: ClassVar[str]
    method: ClassVar[str]
    model_type: ClassVar[str]
    primary_metric: ClassVar[str]
    slice_metric: ClassVar[str]
    calibration_metric: ClassVar[str | None]

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """List all metrics."""

    @abstractmethod
    def outcomes(self, values: "Column") -> "NDArray[Any]":
        """Check the outcomes and return them as an array.

        Raises:
            ComparisonError: There are no outcomes, or an outcome is not of this kind.
        """

    @abstractmethod
    def predictions(self, name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
        """Check the predictions of a model and return them as an array.

        Args:
            name: Name of the model in errors.
            answer: Value that the model's method, or a service, returned.
            rows: Expected number of rows.

        Raises:
            ComparisonError: The shape is wrong, or a value is not a prediction of this kind.
        """

    def calibration(
        self, outcome: "NDArray[Any]", prediction: "NDArray[np.float64]"
    ) -> tuple[CalibrationPoint, ...]:
        """Compute mean prediction and mean outcome, in bins of about equally many rows, from low to high."""
        return binned_curve(outcome, prediction)

    @abstractmethod
    def facts(self, outcome: "NDArray[Any]") -> dict[str, Any]:
        """Describe the outcomes in a few JSON values."""

    @property
    @abstractmethod
    def score_names(self) -> tuple[str, ...]:
        """Name the columns of predictions, whose drift is monitored."""

    def score_columns(self, prediction: "NDArray[np.float64]") -> "pd.DataFrame":
        """Return predictions as a table with a column for each name."""
        import pandas as pd

        columns = prediction.reshape(len(prediction), len(self.score_names))
        return pd.DataFrame(columns, columns=list(self.score_names))

    def at_large(
        self, outcome: "NDArray[Any]", prediction: "NDArray[np.float64]"
    ) -> dict[str, tuple[float, float]]:
        """Return mean prediction and mean outcome over all rows, by column of predictions."""
        return {self.score_names[0]: (float(prediction.mean()), float(outcome.mean()))}

    def untelling(self, outcome: "NDArray[Any]") -> str | None:
        """Return the reason why these outcomes cannot distinguish models; None if they can."""
        return None

    def metric(self, name: str) -> Metric:
        """Return the metric with a name.

        Raises:
            ComparisonError: The kind has no such metric.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise ComparisonError(
            f"Unknown metrics: {name}; for {self.name} choose from "
            f"{', '.join(metric.name for metric in self.metrics)}, or pass a metric of your own."
        )

    def score(self, outcome: "Column", answer: "Answer") -> dict[str, float]:
        """Check outcomes and predictions, and compute all metrics that are defined.

        Raises:
            ComparisonError: Outcomes or predictions are not of this kind.
        """
        happened = self.outcomes(outcome)
        return scores_of(happened, self.predictions("the model", answer, len(happened)), self.metrics)

    def as_dict(self) -> dict[str, Any]:
        """Return name and fields as JSON values."""
        values = asdict(self) if is_dataclass(self) else {}
        return {"name": self.name} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
        }
