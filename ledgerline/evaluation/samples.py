"""Rows that two models are compared on, and the columns of numbers they are made of, checked."""

from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Column = NDArray[Any] | pd.Series[Any] | list[Any]
    Answer = NDArray[Any] | pd.DataFrame | pd.Series[Any] | list[Any]

# The square of a larger number times a million rows is not finite.
MAX_MAGNITUDE = 1e150


class ComparisonError(ValueError):
    """The models cannot be compared on these rows; the message says why, and what to do."""


@dataclass(frozen=True)
class Sample:
    """Rows that both models are evaluated on.

    Attributes:
        outcome: The outcome of each row, as the kind of prediction returns it.
        staging: The predictions of staging: one number or one row of numbers for each row.
        production: The same of production.
        clusters: For each row the number of its cluster, from 0 and without gaps.
    """

    outcome: "NDArray[Any]"
    staging: "NDArray[np.float64]"
    production: "NDArray[np.float64]"
    clusters: "NDArray[np.intp]"

    @property
    def cluster_count(self) -> int:
        """Count the clusters."""
        return int(self.clusters.max()) + 1


def cluster_numbers(clusters: "Column", rows: int) -> "NDArray[np.intp]":
    """Number the clusters from 0 in the order of their first rows.

    Raises:
        ComparisonError: A row has no label, or all rows have the same one.
    """
    import pandas as pd

    numbers, labels = pd.factorize(pd.Series(clusters))
    require_rows("clusters", len(numbers), rows)
    if (numbers < 0).any():
        raise ComparisonError(
            f"{int((numbers < 0).sum()):,} of {len(numbers):,} rows have no cluster; give each row a label, "
            "one of its own if it shares nothing with others."
        )
    if len(labels) < 2:
        raise ComparisonError(
            f"All {rows:,} rows are in one cluster ({labels[0]}), which says nothing of how much "
            "others would differ; compare on rows of at least two, better of twenty."
        )
    return numbers


def floats(name: str, values: "Column") -> "NDArray[np.float64]":
    """Convert a column of numbers, also Decimal, nullable or categories; NaN where one is missing.

    Raises:
        ComparisonError: It holds something other than numbers.
    """
    import numpy as np
    import pandas as pd

    column = pd.Series(values)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    _require_numbers(name, column)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def table(name: str, values: "Answer") -> "NDArray[np.float64]":
    """Convert rows of numbers, each row as wide as the others.

    Raises:
        ComparisonError: They hold something other than numbers.
    """
    import numpy as np
    import pandas as pd

    # Not of a subclass: of a masked array, what is masked would pass as a number.
    if type(values) is np.ndarray and values.dtype.kind in "fiub":
        return values.astype(np.float64, copy=False)
    frame = pd.DataFrame(values)
    if not frame.shape[1]:
        return np.empty(frame.shape)
    return np.stack([floats(name, frame.iloc[:, number]) for number in range(frame.shape[1])], axis=1)


def shape_of(name: str, values: "Answer") -> tuple[int, ...]:
    """Return the shape of an answer.

    Raises:
        ComparisonError: Its rows have several widths.
    """
    import numpy as np

    try:
        return tuple(int(length) for length in np.shape(values))
    except ValueError as error:
        raise ComparisonError(f"The rows of {name} have several widths; pass one array.") from error


def require_rows(name: str, found: int, rows: int) -> None:
    """Refuse a column that has more or fewer rows than there are outcomes."""
    if found != rows:
        raise ComparisonError(
            f"There are {rows:,} outcomes, but {name} has {found:,} values; "
            "pass the same rows, in the same order."
        )


def require_finite(name: str, values: "NDArray[np.float64]", remedy: str) -> None:
    """Refuse NaN, infinite numbers, and numbers too large to be squared; the error names the first row.

    Args:
        name: What the values are, in the plural ("probabilities of staging").
        values: One number or one row of numbers for each row.
        remedy: What to do about NaN.
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
    from pandas.api.types import is_complex_dtype, is_numeric_dtype

    if is_numeric_dtype(column) and not is_complex_dtype(column):
        return
    if column.dtype == object:
        wrong = next(
            (
                (row, value)
                for row, value in enumerate(column)
                if not isinstance(value, Real | Decimal)
                and not (pd.api.types.is_scalar(value) and pd.isna(value))
            ),
            None,
        )
        if wrong is None:
            return
        row, value = wrong
        raise ComparisonError(
            f"{name} holds something other than numbers, the first in row {row:,}: {value!r:.80}."
        )
    raise ComparisonError(f"{name} holds {column.dtype}, not numbers; convert it.")
