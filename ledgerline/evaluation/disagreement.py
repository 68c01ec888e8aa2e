"""Measures how far two models' predictions for the same rows differ. It neither predicts nor decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Answers = Mapping[str, NDArray[Any]]

# The last digits of a prediction depend on the batch that the row is in, and on the processor.
RELATIVE_TOLERANCE = 1e-6
# Near 0 a relative tolerance is smaller than the rounding error.
ABSOLUTE_TOLERANCE = 1e-12

_NUMBERS = "iuf"


class NotComparableError(LedgerlineError):
    """Two predictions cannot be compared: their columns, shapes or kinds of values differ."""


@dataclass(frozen=True)
class Disagreement:
    """The difference of two predictions for the same rows.

    Attributes:
        rows: Number of rows.
        decided_differently: Number of rows with a different decision: a different most likely class, label or
            whole number, or a number that differs by more than rounding.
        answered_differently: Number of rows in which any value differs by more than rounding.
        mean_difference: Mean absolute difference of the numbers; None if the predictions have no numbers.
        largest_difference: Largest absolute difference; None if the predictions have no numbers.
    """

    rows: int
    decided_differently: int
    answered_differently: int
    mean_difference: float | None
    largest_difference: float | None

    @property
    def share(self) -> float | None:
        """The share of rows with a different decision; None without rows."""
        return self.decided_differently / self.rows if self.rows else None


def disagreement(one: "Answers", other: "Answers") -> Disagreement:
    """Compare two predictions for the same rows: an array for each column, whose first axis is the row.

    If an array has two or more numbers for each row, they are scores of classes, and the highest decides.

    Raises:
        NotComparableError: Their columns, shapes or kinds of values differ.
    """
    import numpy as np

    if one.keys() != other.keys():
        raise NotComparableError(
            f"One prediction has the columns {_listed(one)}, and the other has {_listed(other)}."
        )
    if not one:
        raise NotComparableError("The predictions have no columns.")
    rows = len(next(iter(one.values())))
    decided, answered = np.zeros(rows, bool), np.zeros(rows, bool)
    differences: list[NDArray[np.float64]] = []
    for name in one:
        ours, theirs = np.asarray(one[name]), np.asarray(other[name])
        _require_alike(name, ours, theirs, rows)
        if ours.dtype.kind in _NUMBERS and theirs.dtype.kind in _NUMBERS:
            apart, difference = _apart(ours, theirs)
            # If the scores differ only by rounding, the decision counts as the same.
            decided |= apart & (ours.argmax(1) != theirs.argmax(1)) if _scores(ours) else apart
            differences.append(difference)
        else:
            apart = _by_row(_unequal(ours, theirs), rows)
            decided |= apart
        answered |= apart
    known = np.concatenate(differences) if differences else np.empty(0)
    return Disagreement(
        rows=rows,
        decided_differently=int(decided.sum()),
        answered_differently=int(answered.sum()),
        mean_difference=float(known.mean()) if known.size else None,
        largest_difference=float(known.max()) if known.size else None,
    )


def _require_alike(name: str, ours: "NDArray[Any]", theirs: "NDArray[Any]", rows: int) -> None:
    column = f"column {name}" if name else "the array"
    if ours.shape != theirs.shape:
        raise NotComparableError(
            f"The shape of {column} is {ours.shape} in one prediction and {theirs.shape} in the other."
        )
    if ours.ndim == 0 or len(ours) != rows:
        raise NotComparableError(f"The shape of {column} is {ours.shape}, and there are {rows} rows.")
    # Arrays of objects can hold any type, so only the comparison itself shows whether they are comparable.
    kinds = {ours.dtype.kind, theirs.dtype.kind} - {"O"}
    if len(kinds) > 1 and not kinds <= set(_NUMBERS) and not kinds <= set("US"):
        raise NotComparableError(
            f"The type of {column} is {ours.dtype} in one prediction and {theirs.dtype} in the other."
        )


def _apart(ours: "NDArray[Any]", theirs: "NDArray[Any]") -> "tuple[NDArray[np.bool_], NDArray[np.float64]]":
    """Return a mask of the rows that differ by more than rounding, and all finite differences."""
    import numpy as np

    whole = ours.dtype.kind != "f" and theirs.dtype.kind != "f"
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(a - b)
        tolerance = np.maximum(RELATIVE_TOLERANCE * np.maximum(np.abs(a), np.abs(b)), ABSOLUTE_TOLERANCE)
        # Two different large whole numbers can be equal as doubles; two infinities are equal.
        differs = ours != theirs if whole else (difference > tolerance) | ((a != b) & np.isinf(tolerance))
    differs |= np.isnan(a) != np.isnan(b)
    return _by_row(differs, len(a)), difference[np.isfinite(difference)].ravel()


def _unequal(ours: "NDArray[Any]", theirs: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Return a mask of the values that differ; two missing values are equal."""
    import numpy as np
    import pandas as pd

    unequal = np.not_equal(ours, theirs).astype(bool)
    unequal[np.logical_and(pd.isna(ours), pd.isna(theirs))] = False
    return unequal


def _by_row(values: "NDArray[np.bool_]", rows: int) -> "NDArray[np.bool_]":
    import numpy as np

    return np.logical_or.reduce(values.reshape(rows, -1), axis=1) if rows else values.reshape(0)


def _scores(values: "NDArray[Any]") -> bool:
    return values.ndim == 2 and values.shape[1] > 1


def _listed(answers: "Answers") -> str:
    return ", ".join(name or "(unnamed)" for name in answers) or "none"
