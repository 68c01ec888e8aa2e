"""Declarations for tests."""

from typing import Any

import dagster as dg
import pandas as pd

from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.evaluation.kinds import Regression

DAYS = dg.DailyPartitionsDefinition(start_date="2013-01-01", end_date="2014-01-01")


def inputs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["x"]]


def declared(
    name: str,
    partitions: dg.PartitionsDefinition | None = DAYS,
    schema: dg.TableSchema | None = None,
    **fields: Any,
) -> ReleasedModel:
    """Return a declaration over the asset `rows`, whose versions have the same partitions."""
    metadata = {} if schema is None else {"dagster/column_schema": schema}
    given = {
        "kind": Regression(),
        "versions": dg.AssetSpec(f"{name}_version", partitions_def=partitions),
        "rows": dg.AssetSpec("rows", partitions_def=partitions, metadata=metadata),
        "outcome": "y",
        "inputs": inputs,
        "clusters": None,
    }
    return ReleasedModel(name=name, **{**given, **fields})
