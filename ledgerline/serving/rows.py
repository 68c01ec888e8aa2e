"""Rows that go into a model and come out of it: named arrays of one length. What a model takes: schema.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The name of an array that is all there is: a model that takes or gives one tensor.
UNNAMED = ""


@dataclass(frozen=True)
class Rows:
    """Rows, by column.

    Attributes:
        columns: An array for each column; its first axis is the row. A tensor without a name is `UNNAMED`.
        count: How many rows there are.
    """

    columns: "Mapping[str, NDArray[Any]]"
    count: int

    def part(self, start: int, stop: int) -> "Rows":
        """Some of the rows."""
        if start == 0 and stop == self.count:
            return self
        return Rows({name: values[start:stop] for name, values in self.columns.items()}, stop - start)


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after another; all have the same columns."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    return Rows(
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        sum(part.count for part in parts),
    )


def answered(output: Any, count: int) -> Rows:
    """What a model said about some rows.

    Raises:
        ValueError: It said something about another number of rows, or nothing that is by row.
    """
    import numpy as np
    import pandas as pd

    columns: dict[str, np.ndarray[Any, Any]]
    if isinstance(output, pd.Series) and output.name is not None:
        output = output.to_frame()
    if isinstance(output, pd.DataFrame):
        columns = {str(name): output[name].to_numpy() for name in output}
    elif isinstance(output, Mapping):
        columns = {str(name): np.asarray(values) for name, values in output.items()}
    else:
        columns = {UNNAMED: np.asarray(output)}
    for name, values in columns.items():
        if values.ndim == 0 or len(values) != count:
            said = "one value" if values.ndim == 0 else f"{len(values)} values"
            raise ValueError(f"The model says {said}{f' of {name}' if name else ''} about {count} rows.")
    return Rows(columns, count)
