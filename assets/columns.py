"""Helps to declare the columns of a table once, for storage, checks and the Dagster UI."""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import dagster as dg

if TYPE_CHECKING:
    from pandas import DataFrame as Frame
else:
    # Dagster evaluates the annotations of assets, and only steps import pandas.
    Frame = Any

NOT_NULL = dg.TableColumnConstraints(nullable=False)

# These are the pandas dtypes of Arrow types when a CSV is read. A nullable integer is read as a double and
# becomes an integer when it is stored.
PANDAS_DTYPES = {"string": "object", "double": "float64"}


def required(name: str, arrow_type: str, description: str) -> dg.TableColumn:
    """Return a column without gaps."""
    return dg.TableColumn(name, arrow_type, description, constraints=NOT_NULL)


def optional(name: str, arrow_type: str, description: str) -> dg.TableColumn:
    """Return a column that may have gaps."""
    return dg.TableColumn(name, arrow_type, description)


def schema_of(record: type) -> dg.TableSchema:
    """Return the schema of a dataclass whose fields are annotated with an Arrow type and a description."""
    columns = []
    for name, annotated in get_type_hints(record, include_extras=True).items():
        kind, arrow_type, description = get_args(annotated)
        column = optional if NoneType in get_args(kind) else required
        columns.append(column(name, arrow_type, description))
    return dg.TableSchema(columns)


def csv_dtypes(schema: dg.TableSchema) -> dict[str, str]:
    """Return the pandas dtype with which each declared column is read from CSV."""
    return {
        column.name: PANDAS_DTYPES.get(column.type, "float64" if column.constraints.nullable else column.type)
        for column in schema.columns
    }


def lineage(upstream: Mapping[str, Sequence[tuple[str, str]]]) -> dg.TableColumnLineage:
    """Return column lineage for (asset, column) pairs by column."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(asset), source) for asset, source in sources]
            for column, sources in upstream.items()
        }
    )
