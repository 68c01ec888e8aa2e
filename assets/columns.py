"""Declaring the columns of a table, once: for storage, for checks and for the Dagster UI."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from pandas import DataFrame as Frame
else:
    # Dagster evaluates the annotations of assets, and pandas is imported by steps only.
    Frame = Any

NOT_NULL = dg.TableColumnConstraints(nullable=False)

# Arrow types of declared columns and how pandas reads them from CSV. A nullable integer is read as a
# double and becomes an integer when it is stored.
PANDAS_DTYPES = {"string": "object", "double": "float64"}


def required(name: str, arrow_type: str, description: str) -> dg.TableColumn:
    """A column without gaps."""
    return dg.TableColumn(name, arrow_type, description, constraints=NOT_NULL)


def optional(name: str, arrow_type: str, description: str) -> dg.TableColumn:
    """A column that may have gaps."""
    return dg.TableColumn(name, arrow_type, description)


def csv_dtypes(schema: dg.TableSchema) -> dict[str, str]:
    """The pandas dtype with which each declared column is read from CSV."""
    return {
        column.name: PANDAS_DTYPES.get(column.type, "float64" if column.constraints.nullable else column.type)
        for column in schema.columns
    }


def lineage(upstream: Mapping[str, Sequence[tuple[str, str]]]) -> dg.TableColumnLineage:
    """Column lineage from (asset, column) pairs by column."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey(asset), source) for asset, source in sources]
            for column, sources in upstream.items()
        }
    )
