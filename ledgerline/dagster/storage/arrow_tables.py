"""Converts tables between data frames and Arrow, with declared columns."""

from collections.abc import Sequence
from typing import cast

import dagster as dg
import pandas as pd
import pyarrow as pa
from pyarrow import compute

from ledgerline.dagster.failures import PermanentFailure, listed
from ledgerline.dagster.storage.arrow_types import arrow_type
from ledgerline.dagster.storage.table_digests import EXACT_AS_FLOAT


def to_arrow(name: str, output: object, schema: dg.TableSchema | None) -> pa.Table:
    """Convert the output of a step to an Arrow table with exactly the declared columns, in their order.

    Args:
        name: Name of the table, for the error.
        output: Data frame of pandas or polars, Arrow table, or any object with the Arrow protocol
            (`__arrow_c_stream__`).
        schema: Columns with the names of their Arrow types ("int16", "list<item: double>"); None infers them.

    Raises:
        PermanentFailure: The output is not a table, or a column is missing, not declared or of another type.
    """
    if isinstance(output, pd.DataFrame):
        return _from_pandas(name, output, schema)
    table = _handed_out(name, output)
    _check_names(name, table.column_names, schema)
    if schema is None:
        return table
    wanted = arrow_schema(schema, name)
    try:
        for field in wanted:
            given = table.schema.field(field.name).type
            if given != pa.null() and _has_text(given) != _has_text(field.type):
                raise ValueError(f"column {field.name!r} is of type {given}, not {field.type}")
        return _cast(table.select(wanted.names), wanted)
    except (pa.ArrowException, ValueError) as error:
        raise _of_other_types(name, error) from error


def arrow_schema(schema: dg.TableSchema, name: str = "The table") -> pa.Schema:
    """Return the Arrow form of a declared schema.

    Raises:
        PermanentFailure: A type is not an Arrow type; the message names the column, and the table by `name`.
    """
    fields = []
    for column in schema.columns:
        try:
            kind = arrow_type(column.type)
        except ValueError as error:
            raise PermanentFailure(
                f"{name} declares a column {column.name!r} of the type {column.type!r}: {error}.",
                "Write it as pyarrow prints it: int64, double, string, date32[day], list<item: double>, "
                "decimal128(10, 2), timestamp[us, tz=UTC].",
            ) from error
        fields.append(pa.field(column.name, kind, nullable=column.constraints.nullable))
    return pa.schema(fields)


def conform(table: pa.Table, source: str, schema: dg.TableSchema) -> pa.Table:
    """Return exactly the declared columns of a stored table, with their types.

    Raises:
        PermanentFailure: A column is missing, or its values do not fit the declared type.
    """
    names = [column.name for column in schema.columns]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise PermanentFailure(
            f"{source} has no column {listed(missing)}.",
            "It was written by another version of the code: materialise it again.",
        )
    wanted = arrow_schema(schema, source)
    try:
        return _cast(table.select(names), wanted)
    except (pa.ArrowException, ValueError) as error:
        raise PermanentFailure(
            f"{source} does not have the declared types: {error}",
            "It was written by another version of the code: materialise it again.",
        ) from error


