"""The constant prediction of each kind: the simplest baseline that there is."""

from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.kinds import Multiclass, Quantiles
from ledgerline.evaluation.prediction_kind import PredictionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray


def constant(kind: PredictionKind, outcome: "NDArray[Any]", rows: int) -> "NDArray[Any]":
    """Return one prediction for all rows, made of outcomes: their mean, shares of classes, or quantiles.

    Args:
        kind: The kind of prediction.
        outcome: Outcomes that the kind has checked.
        rows: How many rows are predicted.

    Returns:
        An array of shape (rows,); (rows, classes) of a Multiclass, (rows, levels) of Quantiles.
    """
    import numpy as np

    if isinstance(kind, Multiclass):
        counts = np.bincount(outcome, minlength=len(kind.classes))
        return np.tile(counts / counts.sum(), (rows, 1))
    if isinstance(kind, Quantiles):
        return np.tile(np.quantile(outcome, kind.levels), (rows, 1))
    return np.full(rows, float(outcome.mean()))
