"""Checks outcomes that are truth values or classes; numbers are checked in samples.py."""

from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.samples import ComparisonError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ledgerline.evaluation.samples import Column


def truths(values: "Column") -> "NDArray[np.bool_]":
    """Return outcomes that are true or false, 1 or 0.

    Raises:
        ComparisonError: There are no outcomes, or an outcome is missing or has another value.
    """
    import pandas as pd

    outcome = _known(pd.Series(values))
    if isinstance(outcome.dtype, pd.CategoricalDtype):
        outcome = outcome.astype(object)
    known = outcome.isin([False, True])
    if not known.all():
        row = int(known.to_numpy().argmin())
        (value,) = outcome.iloc[[row]].tolist()
        raise ComparisonError(
            f"Some outcomes are neither true nor false, the first in row {row:,}: {value!r:.80}; "
            "pass whether it happened."
        )
    return outcome.to_numpy(dtype=bool)


def class_numbers(values: "Column", classes: tuple[str | int, ...]) -> "NDArray[np.intp]":
    """Return the number of the class of each outcome.

    Raises:
        ComparisonError: There are no outcomes, or an outcome is missing or not one of the classes.
    """
    import pandas as pd

    outcome = _known(pd.Series(values)).astype(object)
    numbers = pd.Index(classes, dtype=object).get_indexer(pd.Index(outcome, dtype=object))
    if (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise ComparisonError(
            f"{int((numbers < 0).sum()):,} of {len(numbers):,} outcomes are not in the classes "
            f"{', '.join(map(repr, classes))}; the first is {outcome.iloc[row]!r:.80} in row {row:,}."
        )
    return numbers


def require_classes(classes: Any) -> tuple[str | int, ...]:
    """Return the classes as a tuple.

    Raises:
        ValueError: There are fewer than two labels, a label occurs twice, or a label is neither a text nor a
            whole number.
    """
    if isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise ValueError(f'classes is {classes!r}; pass several labels, as ("a", "b").')
    labels = tuple(classes)
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise ValueError(f"classes has {label!r}; each must be a text or a whole number.")
    if len({str(label) for label in labels}) < len(labels):
        raise ValueError(f"classes has a label twice: {', '.join(map(repr, labels))}.")
    if len(labels) < 2:
        raise ValueError(f"classes is {labels}; pass at least two labels.")
    return labels


def _known(outcome: "pd.Series") -> "pd.Series":
    if outcome.empty:
        raise ComparisonError("There are no rows; compare on a holdout that has some.")
    missing = outcome.isna()
    if missing.any():
        raise ComparisonError(
            f"{int(missing.sum()):,} of {len(outcome):,} outcomes are missing, the first in row "
            f"{int(missing.to_numpy().argmax()):,}; leave out these rows."
        )
    return outcome
