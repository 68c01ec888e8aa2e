"""The rows of a released model that a version was trained on, and those that it is evaluated on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.named_assets import storage_of
from ledgerline.dagster.released_models.stored_tables import read_table, require_columns
from ledgerline.dagster.storage import digests
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.dagster.tracking import Dataset
from ledgerline.registry import provenance
from ledgerline.registry.provenance import HOLDOUT_TAG, ProvenanceError, RowPartitions, named, span
from ledgerline.registry.versions import Version

if TYPE_CHECKING:
    import pandas as pd


def partitions_of(model: ReleasedModel, instance: dg.DagsterInstance) -> RowPartitions:
    """Return the current partitions of the rows of a model."""
    definition = model.rows_partitions
    if definition is None:
        return RowPartitions()
    keys = definition.get_partition_keys(dynamic_partitions_store=instance)
    return RowPartitions(list(keys), isinstance(definition, dg.TimeWindowPartitionsDefinition))


def keys_to_evaluate_on(
    model: ReleasedModel,
    partitions: RowPartitions,
    staging: Version,
    production: Version | None,
    partition: str | None,
) -> list[str]:
    """Return the partitions to compare two versions on; empty if the rows have no partitions.

    They are those for a partition of the versions' asset, or by default those that the staging version
    records.

    Raises:
        PermanentFailure: A version was trained on some of these rows, or its training rows are unknown.
    """
    both = [version for version in (staging, production) if version is not None]
    if model.holdout is not None:
        if partition is not None:
            raise PermanentFailure(
                f"The rows of {model.name} have no partitions, and {partition!r} was named.",
                "Compare without a partition, on the rows that are held out.",
            )
        for version in both:
            _require_same_holdout(model, version)
        return []
    with permanent_failures():
        keys = _keys(model, partitions, staging, partition)
        for version in both:
            provenance.require_new(version, keys, partitions)
    return keys


def read_evaluation_rows(
    context: dg.AssetExecutionContext, model: ReleasedModel, keys: Sequence[str], staging: Version
) -> "pd.DataFrame":
    """Read the rows to compare versions on; each has an outcome.

    Raises:
        PermanentFailure: Some rows are not stored, or lack a column.
    """
    rows = _with_outcome(model, read_rows(context, model, keys, f"{named(staging)} is compared on"))
    if model.holdout is not None:
        rows = rows[model.holdout.is_held_out(rows)].reset_index(drop=True)
    return rows


def read_training_rows(
    context: dg.AssetExecutionContext, model: ReleasedModel, partitions: RowPartitions, version: Version
) -> "pd.DataFrame":
    """Read the rows that a version was trained on, as they are stored now.

    Raises:
        PermanentFailure: The version does not record its training rows, or they are no longer stored.
    """
    purpose = f"{named(version)} was trained on"
    if model.holdout is not None:
        rows = _with_outcome(model, read_rows(context, model, (), purpose))
        return rows[~model.holdout.is_held_out(rows)].reset_index(drop=True)
    with permanent_failures():
        keys = provenance.trained_on(version, partitions)
    return _with_outcome(model, read_rows(context, model, keys, purpose))


def read_rows(
    context: dg.AssetExecutionContext, model: ReleasedModel, keys: Sequence[str], purpose: str
) -> "pd.DataFrame":
    """Read rows with the asset's IO manager; those of this library read all partitions at once.

    Raises:
        PermanentFailure: Partitions are not stored; the message names them and their purpose.
    """
    if model.read is not None:
        return model.read(context, keys)
    return read_table(context, model.rows, keys, purpose)


def described(
    context: dg.AssetExecutionContext, model: ReleasedModel, keys: Sequence[str], rows: "pd.DataFrame"
) -> Dataset:
    """Return the name, the digest and the location of rows of these partitions, for MLflow."""
    name = model.rows_key.to_user_string()
    storage = getattr(context.resources, storage_of(model.rows))
    source = str(storage.folder_of(model.rows_key)) if isinstance(storage, Tables) else f"dagster://{name}"
    if keys:
        name = f"{name} {' to '.join(dict.fromkeys([keys[0], keys[-1]]))}"
    return Dataset(name=name, sha256=digests.frame_sha256(rows), source=source, rows=len(rows))


def _keys(
    model: ReleasedModel, partitions: RowPartitions, staging: Version, partition: str | None
) -> list[str]:
    if partition is None:
        recorded = provenance.evaluated_on(staging, partitions)
        if recorded is not None:
            return recorded
        partition = provenance.partition_of(staging)
    if not partition:
        raise ProvenanceError(
            f"{named(staging)} does not record which partitions it is evaluated on.",
            f"Name a partition of {model.versions_key.to_user_string()}, or set the tag "
            f'{provenance.EVALUATED_ON_TAG} of the version, as [["2013-07-01", "2013-07-31"]].',
        )
    try:
        keys = list(model.evaluated_on(partition))
    except ValueError as error:
        raise ProvenanceError(
            f"{partition!r} is not a partition of {model.versions_key.to_user_string()}: {error}."
        ) from error
    known = set(partitions.keys)
    missing = [key for key in keys if key not in known]
    if missing or not keys:
        what = f"the partition {missing[0]!r}" if missing else "no partition"
        raise ProvenanceError(
            f"{partition!r} stands for {what} of {model.rows_key.to_user_string()}, which has those "
            f"{span(partitions.keys)}.",
            f"Name another partition of {model.versions_key.to_user_string()}.",
        )
    return keys


def _require_same_holdout(model: ReleasedModel, version: Version) -> None:
    assert model.holdout is not None  # noqa: S101 (the caller checked it)
    recorded, declared = version.tags.get(HOLDOUT_TAG), model.holdout.as_text()
    if recorded != declared:
        holdout = f"the holdout {recorded}" if recorded else "no holdout"
        raise PermanentFailure(
            f"{named(version)} records {holdout}, and {model.name} is declared with {declared}: no row is "
            "known to be new to it.",
            "Train a version with the declared holdout.",
        )


def _with_outcome(model: ReleasedModel, rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows whose outcome is known."""
    needed = [model.outcome, *model.slices, *model.features]
    needed += [model.clusters] if isinstance(model.clusters, str) else []
    needed += model.holdout.by if model.holdout is not None else []
    require_columns(model.rows_key, rows, needed, f"which the declaration of {model.name} names")
    return rows[rows[model.outcome].notna()].reset_index(drop=True)
