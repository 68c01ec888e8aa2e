"""Converts model inputs and outputs to rows of the request log and back. request_log.py stores them in files.

The log has one row for each row of a request: time of the request, its id, index of the row in it, version
that predicted, trace, duration, and then `input.<column>` and `output.<column>`. An array without a name is
`input` or `output`, and an array with several values for each row is `output.0`, `output.1`, and so on.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

INPUT, OUTPUT = "input", "output"

# Key for the redacted columns, in the metadata of a file and in the attributes of a frame.
REDACTED = "ledgerline.redacted"


def fixed_schema() -> "pa.Schema":
    """Return the schema of the columns that do not depend on the model."""
    import pyarrow as pa

    return pa.schema(
        {
            "at": pa.timestamp("us", tz="UTC"),
            "request_id": pa.string(),
            "row": pa.int32(),
            "version": pa.int64(),
            "trace_id": pa.string(),
            "seconds": pa.float64(),
        }
    )


def to_table(
    fixed: "Mapping[str, Sequence[Any] | NDArray[Any]]",
    inputs: "Mapping[str, NDArray[Any]]",
    outputs: "Mapping[str, NDArray[Any]]",
    redacted: Collection[str] = (),
) -> "pa.Table":
    """Return rows of the log.

    Args:
        fixed: Columns of `fixed_schema`; `at` in microseconds since the epoch.
        inputs: Inputs of the model, one array for each column; a column without a name is "".
        outputs: Predictions, in the same form.
        redacted: Names of inputs or outputs whose values are left out. The names are recorded.

    Raises:
        pyarrow.ArrowException: Arrays differ in length, or contain values that Parquet cannot store.
    """
    import pyarrow as pa

    columns = {field.name: pa.array(fixed[field.name], field.type) for field in fixed_schema()}
    left_out = []
    for prefix, arrays in ((INPUT, inputs), (OUTPUT, outputs)):
        for source, name, values in _flat(arrays):
            full = f"{prefix}.{name}" if name else prefix
            columns[full] = pa.array(values, from_pandas=True)
            if {source, name} & set(redacted):
                columns[full] = pa.nulls(len(values), columns[full].type)
                left_out.append(full)
    return pa.table(columns).replace_schema_metadata({REDACTED: json.dumps(left_out)})


def left_out_of(table: "pa.Table") -> list[str]:
    """Return the names of the columns whose values `to_table` left out."""
    metadata = table.schema.metadata or {}
    return json.loads(metadata.get(REDACTED.encode(), b"[]"))


def input_columns(frame: "pd.DataFrame") -> list[str]:
    """Return the names of the input columns, with their prefix."""
    return _with_prefix(frame, INPUT)


def redacted_columns(frame: "pd.DataFrame") -> list[str]:
    """Return the names of the columns that are redacted in some rows, with their prefix."""
    return list(frame.attrs.get(REDACTED, []))


def inputs_of(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the inputs by column; missing values are NaN, as models expect."""
    import pandas as pd

    columns = {}
    for full in input_columns(frame):
        values = frame[full]
        # Parquet returns missing texts as None, which an encoder would treat as a further category.
        filled = values.where(values.notna(), float("nan")) if values.dtype == object else values
        columns[full.removeprefix(INPUT).removeprefix(".")] = filled
    return pd.DataFrame(columns, index=frame.index)


def outputs_of(frame: "pd.DataFrame") -> "dict[str, NDArray[Any]]":
    """Return the predictions as arrays by column, without columns that are empty in all these rows."""
    columns = {
        full.removeprefix(OUTPUT).removeprefix("."): frame[full].to_numpy()
        for full in _with_prefix(frame, OUTPUT)
        if frame[full].notna().any()
    }
    return _gathered(columns)


def as_logged(outputs: "Mapping[str, NDArray[Any]]") -> "dict[str, NDArray[Any]]":
    """Return predictions in the form in which `outputs_of` returns them for logged rows."""
    return _gathered({name: values for _, name, values in _flat(outputs)})


def _flat(arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[tuple[str, str, NDArray[Any]]]":
    """Yield (name of the array, name of the column, values) for each column of each array."""
    for name, values in arrays.items():
        if values.ndim == 1:
            yield name, name, values
            continue
        prefix = f"{name}." if name else ""
        for number, part in enumerate(values.reshape(len(values), -1).T):
            yield name, f"{prefix}{number}", part


def _gathered(columns: "Mapping[str, NDArray[Any]]") -> "dict[str, NDArray[Any]]":
    """Join columns to arrays: `x.0`, `x.1` and so on become one array `x`."""
    import numpy as np

    bases = [name.rpartition(".")[0] for name in columns if name.rpartition(".")[2].isdecimal()]
    gathered = dict(columns)
    for base in dict.fromkeys(bases):
        names = [f"{base}.{number}" if base else str(number) for number in range(bases.count(base))]
        if base not in gathered and all(name in gathered for name in names):
            gathered[base] = np.stack([gathered.pop(name) for name in names], axis=1)
    return gathered


def _with_prefix(frame: "pd.DataFrame", prefix: str) -> list[str]:
    return [str(name) for name in frame if name == prefix or str(name).startswith(f"{prefix}.")]
