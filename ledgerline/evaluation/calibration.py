"""Curves of what was predicted beside what happened."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CalibrationPoint:
    """Rows with about the same prediction.

    Attributes:
        predicted: Their mean prediction: a probability, or a number in the unit of the outcome. For
            quantiles, the level.
        observed: What happened: the share of positives, or the mean outcome. For quantiles, the share of
            outcomes at or below the quantile.
        rows: How many they are.
        of_class: The class whose probability it is, where there are several.
    """

    predicted: float
    observed: float
    rows: int
    of_class: str | None = None


def calibration_bins(prediction: "NDArray[np.float64]") -> "NDArray[np.intp]":
    """Number the bins; they hold about equally many rows, and never split equal predictions."""
    import numpy as np
    import pandas as pd

    bins = np.asarray(pd.qcut(prediction, CALIBRATION_BINS, labels=False, duplicates="drop"), dtype=float)
    if np.isnan(bins).all():  # one prediction for all rows
        return np.zeros(len(prediction), dtype=np.intp)
    return bins.astype(np.intp)


def binned_curve(
    outcome: "NDArray[Any]", prediction: "NDArray[np.float64]", of_class: str | None = None
) -> tuple[CalibrationPoint, ...]:
    """Compare mean prediction and mean outcome in bins, from low to high predictions."""
    bins = calibration_bins(prediction)
    points = []
    for number in range(int(bins.max()) + 1):
        rows = bins == number
        if rows.any():
            points.append(
                CalibrationPoint(
                    float(prediction[rows].mean()), float(outcome[rows].mean()), int(rows.sum()), of_class
                )
            )
    return tuple(points)