def concatenated(name: str, tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate the partitions of a table; a column that a partition lacks is null there.

    Raises:
        PermanentFailure: A column is of types that cannot be joined.
    """
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise PermanentFailure(
            f"The partitions of {name} do not have the same types: {error}",
            "Declare its columns (dagster/column_schema), and materialise those that differ again.",
        ) from error


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert to pandas without changing a value.

    Booleans with nulls stay booleans, and integers with nulls stay integers if they are too large for a float
    (pandas' nullable types).
    """
    nullable = {pa.bool_(): pd.BooleanDtype(), pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    frame = table.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type in (pa.int64(), pa.uint64()) and column.null_count:
            # pyarrow creates its compute functions at import, so type checkers do not know them.
            extremes = compute.min_max(column).as_py()  # pyright: ignore[reportAttributeAccessIssue]
            if any(abs(value or 0) > EXACT_AS_FLOAT for value in extremes.values()):
                frame[name] = column.to_pandas(types_mapper=nullable.get)
    return frame


def _from_pandas(name: str, frame: pd.DataFrame, schema: dg.TableSchema | None) -> pa.Table:
    _check_names(name, list(frame.columns), schema)
    index = [str(level) for level in frame.index.names if level is not None]
    if schema is None and index:
        raise PermanentFailure(
            f"The rows of {name} have an index ({listed(index)}), which is not stored.",
            "Make it a column with reset_index(), or drop it with reset_index(drop=True).",
        )
    wanted = None if schema is None else arrow_schema(schema, name)
    try:
        table = pa.Table.from_pandas(frame, schema=wanted, preserve_index=False)
        # pandas adds metadata about its types, which contains nothing beyond the declared types.
        return table if schema is None else table.replace_schema_metadata()
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        if schema is None:
            raise PermanentFailure(
                f"The rows of {name} cannot be stored: {error}",
                "Give each column values of one type, or declare its type (dagster/column_schema).",
            ) from error
        raise _of_other_types(name, error) from error


def _handed_out(name: str, output: object) -> pa.Table:
    """Read the rows of an object through the Arrow protocol, without importing its library."""
    if isinstance(output, type):
        raise _no_table(name, output)
    try:
        if hasattr(output, "__arrow_c_stream__") or hasattr(output, "__arrow_c_array__"):
            return pa.table(output)
        if to_arrow := getattr(output, "to_arrow", None):  # polars, before it had the protocol
            return pa.table(to_arrow())
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _no_table(name, output) from error
    raise _no_table(name, output)


def _no_table(name: str, output: object) -> PermanentFailure:
    kind = type(output)
    what = "None" if output is None else f"a {kind.__name__} ({kind.__module__})"
    return PermanentFailure(
        f"{name} returned {what}, which is not a table.",
        "Return a pandas or polars DataFrame or a pyarrow Table: a Series by to_frame(), a lazy frame "
        "collected. An asset that stores its rows itself is annotated with `-> None`.",
    )


def _check_names(name: str, columns: "Sequence[object]", schema: dg.TableSchema | None) -> None:
    """Refuse columns with ambiguous names, and columns that are not the declared ones."""
    no_text = [repr(column) for column in columns if not isinstance(column, str)]
    if no_text:
        raise PermanentFailure(
            f"The rows of {name} have columns whose names are not text: {listed(no_text)}.",
            "Rename them, for example with frame.columns.map(str).",
        )
    names = cast("list[str]", list(columns))
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise PermanentFailure(
            f"The rows of {name} have more than one column {listed(twice)}.", "Rename or drop all but one."
        )
    if schema is None:
        return
    declared = [column.name for column in schema.columns]
    missing = [column for column in declared if column not in names]
    unknown = [column for column in names if column not in declared]
    if missing or unknown:
        raise PermanentFailure(
            f"The rows of {name} do not have the declared columns: "
            f"missing {missing or 'none'}, not declared {unknown or 'none'}.",
            "Correct the source, or the column schema of the asset.",
        )


def _of_other_types(name: str, error: Exception) -> PermanentFailure:
    return PermanentFailure(
        f"The rows of {name} do not have the declared types: {error}",
        "Correct the source, or the column schema of the asset.",
    )


def _has_text(kind: pa.DataType) -> bool:
    return "string" in str(kind)


def _cast(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Convert columns to the wanted types."""
    for number, field in enumerate(wanted):
        if isinstance(field.type, pa.DictionaryType) and table.schema.field(number).type != field.type:
            table = table.set_column(number, field.name, _encoded(table.column(number), field.type))
    return table.cast(wanted)


def _encoded(column: pa.ChunkedArray, kind: pa.DictionaryType) -> pa.DictionaryArray:
    """Convert to a dictionary array; Arrow's cast supports only some value types."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    values = pa.concat_arrays([pa.array([], kind.value_type), *column.cast(kind.value_type).chunks])
    encoded = values.dictionary_encode()
    indices = encoded.indices.cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, encoded.dictionary, ordered=kind.ordered)
