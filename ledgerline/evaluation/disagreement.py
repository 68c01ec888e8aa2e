"""How far two answers to the same rows are apart. Who asked, and what follows from it: not here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Answers = Mapping[str, NDArray[Any]]

# The same model gives other last digits for the same row among other rows, or on another processor.
RELATIVE_TOLERANCE = 1e-6
# And near 0 nothing is left of a relative one.
ABSOLUTE_TOLERANCE = 1e-12

_NUMBERS = "iuf"


class NotComparableError(Exception):
    """Two answers have other columns or shapes, or one has numbers where the other has none."""


@dataclass(frozen=True)
class Disagreement:
    """How far two answers to the same rows are apart.

    Attributes:
        rows: How many rows there are.
        decided_differently: Rows that are decided otherwise: another class is the most likely one, another
            label or whole number, or a number that differs by more than rounding does.
        answered_differently: Rows of which anything differs by more than rounding does.
        mean_difference: Mean absolute difference of the numbers of both; None: there are none.
        largest_difference: The largest one; None: there are none.
    """

    rows: int
    decided_differently: int
    answered_differently: int
    mean_difference: float | None
    largest_difference: float | None

    @property
    def share(self) -> float | None:
        """The share of rows that are decided differently; None of no rows."""
        return self.decided_differently / self.rows if self.rows else None


def disagreement(one: "Answers", other: "Answers") -> Disagreement:
    """Compare two answers to the same rows: an array for each column, whose first axis is the row.

    An array of two or more numbers for each row holds scores of classes, of which the highest decides.

    Raises:
        NotComparableError: They have other columns, shapes or kinds of values.
    """
    import numpy as np

    if one.keys() != other.keys():
        raise NotComparableError(
            f"One answer has the columns {_listed(one)}, the other one {_listed(other)}."
        )
    if not one:
        raise NotComparableError("The answers have no columns.")
    rows = len(next(iter(one.values())))
    decided, answered = np.zeros(rows, bool), np.zeros(rows, bool)
    differences: list[NDArray[np.float64]] = []
    for name in one:
        ours, theirs = np.asarray(one[name]), np.asarray(other[name])
        _require_alike(name, ours, theirs, rows)
        if ours.dtype.kind in _NUMBERS and theirs.dtype.kind in _NUMBERS:
            apart, difference = _apart(ours, theirs)
            # A tie that rounding breaks the other way is no other decision.
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
            f"The shape of {column} is {ours.shape} in one answer, {theirs.shape} in the other."
        )
    if ours.ndim == 0 or len(ours) != rows:
        raise NotComparableError(f"The shape of {column} is {ours.shape}, of {rows} rows.")
    # Objects may be anything: what they are shows when they are compared.
    kinds = {ours.dtype.kind, theirs.dtype.kind} - {"O"}
    if len(kinds) > 1 and not kinds <= set(_NUMBERS) and not kinds <= set("US"):
        raise NotComparableError(
            f"In one answer {column} holds {ours.dtype}, in the other one {theirs.dtype}."
        )


def _apart(ours: "NDArray[Any]", theirs: "NDArray[Any]") -> "tuple[NDArray[np.bool_], NDArray[np.float64]]":
    """Which rows differ by more than rounding does, and all differences that are numbers."""
    import numpy as np

    whole = ours.dtype.kind != "f" and theirs.dtype.kind != "f"
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(a - b)
        tolerance = np.maximum(RELATIVE_TOLERANCE * np.maximum(np.abs(a), np.abs(b)), ABSOLUTE_TOLERANCE)
        # As doubles two large whole numbers may be the same; two infinities are.
        differs = ours != theirs if whole else (difference > tolerance) | ((a != b) & np.isinf(tolerance))
    differs |= np.isnan(a) != np.isnan(b)
    return _by_row(differs, len(a)), difference[np.isfinite(difference)].ravel()


def _unequal(ours: "NDArray[Any]", theirs: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Which values are not the same; two missing ones are."""
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
