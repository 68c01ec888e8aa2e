"""Reads the metadata of assets that a declaration names. stored_tables.py reads their content."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ledgerline.dagster.storage.io_managers import COLUMN_SCHEMA

Asset = dg.AssetsDefinition | dg.AssetSpec


def metadata_of(asset: Asset) -> Mapping[str, Any]:
    """Return the metadata that an asset declares."""
    if isinstance(asset, dg.AssetSpec):
        return asset.metadata
    return asset.metadata_by_key.get(asset.key, {})


def declared_schema(asset: Asset) -> dg.TableSchema | None:
    """Return the columns that a table declares; None without a declaration."""
    declared = metadata_of(asset).get(COLUMN_SCHEMA)
    schema = getattr(declared, "schema", declared)
    return schema if isinstance(schema, dg.TableSchema) else None


def declared_columns(asset: Asset) -> set[str] | None:
    """Return the names of the columns that a table declares; None without a declaration."""
    schema = declared_schema(asset)
    return None if schema is None else {column.name for column in schema.columns}


def storage_of(asset: Asset) -> str:
    """Return the key of the resource that stores an asset."""
    if isinstance(asset, dg.AssetsDefinition):
        return asset.get_io_manager_key_for_asset_key(asset.key)
    return str(asset.metadata.get("dagster/io_manager_key", "io_manager"))


def last_materialised(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: dg.PartitionsDefinition
) -> str | None:
    """Return the last partition of an asset that is materialised; None if none is."""
    made = instance.get_materialized_partitions(asset)
    keys = partitions.get_partition_keys(dynamic_partitions_store=instance)
    return next((key for key in reversed(keys) if key in made), None)


def several_problem(asset: object) -> str | None:
    """Return why an object does not name exactly one asset; None if it does."""
    if not isinstance(asset, dg.AssetsDefinition | dg.AssetSpec):
        return f"{asset!r} is neither an asset nor an AssetSpec"
    if isinstance(asset, dg.AssetsDefinition) and len(list(asset.keys)) != 1:
        return "the definition makes several assets; name one by an AssetSpec"
    return None
