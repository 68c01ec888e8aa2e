"""Calibration curves: predictions beside outcomes."""

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
        predicted: Mean prediction: a probability, or a number in the unit of the outcome; the level for
            quantiles.
        observed: Share of positives, or mean outcome; for quantiles, the share of outcomes at or below the
            quantile.
        rows: Number of rows.
        of_class: Class of the probability, if there are several classes.
    """

    predicted: float
    observed: float
    rows: int
    of_class: str | None = None


def calibration_bins(prediction: "NDArray[np.float64]") -> "NDArray[np.intp]":
    """Return the bin of each row. Bins hold about equally many rows, and never split equal predictions."""
    import numpy as np
    import pandas as pd

    bins = np.asarray(pd.qcut(prediction, CALIBRATION_BINS, labels=False, duplicates="drop"), dtype=float)
    if np.isnan(bins).all():  # one prediction for all rows
        return np.zeros(len(prediction), dtype=np.intp)
    return bins.astype(np.intp)


def binned_curve(
    outcome: "NDArray[Any]", prediction: "NDArray[np.float64]", of_class: str | None = None
) -> tuple[CalibrationPoint, ...]:
    """Compute mean prediction and mean outcome of each bin, from low to high predictions."""
    bins = calibration_bins(prediction)
    parts = (bins == number for number in range(int(bins.max()) + 1))
    return tuple(
        CalibrationPoint(
            float(prediction[rows].mean()), float(outcome[rows].mean()), int(rows.sum()), of_class
        )
        for rows in parts
        if rows.any()
    )
