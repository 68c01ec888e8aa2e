"""Metrics of predictions, in a form that is fast to compute for many draws of the rows.

A draw never scores single rows. A mean over rows is summed by cluster once, and a draw weights these sums. A
metric that is not a mean over rows has a scorer, which prepares the rows once (scorers.py).
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
    """Predictions of one model, with the outcomes.

    Attributes:
        outcome: Outcome of each row, as the kind of prediction returns it.
        prediction: One number or one row of numbers for each row, as the kind of prediction returns it.
        clusters: Number of the cluster of each row.
    """

    outcome: "NDArray[Any]"
    prediction: "NDArray[np.float64]"
    clusters: "NDArray[np.intp]"
    cluster_count: int

    def sums(self, values: "NDArray[Any]") -> "NDArray[np.float64]":
        """Sum the values of each cluster; each column of a table is summed separately."""
        import numpy as np

        if values.ndim == 1:
            return sums_by_cluster(self.clusters, values, self.cluster_count)
        columns = [self.sums(values[:, number]) for number in range(values.shape[1])]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Draw:
    """Draws of whole clusters, one in each row of an array.

    Attributes:
        counts: Number of times that each cluster was drawn, in its column; in single precision where that is
            exact.
        exact: The same counts in double precision.
        rows: Number of rows of each draw.
    """

    counts: "NDArray[np.floating]"
    exact: "NDArray[np.float64]"
    rows: "NDArray[np.float64]"

    @classmethod
    def of(cls, counts: "NDArray[np.floating]", rows_by_cluster: "NDArray[np.float64]") -> "Draw":
        """Count the rows of each draw."""
        exact = counts.astype("float64", copy=False)
        return cls(counts, exact, exact @ rows_by_cluster)


class Scorer(Protocol):
    """Prepared rows of one model, which can be scored for many draws."""

    def scores(self, draw: Draw) -> "Mapping[str, NDArray[np.float64]]":
        """Return each metric by name, one number for each draw; NaN where it is not defined."""
        ...


ScorerFactory = Callable[[Rows], Scorer]


@dataclass(frozen=True)
class Metric:
    """A metric of predictions.

    Attributes:
        name: Name of the metric: letters, digits and underscores.
        lower_is_better: Direction of the metric.
        by_row: Function from outcomes and predictions to the value of each row, if the metric is the mean of
            these values.
        scorer: Factory of a scorer that returns the metric under its name, if it is not a mean over rows.
            Metrics that have the same factory are computed together.
        target: Best value, if that is neither the lowest nor the highest; `lower_is_better` is then unused.
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
                f"by_row or scorer of the metric {self.name} is {self.by_row or self.scorer!r}; pass a "
                "function."
            )
        if not isinstance(self.lower_is_better, bool):
            raise ValueError(
                f"lower_is_better of the metric {self.name} is {self.lower_is_better!r}; pass True or False."
            )

    @property
    def is_defined_for_slices(self) -> bool:
        """True if slices can be compared by the metric: it is a mean over rows, so any slice has a value."""
        return self.by_row is not None and self.target is None

    def gain(self, staging: "Number", production: "Number") -> "Number":
        """Return the amount by which staging is better, for either direction; negative if it is worse."""
        if self.target is not None:
            return cast("Number", abs(production - self.target) - abs(staging - self.target))
        return production - staging if self.lower_is_better else staging - production

    def as_dict(self) -> dict[str, Any]:
        """Return name, direction and function as JSON values."""
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
    """Make a custom metric that is a mean over rows.

    Args:
        name: Name of the metric: letters, digits and underscores.
        by_row: Function from the outcomes and predictions of all rows to the value of each row. It gets the
            arrays that `outcomes` and `predictions` of the kind of prediction return.
        lower_is_better: Direction of the metric.

    Raises:
        ValueError: The name is not valid.

    Example:
        >>> row_metric("cost", by_row=lambda outcome, prediction: 9.0 * (prediction < outcome)).name
        'cost'
    """
    return Metric(name, lower_is_better, by_row=by_row)


def row_values(metric: Metric, rows: Rows) -> "NDArray[np.float64]":
    """Compute a metric of each row.

    Raises:
        ComparisonError: The function of the metric returns another shape, or values that are not finite.
    """
    import numpy as np

    if metric.by_row is None:
        raise ComparisonError(f"{metric.name} is not a mean over rows.")
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
    """Sum the values of each cluster, for `count` clusters."""
    import numpy as np

    return np.bincount(clusters, weights=values, minlength=count).astype(np.float64, copy=False)


def _unwritable(values: "NDArray[Any]") -> "NDArray[Any]":
    """Return a read-only view of an array."""
    view = values.view()
    view.flags.writeable = False
    return view
