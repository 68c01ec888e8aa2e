"""Data frames to and from Parquet bytes, with declared columns. Files live elsewhere."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from resources.failures import PermanentFailure

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def to_arrow(name: str, frame: "pd.DataFrame", schema: dg.TableSchema | None) -> "pa.Table":
    """Convert a frame to an Arrow table with exactly the declared columns, in their order.

    Args:
        name: The table's name, for the error.
        frame: Rows; columns that are not declared are refused.
        schema: Columns whose types are Arrow type names ("int16", "string", "double"); None infers.

    Raises:
        PermanentFailure: A column is missing, not declared, or holds values of another type.
    """
    import pyarrow as pa

    if schema is None:
        return pa.Table.from_pandas(frame, preserve_index=False)
    declared = [column.name for column in schema.columns]
    missing = [column for column in declared if column not in frame.columns]
    unknown = [column for column in frame.columns if column not in declared]
    if missing or unknown:
        raise PermanentFailure(
            f"The rows of {name} do not have the declared columns: "
            f"missing {missing or 'none'}, not declared {unknown or 'none'}.",
            "Correct the source, or the column schema of the asset.",
        )
    try:
        return pa.Table.from_pandas(frame, schema=arrow_schema(schema), preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise PermanentFailure(
            f"The rows of {name} do not have the declared types: {error}",
            "Correct the source, or the column schema of the asset.",
        ) from error


def arrow_schema(schema: dg.TableSchema) -> "pa.Schema":
    """The Arrow form of a declared schema."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(column.name, _arrow_type(column.type), nullable=column.constraints.nullable)
            for column in schema.columns
        ]
    )


def _arrow_type(name: str) -> "pa.DataType":
    import pyarrow as pa

    if name == "timestamp[us, tz=UTC]":  # Arrow has no alias for types with a parameter
        return pa.timestamp("us", tz="UTC")
    return pa.type_for_alias(name)


def to_frame(table: "pa.Table") -> "pd.DataFrame":
    """Convert to pandas; a boolean with gaps stays a boolean (pandas' nullable type)."""
    import pandas as pd
    import pyarrow as pa

    return table.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)


def split(name: str, table: "pa.Table", column: str, partition_keys: Sequence[str]) -> "dict[str, pa.Table]":
    """Cut a table into the partitions it was asked for, by the column that holds their keys.

    Raises:
        PermanentFailure: A partition has no rows, or rows belong to none of the partitions.
    """
    from pyarrow import compute

    # pyarrow makes its compute functions at import, where no type checker sees them.
    equal = compute.equal  # pyright: ignore[reportAttributeAccessIssue]
    parts = {key: table.filter(equal(table[column], key)) for key in partition_keys}
    empty = [key for key, part in parts.items() if part.num_rows == 0]
    if empty:
        raise PermanentFailure(
            f"{name} has no rows for partition {_listed(empty)}.",
            "An empty day is not stored as if it were complete: look at the source, or leave the "
            "partition out.",
        )
    strays = table.num_rows - sum(part.num_rows for part in parts.values())
    if strays:
        raise PermanentFailure(
            f"{strays} rows of {name} belong to none of the partitions {_listed(partition_keys)}.",
            f"Correct the values of the column {column!r}.",
        )
    return parts


def serialise(table: "pa.Table") -> bytes:
    """Parquet bytes, compressed with zstd, with a checksum on each page."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def parse(content: bytes, source: str) -> "pa.Table":
    """Read Parquet bytes as they are.

    Args:
        content: A whole file.
        source: Where it came from, for the error.

    Raises:
        PermanentFailure: The bytes are not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table: it would load the whole dataset machinery for one file.
        return pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PermanentFailure(
            f"{source} is not a whole Parquet file (cut off or damaged): {error}.",
            "Materialise that partition again.",
        ) from error


def conform(table: "pa.Table", source: str, schema: dg.TableSchema) -> "pa.Table":
    """Exactly the declared columns of a table that was read, with their types.

    Raises:
        PermanentFailure: A column is missing, or its values do not fit the declared type.
    """
    import pyarrow as pa

    names = [column.name for column in schema.columns]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise PermanentFailure(
            f"{source} has no column {_listed(missing)}.",
            "It was written by other code: materialise that partition again.",
        )
    try:
        return table.select(names).cast(arrow_schema(schema))
    except (pa.ArrowException, ValueError) as error:
        raise PermanentFailure(
            f"{source} does not have the declared types: {error}",
            "It was written by other code: materialise that partition again.",
        ) from error


def content_sha256(frame: "pd.DataFrame") -> str:
    """Hash names, types and values of a frame, row by row: the same rows give the same digest."""
    import pandas as pd

    digest = hashlib.sha256()
    for name, dtype in frame.dtypes.items():
        digest.update(f"{name}:{dtype}\n".encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def combined_sha256(digests: Mapping[str, str]) -> str:
    """One digest for several partitions; a single partition keeps its own."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{key} {digest}\n" for key, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
