"""The inputs and outputs of models: named arrays of one length. schema.py says which inputs a model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# The name of the array of a model that takes or returns one array instead of columns.
UNNAMED = ""


@dataclass(frozen=True)
class Rows:
    """Rows of inputs or outputs: an array for each column, whose first axis is the row.

    `UNNAMED` is the only array of a tensor.
    """

    columns: Mapping[str, NDArray[Any]]
    count: int

    def part(self, start: int, stop: int) -> "Rows":
        """Return the rows from `start` to before `stop`."""
        if start == 0 and stop == self.count:
            return self
        return Rows({name: values[start:stop] for name, values in self.columns.items()}, stop - start)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return rows of the same columns, one part after another."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        sum(part.count for part in parts),
    )


def output_rows(output: Any, count: int) -> Rows:
    """Return a series, a frame, a mapping of columns, or anything that numpy takes for an array, as rows.

    Raises:
        ValueError: The output has another number of rows.
    """
    columns: dict[str, NDArray[Any]]
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
            size = "one value" if values.ndim == 0 else f"{len(values)} values"
            raise ValueError(f"The model returns {size}{f' of {name}' if name else ''} for {count} rows.")
    return Rows(columns, count)
