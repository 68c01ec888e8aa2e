"""Reads the tables that a declaration names, with the IO managers that store them."""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.named_assets import Asset, declared_schema, storage_of
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.registry.provenance import span

if TYPE_CHECKING:
    import pandas as pd


def stored_partitions(context: dg.AssetExecutionContext, asset: Asset) -> set[str]:
    """Return the partitions of a table that are stored."""
    storage = getattr(context.resources, storage_of(asset))
    if isinstance(storage, Tables):
        return set(storage.stored_partitions(asset.key))
    return set(context.instance.get_materialized_partitions(asset.key))


def read_table(
    context: dg.AssetExecutionContext, asset: Asset, keys: Sequence[str], purpose: str
) -> "pd.DataFrame":
    """Read these partitions of a table, or a table without partitions.

    The step requires the IO manager of the table; those of this library read all partitions at once.

    Raises:
        PermanentFailure: Partitions are not stored; the message begins with the purpose of the rows.
    """
    import pandas as pd

    storage = getattr(context.resources, storage_of(asset))
    if keys:
        _require_stored(asset, stored_partitions(context, asset), keys, purpose)
    if isinstance(storage, Tables):
        return storage.read(asset.key, list(keys) or None, declared_schema(asset))
    if not keys:
        return context.load_asset_value(asset.key, python_type=pd.DataFrame)
    parts = [context.load_asset_value(asset.key, python_type=pd.DataFrame, partition_key=key) for key in keys]
    return pd.concat(parts, ignore_index=True)


def require_columns(asset: dg.AssetKey, table: "pd.DataFrame", columns: Iterable[str], why: str) -> None:
    """Refuse a table that lacks one of these columns.

    Raises:
        PermanentFailure: A column is missing; the message says why it is needed, in a relative clause.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise PermanentFailure(
            f"{asset.to_user_string()} has no column {missing[0]!r}, {why}.",
            f"Its columns are {', '.join(map(str, table.columns))}.",
        )


def _require_stored(asset: Asset, stored: Collection[str], keys: Sequence[str], purpose: str) -> None:
    missing = sorted(set(keys) - set(stored))
    if missing:
        name = asset.key.to_user_string()
        raise PermanentFailure(
            f"{purpose} {len(keys)} partitions of {name} ({span(keys)}), and {len(missing)} of them are not "
            f"stored: the first is {missing[0]}.",
            f"Materialise {name} for them.",
        )
