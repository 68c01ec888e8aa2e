"""The rows that two models are compared on, and checks of their columns."""

from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

from ledgerline.errors import LedgerlineError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Column = NDArray[Any] | pd.Series[Any] | list[Any]
    Answer = NDArray[Any] | pd.DataFrame | pd.Series[Any] | list[Any]

# A larger number, squared and summed over a million rows, would overflow.
MAX_MAGNITUDE = 1e150


class ComparisonError(LedgerlineError):
    """The models cannot be compared on these rows; the message says why, and what to do."""


@dataclass(frozen=True)
class Sample:
    """Rows that both models are evaluated on.

    Attributes:
        outcome: Outcome of each row, as the kind of prediction returns it.
        staging: Predictions of staging: one number or one row of numbers for each row.
        clusters: Number of the cluster of each row, from 0 and without gaps.
    """

    outcome: "NDArray[Any]"
    staging: "NDArray[np.float64]"
    production: "NDArray[np.float64]"
    clusters: "NDArray[np.intp]"

    @property
    def cluster_count(self) -> int:
        """The number of clusters."""
        return int(self.clusters.max()) + 1


def cluster_numbers(clusters: "Column", rows: int) -> "NDArray[np.intp]":
    """Return the number of each row's cluster, from 0 in the order of their first rows.

    Raises:
        ComparisonError: A row has no label, or all rows have the same label.
    """
    import pandas as pd

    numbers, labels = pd.factorize(pd.Series(clusters))
    require_rows("clusters", len(numbers), rows)
    if (numbers < 0).any():
        raise ComparisonError(
            f"{int((numbers < 0).sum()):,} of {len(numbers):,} rows have no cluster; give each row a label, "
            "a unique one if it is independent of the others."
        )
    if len(labels) < 2:
        raise ComparisonError(
            f"All {rows:,} rows are in one cluster ({labels[0]}), so the spread between clusters is unknown; "
            "compare on rows of at least two clusters, better of twenty."
        )
    return numbers


def floats(name: str, values: "Column") -> "NDArray[np.float64]":
    """Convert a column of numbers, Decimals, nullable numbers or categories; missing values become NaN.

    Raises:
        ComparisonError: The column holds something other than numbers.
    """
    import pandas as pd

    column = pd.Series(values)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    _require_numbers(name, column)
    return column.to_numpy(dtype="float64", na_value=float("nan"))


def table(name: str, values: "Answer") -> "NDArray[np.float64]":
    """Convert a table of numbers.

    Raises:
        ComparisonError: The table holds something other than numbers.
    """
    import numpy as np
    import pandas as pd

    # Subclasses are excluded, because masked values of a masked array would pass as numbers.
    if type(values) is np.ndarray and values.dtype.kind in "fiub":
        return values.astype(np.float64, copy=False)
    frame = pd.DataFrame(values)
    if not frame.shape[1]:
        return np.empty(frame.shape)
    return np.stack([floats(name, frame.iloc[:, number]) for number in range(frame.shape[1])], axis=1)


def shape_of(name: str, values: "Answer") -> tuple[int, ...]:
    """Return the shape of outcomes or predictions.

    Raises:
        ComparisonError: The rows have different lengths.
    """
    import numpy as np

    try:
        return tuple(int(length) for length in np.shape(values))
    except ValueError as error:
        raise ComparisonError(f"The rows of {name} have different lengths; pass one array.") from error


def require_rows(name: str, values: int, rows: int) -> None:
    """Raise if a column does not have one value for each outcome."""
    if values != rows:
        raise ComparisonError(
            f"There are {rows:,} outcomes, but {name} has {values:,} values; "
            "pass the same rows, in the same order."
        )


def require_finite(name: str, values: "NDArray[np.float64]", remedy: str) -> None:
    """Raise for NaN, infinity, and numbers too large to be squared; the error names the first row.

    Args:
        name: Plural noun for the values ("probabilities of staging").
        values: One number or one row of numbers for each row.
        remedy: Advice about NaN, for the error.
    """
    import numpy as np

    for what, wrong, remedy_of in (
        ("NaN", np.isnan(values), remedy),
        ("infinite", np.isinf(values), "a number must be finite"),
        (
            f"beyond {MAX_MAGNITUDE:g}",
            np.abs(values) > MAX_MAGNITUDE,
            "use another unit: their squares are not finite",
        ),
    ):
        by_row = wrong if wrong.ndim == 1 else wrong.any(axis=1)
        if by_row.any():
            raise ComparisonError(
                f"{int(by_row.sum()):,} of {len(values):,} {name} are {what}, the first in row "
                f"{int(by_row.argmax()):,}; {remedy_of}."
            )


def _require_numbers(name: str, column: "pd.Series") -> None:
    import pandas as pd
    from pandas.api.types import is_complex_dtype, is_numeric_dtype, is_scalar

    if is_numeric_dtype(column) and not is_complex_dtype(column):
        return
    if column.dtype != object:
        raise ComparisonError(f"{name} holds {column.dtype}, not numbers; convert it.")
    for row, value in enumerate(column):
        if not (isinstance(value, Real | Decimal) or (is_scalar(value) and pd.isna(value))):
            raise ComparisonError(
                f"{name} holds something other than numbers, the first in row {row:,}: {value!r:.80}."
            )
