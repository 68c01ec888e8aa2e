"""The constant prediction of each kind, which is the simplest baseline."""

from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.kinds import Multiclass, Quantiles
from ledgerline.evaluation.prediction_kind import PredictionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray


def constant(kind: PredictionKind, outcome: "NDArray[Any]", rows: int) -> "NDArray[Any]":
    """Return one prediction for all rows: the mean, the shares of classes, or the quantiles of outcomes.

    Args:
        kind: Kind of prediction.
        outcome: Outcomes that the kind has checked.
        rows: Number of rows to predict.

    Returns:
        An array of shape (rows,), or (rows, classes) for Multiclass and (rows, levels) for Quantiles.
    """
    import numpy as np

    if isinstance(kind, Multiclass):
        counts = np.bincount(outcome, minlength=len(kind.classes))
        return np.tile(counts / counts.sum(), (rows, 1))
    if isinstance(kind, Quantiles):
        return np.tile(np.quantile(outcome, kind.levels), (rows, 1))
    return np.full(rows, float(outcome.mean()))
