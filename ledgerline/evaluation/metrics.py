"""Measures of how good predictions are, each made so that it can be computed for many draws of the rows.

Nothing is scored row by row for each draw. A mean over rows is summed by cluster once, and a draw only weighs
these sums; what is no mean over rows has a scorer that prepares the rows once (scorers.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ledgerline.evaluation.samples import MAX_MAGNITUDE, ComparisonError, floats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    ByRow = Callable[[NDArray[Any], NDArray[np.float64]], Any]

Number = TypeVar("Number", float, "NDArray[np.float64]")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Rows:
    """Predictions of one model, and what happened.

    Attributes:
        outcome: The outcome of each row, as the kind of prediction returns it.
        prediction: One number or one row of numbers for each row, as the kind of prediction returns it.
        clusters: For each row the number of its cluster.
        cluster_count: How many clusters there are.
    """

    outcome: "NDArray[Any]"
    prediction: "NDArray[np.float64]"
    clusters: "NDArray[np.intp]"
    cluster_count: int

    def sums(self, values: "NDArray[Any]") -> "NDArray[np.float64]":
        """Add up the values of each cluster; of a table, column by column."""
        import numpy as np

        if values.ndim == 1:
            return sums_by_cluster(self.clusters, values, self.cluster_count)
        columns = [self.sums(values[:, number]) for number in range(values.shape[1])]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Draw:
    """Draws of whole clusters, one in each row of an array.

    Attributes:
        counts: How often each cluster was drawn: a whole number in its column, in single precision where that
            holds it exactly.
        exact: The same in double precision.
        rows: How many rows each draw has.
    """

    counts: "NDArray[np.floating]"
    exact: "NDArray[np.float64]"
    rows: "NDArray[np.float64]"

    @classmethod
    def of(cls, counts: "NDArray[np.floating]", rows_by_cluster: "NDArray[np.float64]") -> "Draw":
        """Count the rows of each draw."""
        import numpy as np

        exact = counts.astype(np.float64, copy=False)
        return cls(counts, exact, exact @ rows_by_cluster)


class Scorer(Protocol):
    """Rows of one model, prepared once, to be scored for many draws."""

    def scores(self, draw: Draw) -> "Mapping[str, NDArray[np.float64]]":
        """Return each metric by name, one number for each draw; NaN where it is not defined."""
        ...


ScorerFactory = Callable[[Rows], Scorer]


@dataclass(frozen=True)
class Metric:
    """A measure of how good predictions are.

    Attributes:
        name: Its name: letters, digits and underscores.
        lower_is_better: The direction.
        by_row: Of outcomes and predictions, the value of each row, where the metric is the mean of these.
        scorer: Makes a scorer that returns the metric under its name, where it is no mean over rows. Metrics
            that have the same one are computed together.
        target: The best value, where neither the lowest nor the highest is; then `lower_is_better` says
            nothing.
    """

    name: str
    lower_is_better: bool
    by_row: "ByRow | None" = None
    scorer: ScorerFactory | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"The name of a metric is {self.name!r}; it must begin with a letter, and have letters, "
                "digits and underscores only."
            )
        if (self.by_row is None) == (self.scorer is None):
            raise ValueError(f"The metric {self.name} needs either by_row or a scorer.")
        if not callable(self.by_row or self.scorer):
            raise ValueError(
                f"The metric {self.name} is made by {self.by_row or self.scorer!r}, no function."
            )
        if not isinstance(self.lower_is_better, bool):
            raise ValueError(
                f"lower_is_better of the metric {self.name} is {self.lower_is_better!r}; pass True or False."
            )

    @property
    def is_defined_for_slices(self) -> bool:
        """Say whether slices can be compared by it: it is a mean over rows, defined for any set of rows."""
        return self.by_row is not None and self.target is None

    def gain(self, staging: "Number", production: "Number") -> "Number":
        """Return how much better staging is: positive if it is, whichever way the metric points."""
        if self.target is not None:
            return cast("Number", abs(production - self.target) - abs(staging - self.target))
        return production - staging if self.lower_is_better else staging - production

    def as_dict(self) -> dict[str, Any]:
        """Return name, direction and function as values of JSON."""
        made = self.by_row or self.scorer
        module = getattr(made, "__module__", None) or type(made).__module__
        qualified = getattr(made, "__qualname__", None) or type(made).__qualname__
        return {
            "name": self.name,
            "lower_is_better": self.lower_is_better,
            "target": self.target,
            "by": f"{module}.{qualified}",
        }


def row_metric(name: str, by_row: "ByRow", lower_is_better: bool = True) -> Metric:
    """Make a metric of one's own that is a mean over rows.

    Args:
        name: Its name: letters, digits and underscores.
        by_row: Takes the outcomes and the predictions of all rows, as arrays, and returns the value of each
            row. What these arrays hold is said by `outcomes` and `predictions` of the kind of prediction.
        lower_is_better: The direction.

    Raises:
        ValueError: The name is not one.

    Example:
        >>> row_metric("cost", by_row=lambda outcome, prediction: 9.0 * (prediction < outcome)).name
        'cost'
    """
    return Metric(name, lower_is_better, by_row=by_row)


def row_values(metric: Metric, rows: Rows) -> "NDArray[np.float64]":
    """Compute a metric of each row.

    Raises:
        ComparisonError: The function of the metric returns another shape, or something that is not finite.
    """
    import numpy as np

    if metric.by_row is None:
        raise ComparisonError(f"{metric.name} is no mean over rows.")
    try:
        returned = metric.by_row(_unwritable(rows.outcome), _unwritable(rows.prediction))
    except Exception as error:
        error.add_note(f"Raised by the function of the metric {metric.name}.")
        raise
    if np.shape(returned) != (len(rows.outcome),):
        raise ComparisonError(
            f"The metric {metric.name} returned an array of shape {np.shape(returned)} for "
            f"{len(rows.outcome):,} rows; return one number for each row."
        )
    values = floats(f"The metric {metric.name}", returned)
    wrong = ~(np.abs(values) <= MAX_MAGNITUDE)  # NaN, too
    if wrong.any():
        raise ComparisonError(
            f"The metric {metric.name} is {values[int(wrong.argmax())]} for {int(wrong.sum()):,} of "
            f"{len(values):,} rows, the first is row {int(wrong.argmax()):,}; return a finite number, "
            f"of {MAX_MAGNITUDE:g} at most."
        )
    return values


def sums_by_cluster(
    clusters: "NDArray[np.intp]", values: "NDArray[Any]", count: int
) -> "NDArray[np.float64]":
    """Add up the values of each of so many clusters."""
    import numpy as np

    return np.bincount(clusters, weights=values, minlength=count).astype(np.float64, copy=False)


def _unwritable(values: "NDArray[Any]") -> "NDArray[Any]":
    """Return a view that a metric cannot change for the others."""
    view = values.view()
    view.flags.writeable = False
    return view
