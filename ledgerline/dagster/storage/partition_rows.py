"""Splits the rows of a table into partitions, by the column that a table asset declares."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
from pyarrow import compute

from ledgerline.dagster.failures import PermanentFailure, listed

# Dagster's own metadata key.
PARTITION_COLUMN = "partition_expr"


def arrange(
    name: str, table: pa.Table, column: object, partition_keys: Sequence[str]
) -> tuple[pa.Table, list[int]]:
    """Sort the rows by partition, in the order of the partitions.

    Args:
        name: Name of the table, for the error.
        table: Rows of these partitions only.
        column: Column with the partition key; for several dimensions also a mapping with a column for each.
        partition_keys: Partition keys of the step.

    Returns:
        Rows, and the number of rows of each partition.

    Raises:
        PermanentFailure: A partition has no rows, a row belongs to no partition, or the column is not
            declared, missing, or of a type that cannot be a key.
    """
    # pyarrow creates its compute functions at import, so type checkers do not know them.
    index_in = compute.index_in  # pyright: ignore[reportAttributeAccessIssue]
    keys = pa.array([str(key) for key in partition_keys], pa.large_string())
    partition = index_in(_keys_of_rows(name, table, column), value_set=keys).fill_null(-1).to_numpy()
    lengths = np.bincount(partition[partition >= 0], minlength=len(keys)).tolist()
    empty = [key for key, length in zip(partition_keys, lengths, strict=True) if not length]
    if empty:
        raise PermanentFailure(
            f"{name} has no rows for partition {listed(empty)}.",
            "An empty partition is not stored as if it were complete. Check the source, or leave the "
            "partition out.",
        )
    strays = table.num_rows - sum(lengths)
    if strays:
        raise PermanentFailure(
            f"{strays} rows of {name} belong to none of the partitions {listed(partition_keys)}.",
            f"Correct the values of the column {column!r}.",
        )
    if (partition[1:] < partition[:-1]).any():
        table = table.take(pa.array(np.argsort(partition, kind="stable")))
    return table, lengths


def _keys_of_rows(name: str, table: pa.Table, column: object) -> pa.ChunkedArray:
    """Return the partition key of each row."""
    if isinstance(column, str):
        return _texts(name, table, column)
    if isinstance(column, Mapping) and column and all(isinstance(part, str) for part in column.values()):
        # Dagster writes a key of several dimensions in the order of their names.
        dimensions = cast("list[tuple[str, str]]", sorted(column.items()))
        join = compute.binary_join_element_wise  # pyright: ignore[reportAttributeAccessIssue]
        texts = [_texts(name, table, part) for _, part in dimensions]
        return join(*texts, pa.scalar("|", pa.large_string()))
    problem = (
        "does not say" if column is None else f"says with {column!r}, which is not the name of a column,"
    )
    raise PermanentFailure(
        f"{name} has partitions, and {problem} which column holds their keys.",
        f'Add it to the metadata of the asset: {{"{PARTITION_COLUMN}": "date"}}.',
    )


def _texts(name: str, table: pa.Table, column: str) -> pa.ChunkedArray:
    if column not in table.column_names:
        raise PermanentFailure(
            f"The rows of {name} have no column {column!r}, which must contain the partition key.",
            f"Add the column, or name another one ({PARTITION_COLUMN} in the metadata of the asset).",
        )
    values = table[column]
    kind = values.type.value_type if isinstance(values.type, pa.DictionaryType) else values.type
    types = pa.types
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    if not any(is_kind(kind) for is_kind in (*texts, types.is_integer, types.is_date, types.is_null)):
        raise PermanentFailure(
            f"The column {column!r} of {name} must contain the partition key and is of type {kind}.",
            "Make it text that equals the key (for a time: strftime with the format of the partitions), "
            "an integer or a date.",
        )
    return values.cast(kind).cast(pa.large_string())
