"""Checks predictions of models: probabilities, numbers and quantiles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledgerline.evaluation.samples import (
    ComparisonError,
    floats,
    require_finite,
    require_rows,
    shape_of,
    table,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ledgerline.evaluation.samples import Answer

# Predictions in single precision, or rounded to three digits, need not sum to exactly 1.
MAX_SUM_ERROR = 2e-3

_TRUE_FIRST = (["True", "False"], ["1", "0"])


def probabilities(name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
    """Return the probability of each row; if there are two columns, the second is used.

    Raises:
        ComparisonError: The shape is wrong, or a value is not a probability.
    """
    shape = shape_of(name, answer)
    if shape[1:] not in {(), (1,), (2,)}:
        raise ComparisonError(
            f"{name} has shape {shape}; pass one probability for each row, or the two columns of "
            "predict_proba."
        )
    values = floats(name, answer) if len(shape) == 1 else table(name, _true_last(answer))  # pyright: ignore[reportArgumentType]
    require_rows(name, len(values), rows)
    _require_probabilities(name, values)
    if shape[1:] == (2,):
        _require_sums(name, values)
    return values if values.ndim == 1 else values[:, -1]


def class_probabilities(
    name: str, answer: "Answer", classes: Sequence[str | int], rows: int
) -> "NDArray[np.float64]":
    """Return the probability of each class, a column for each.

    Raises:
        ComparisonError: The shape is wrong, a value is not a probability, or a row does not sum to 1.
    """
    values = _columns(name, answer, classes, rows, "class")
    _require_probabilities(name, values)
    _require_sums(name, values)
    return values


def numbers(name: str, answer: "Answer", rows: int) -> "NDArray[np.float64]":
    """Return the predicted number of each row.

    Raises:
        ComparisonError: The shape is wrong, or a value is not a finite number.
    """
    shape = shape_of(name, answer)
    if shape[1:] not in {(), (1,)}:
        raise ComparisonError(f"{name} has shape {shape}; pass one number for each row.")
    values = floats(name, answer) if len(shape) == 1 else table(name, answer)[:, 0]  # pyright: ignore[reportArgumentType]
    require_rows(name, len(values), rows)
    require_finite(f"predictions of {name}", values, "a model must predict every row of the holdout")
    return values


def quantiles(name: str, answer: "Answer", levels: Sequence[float], rows: int) -> "NDArray[np.float64]":
    """Return the quantile of each level, a column for each.

    Raises:
        ComparisonError: The shape is wrong, or a value is not a finite number.
    """
    values = _columns(name, answer, levels, rows, "level")
    require_finite(f"predictions of {name}", values, "a model must predict every row of the holdout")
    return values


def _true_last(answer: "Answer") -> "Answer":
    """Move the column of true behind that of false, if a data frame has these names."""
    import pandas as pd

    if isinstance(answer, pd.DataFrame) and [str(name) for name in answer.columns] in _TRUE_FIRST:
        return answer.iloc[:, ::-1]
    return answer


def _ordered(name: str, answer: "Answer", labels: Sequence[str | float]) -> "Answer":
    """Put the columns of a data frame into the order of the labels, if it has their names."""
    import pandas as pd

    if not isinstance(answer, pd.DataFrame) or isinstance(answer.columns, pd.RangeIndex):
        return answer
    named = {str(column): number for number, column in enumerate(answer.columns)}
    wanted = [str(label) for label in labels]
    if named.keys() == set(wanted):
        return answer.iloc[:, [named[label] for label in wanted]]
    if named.keys() & set(wanted):
        raise ComparisonError(
            f"{name} has the columns {', '.join(named)}; pass {', '.join(wanted)}, or none of these names "
            "for columns in this order."
        )
    return answer


def _columns(
    name: str, answer: "Answer", labels: Sequence[str | float], rows: int, what: str
) -> "NDArray[np.float64]":
    shape = shape_of(name, answer)
    if len(shape) == 1 and len(labels) == 1:
        values = floats(name, answer)[:, None]  # pyright: ignore[reportArgumentType]
    elif len(shape) != 2 or shape[1] != len(labels):
        raise ComparisonError(
            f"{name} has shape {shape}; pass {len(labels)} columns, one for each {what}: "
            f"{', '.join(map(str, labels))}."
        )
    else:
        values = table(name, _ordered(name, answer, labels))
    require_rows(name, len(values), rows)
    return values


def _require_probabilities(name: str, values: "NDArray[np.float64]") -> None:
    require_finite(f"probabilities of {name}", values, "a model must predict every row of the holdout")
    outside = (values < 0) | (values > 1)
    if outside.any():
        by_row = outside if outside.ndim == 1 else outside.any(axis=1)
        raise ComparisonError(
            f"{int(by_row.sum()):,} of {len(values):,} predictions of {name} are not probabilities, the "
            f"first is {values[outside][0]:g} in row {int(by_row.argmax()):,}; pass what predict_proba "
            "returns."
        )


def _require_sums(name: str, values: "NDArray[np.float64]") -> None:
    sums = values.sum(axis=1)
    wrong = abs(sums - 1) > MAX_SUM_ERROR
    if wrong.any():
        row = int(wrong.argmax())
        raise ComparisonError(
            f"The probabilities of {name} do not sum to 1 in {int(wrong.sum()):,} of {len(values):,} rows, "
            f"the first is row {row:,} with {sums[row]:g}; pass what predict_proba returns."
        )
