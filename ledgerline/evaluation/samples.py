"""The rows that two models are judged on, checked: with which they can be told apart at all."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Column = NDArray[Any] | pd.Series[Any] | list[Any]


class ComparisonError(ValueError):
    """The models cannot be compared on these rows; the message says why, and what to do."""


@dataclass(frozen=True)
class Sample:
    """What both models are judged on.

    Attributes:
        outcome: For each row, whether it happened.
        staging: For each row, the probability that staging gave it.
        production: The same of production.
        clusters: For each row the number of its cluster, from 0 and without gaps.
    """

    outcome: "NDArray[np.bool_]"
    staging: "NDArray[np.float64]"
    production: "NDArray[np.float64]"
    clusters: "NDArray[np.intp]"

    @property
    def cluster_count(self) -> int:
        """How many clusters there are."""
        return int(self.clusters.max()) + 1


def checked_sample(outcome: "Column", staging: "Column", production: "Column", clusters: "Column") -> Sample:
    """The rows, if two models can be compared on them.

    Raises:
        ComparisonError: They cannot tell; the message says why, and what to do.
    """
    import pandas as pd

    happened = _outcome(outcome)
    said = {"staging": _floats("staging", staging), "production": _floats("production", production)}
    numbers, labels = pd.factorize(pd.Series(clusters))
    for name, values in {**said, "clusters": numbers}.items():
        if len(values) != len(happened):
            raise ComparisonError(
                f"There are {len(happened):,} outcomes, but {name} has {len(values):,} values; "
                "pass the same rows, in the same order."
            )
    for name, values in said.items():
        _require_probabilities(name, values)
    if (numbers < 0).any():
        raise ComparisonError(
            f"{int((numbers < 0).sum()):,} of {len(numbers):,} rows have no cluster; give each row a label, "
            "one of its own if it shares nothing with others."
        )
    if len(labels) < 2:
        raise ComparisonError(
            f"All {len(happened):,} rows are in one cluster ({labels[0]}), which says nothing of how much "
            "others would differ; compare on rows of at least two, better of twenty."
        )
    return Sample(happened, said["staging"], said["production"], numbers)


def _floats(name: str, values: "Column") -> "NDArray[np.float64]":
    import numpy as np
    import pandas as pd

    if np.ndim(values) != 1:
        raise ComparisonError(
            f"{name} has shape {np.shape(values)}; pass one probability for each row, "
            "the second column of predict_proba."
        )
    return pd.Series(values).to_numpy(dtype=np.float64, na_value=np.nan)


def _outcome(outcome: "Column") -> "NDArray[np.bool_]":
    import numpy as np
    import pandas as pd

    values = pd.Series(outcome)
    if values.empty:
        raise ComparisonError("There are no rows; compare on a holdout that has some.")
    if values.isna().any():
        raise ComparisonError(
            f"{int(values.isna().sum()):,} of {len(values):,} outcomes are missing; leave out these rows."
        )
    if not values.isin([False, True]).all():
        raise ComparisonError("Some outcomes are neither true nor false; pass whether it happened.")
    happened = values.to_numpy(dtype=np.bool_)
    positives = int(happened.sum())
    if positives in {0, len(happened)}:
        what = "none" if positives == 0 else "all"
        raise ComparisonError(
            f"Of {len(happened):,} rows {what} are positive, so that nothing can be told apart; compare on a "
            "holdout with both outcomes."
        )
    return happened


def _require_probabilities(name: str, values: "NDArray[np.float64]") -> None:
    import numpy as np

    missing = np.isnan(values)
    if missing.any():
        raise ComparisonError(
            f"{int(missing.sum()):,} of {len(values):,} probabilities of {name} are NaN, the first in row "
            f"{int(missing.argmax()):,}; a model must answer every row of the holdout."
        )
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise ComparisonError(
            f"{int(outside.sum()):,} of {len(values):,} answers of {name} are no probabilities, the first is "
            f"{values[int(outside.argmax())]:g}; pass the second column of predict_proba."
        )
