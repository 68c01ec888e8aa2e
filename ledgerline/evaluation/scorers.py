"""Scorers of metrics that are not means over rows: calibration, moments, coverage, confusion."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.calibration import calibration_bins
from ledgerline.evaluation.metrics import Draw, Rows, sums_by_cluster

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A smaller spread, relative to the largest outcome, is due to rounding: the outcomes are all equal.
NEGLIGIBLE_SPREAD = 1e-12


class CalibrationGaps:
    """Differences between probabilities and outcomes, in bins of about equally many rows.

    It returns `calibration_error`, the expected calibration error: the mean, over rows, of the absolute
    difference between the mean probability and the share of positives in their bin (Naeini, Cooper and
    Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015), 0 to 1. For
    several classes it is the mean of those of all classes, each against the rest (class-wise: Kull et al.,
    Beyond temperature scaling, NeurIPS 2019). Every draw uses the bins of all rows.
    """

    def __init__(self, rows: Rows) -> None:
        import numpy as np

        if rows.prediction.ndim == 1:
            gaps = [_gaps(rows.prediction, rows.outcome, rows)]
        else:
            classes = enumerate(rows.prediction.T)
            gaps = [_gaps(probability, rows.outcome == number, rows) for number, probability in classes]
        self._classes = len(gaps)
        self._gaps = np.concatenate(gaps, axis=1)

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return the error for each draw."""
        error = abs(draw.exact @ self._gaps).sum(axis=1) / draw.rows
        return {"calibration_error": error / self._classes}


class Confusion:
    """Rows by actual class and most probable class (the first of equally probable ones).

    It returns `macro_f1`, the unweighted mean, over the classes that occur or are predicted, of the harmonic
    mean of precision and recall: 0 to 1.
    """

    def __init__(self, rows: Rows) -> None:
        import numpy as np

        classes = np.arange(rows.prediction.shape[1])
        actual = rows.outcome[:, None] == classes
        predicted = rows.prediction.argmax(axis=1)[:, None] == classes
        self._right = rows.sums(actual & predicted)
        self._counted = rows.sums(actual.astype(float) + predicted)

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return the mean for each draw."""
        import numpy as np

        counted = draw.exact @ self._counted
        each = np.divide(
            2 * (draw.exact @ self._right), counted, out=np.zeros_like(counted), where=counted > 0
        )
        return {"macro_f1": each.sum(axis=1) / (counted > 0).sum(axis=1)}


class Moments:
    """Sums of errors and outcomes.

    It returns `rmse`, the root of the mean squared error, and `bias`, the absolute value of the mean error,
    both in the unit of the outcome; and `r2`, the share of the outcome's variance that is explained (1 is
    best, 0 is the value of predicting the mean, and it can be negative). `r2` is not defined where all
    outcomes are the same.
    """

    def __init__(self, rows: Rows) -> None:
        import numpy as np

        errors = rows.prediction - rows.outcome
        self._errors, self._squares = rows.sums(errors), rows.sums(errors**2)
        # Deviations from one of the outcomes are used, so that large numbers that differ little keep their
        # digits, and equal ones are exactly 0. That outcome is the median, because deviations from an outlier
        # would lose digits.
        middle = np.partition(rows.outcome, len(rows.outcome) // 2)[len(rows.outcome) // 2]
        outcomes = rows.outcome - middle
        self._counts = rows.sums(np.ones(len(outcomes)))
        self._means = rows.sums(outcomes) / self._counts
        self._within = rows.sums((outcomes - self._means[rows.clusters]) ** 2)
        self._negligible = (NEGLIGIBLE_SPREAD * float(np.abs(outcomes).max())) ** 2

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return all three for each draw."""
        import numpy as np

        squares = draw.exact @ self._squares
        counts = draw.exact * self._counts
        mean = (counts @ self._means) / draw.rows
        between = (counts * (self._means - mean[:, None]) ** 2).sum(axis=1)
        spread = draw.exact @ self._within + between
        unexplained = np.divide(
            squares, spread, out=np.full_like(spread, np.nan), where=spread > self._negligible * draw.rows
        )
        return {
            "rmse": np.sqrt(squares / draw.rows),
            "bias": np.abs(draw.exact @ self._errors) / draw.rows,
            "r2": 1 - unexplained,
        }


@dataclass(frozen=True)
class CoverageFactory:
    """Creates `Coverage` scorers for these levels."""

    levels: tuple[float, ...]

    def __call__(self, rows: Rows) -> "Coverage":
        """Prepare the rows of a model."""
        return Coverage(self.levels, rows)


class Coverage:
    """Differences between each level and the share of outcomes at or below its predicted quantile.

    It returns `coverage_error`, the mean over levels of the absolute difference between the share of
    outcomes at or below the quantile and its level: 0 to 1 (Gneiting, Balabdaoui and Raftery, Probabilistic
    forecasts, calibration and sharpness, Journal of the Royal Statistical Society B 69, 2007).
    """

    def __init__(self, levels: tuple[float, ...], rows: Rows) -> None:
        self._levels = levels
        self._below = rows.sums(rows.outcome[:, None] <= rows.prediction)

    def scores(self, draw: Draw) -> "dict[str, NDArray[np.float64]]":
        """Return the error for each draw."""
        import numpy as np

        shares = (draw.exact @ self._below) / draw.rows[:, None]
        return {"coverage_error": np.abs(shares - np.array(self._levels)).mean(axis=1)}


def _gaps(probability: "NDArray[np.float64]", happened: "NDArray[Any]", rows: Rows) -> "NDArray[np.float64]":
    """Sum, for each cluster and bin, the difference of probability and outcome."""
    bins = calibration_bins(probability)
    width = int(bins.max()) + 1
    count = rows.cluster_count * width
    return sums_by_cluster(rows.clusters * width + bins, probability - happened, count).reshape(-1, width)
