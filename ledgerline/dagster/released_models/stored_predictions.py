"""Reads the stored predictions of a model, joined with their rows. Drift is in predictions_drift.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.evaluation_rows import read_rows
from ledgerline.dagster.released_models.stored_tables import read_table, require_columns, stored_partitions
from ledgerline.dagster.released_models.training_reference import checked_predictions
from ledgerline.dagster.released_models.watch import Watch

# Column with the row number of a prediction during the join. Tables are unlikely to have this name.
_PLACE = "$place"


@dataclass(frozen=True)
class StoredPredictions:
    """The predictions of one version, with their rows.

    Attributes:
        version: Version that predicted.
        rows_by_version: Number of rows that each version predicted, most first.
        rows: Rows that this version predicted.
        prediction: Predictions for these rows, as the kind of prediction returns them.
    """

    version: int
    rows_by_version: dict[int, int]
    rows: pd.DataFrame
    prediction: NDArray[np.float64]


def stored_predictions(
    context: dg.AssetExecutionContext, model: ReleasedModel, watch: Watch, version: int | None
) -> StoredPredictions:
    """Read the predictions of the step's partition, and their rows.

    Without a version, they are those of the version with most rows, or of the latest of several with as many.

    Raises:
        PermanentFailure: There is no prediction, some have no row, or they are of another kind.
    """
    keys, row_keys = _keys(context, model, watch)
    asset = watch.predictions.key.to_user_string()
    table = read_table(context, watch.predictions, keys, "Drift is computed from")
    needed = (*watch.join, *watch.answers, watch.version)
    require_columns(watch.predictions.key, table, needed, "which its watch names")
    rows = read_rows(context, model, row_keys, f"{asset} predicts")
    joined = _joined(model, watch, table, rows)
    lost = len(table) - len(joined)
    # A table without partitions may have predictions for rows of other partitions.
    if lost and (keys or not row_keys):
        raise PermanentFailure(
            f"{lost:,} of {len(table):,} predictions of {asset}{_of_partition(context)} have no row in "
            f"{model.rows_key.to_user_string()} any more.",
            f"Materialise {asset} again.",
        )
    table = table.iloc[joined.pop(_PLACE)].reset_index(drop=True)
    if table.empty:
        raise PermanentFailure(
            f"{asset} has no prediction{_of_partition(context)}.", f"Materialise {asset} first."
        )
    versions = _versions(watch, table)
    counted = rows_by_version(versions)
    chosen = version if version is not None else next(iter(counted))
    if chosen not in counted:
        raise PermanentFailure(
            f"{asset} has no prediction of version {chosen}{_of_partition(context)}; it has those of "
            f"{', '.join(map(str, counted))}.",
            "Name one of these versions, or omit the version.",
        )
    of_version = (versions == chosen).to_numpy()
    joined, table = (frame[of_version].reset_index(drop=True) for frame in (joined, table))
    _require_once(watch.join, joined, asset)
    answers = table[list(watch.answers)].to_numpy() if len(watch.answers) > 1 else table[watch.answers[0]]
    prediction = checked_predictions(model, f"{asset} (version {chosen})", answers, len(table))
    return StoredPredictions(chosen, counted, joined, prediction)


def rows_by_version(versions: pd.Series) -> dict[int, int]:
    """Return the number of rows of each version: most first, and for equal numbers the later version."""
    counts = versions.value_counts().sort_index(ascending=False)
    counts = counts.sort_values(ascending=False, kind="stable")
    return {int(str(number)): int(count) for number, count in counts.items()}


def _keys(
    context: dg.AssetExecutionContext, model: ReleasedModel, watch: Watch
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the partitions of predictions and of rows to read; empty if they have none."""
    definition = watch.predictions.partitions_def or model.rows_partitions
    if definition is None:
        return (), ()
    has_partitions = watch.predictions.partitions_def is not None
    partitioned = watch.predictions if has_partitions else model.rows
    stored = stored_partitions(context, partitioned)
    wanted = (
        model.evaluated_on(context.partition_key)
        if context.has_partition_key
        else definition.get_partition_keys(dynamic_partitions_store=context.instance)
    )
    keys = [key for key in wanted if key in stored]
    if not keys:
        name = partitioned.key.to_user_string()
        raise PermanentFailure(
            f"{name} has no stored partition{_of_partition(context)}.", f"Materialise {name} first."
        )
    return keys if has_partitions else (), keys if model.rows_partitions is not None else ()


def _joined(model: ReleasedModel, watch: Watch, table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each prediction, with the row number of the prediction."""
    name = model.rows_key.to_user_string()
    require_columns(model.rows_key, rows, watch.join, "which joins predictions to rows")
    _require_once(watch.join, rows, name)
    placed = table[list(watch.join)].assign(**{_PLACE: range(len(table))})
    try:
        return placed.merge(rows, on=list(watch.join), how="inner")
    except ValueError as error:
        raise PermanentFailure(
            f"{watch.predictions.key.to_user_string()} and {name} cannot be joined by "
            f"{', '.join(watch.join)}: {error}.",
            "Store these columns with the same types.",
        ) from error


def _require_once(join: Sequence[str], rows: pd.DataFrame, name: str) -> None:
    again = int(rows.duplicated(list(join)).sum())
    if again:
        raise PermanentFailure(
            f"{again:,} of {len(rows):,} rows of {name} have the same {', '.join(join)} as another one.",
            "Name columns in `join` that identify a row.",
        )


def _versions(watch: Watch, table: pd.DataFrame) -> pd.Series:
    column = table[watch.version]
    numbers = pd.to_numeric(column, errors="coerce").astype("Float64")
    known = numbers.notna() & (numbers % 1 == 0).fillna(False)
    if not known.all():
        wrong, *_ = column[~known].tolist()
        raise PermanentFailure(
            f"{int((~known).sum()):,} of {len(table):,} predictions of "
            f"{watch.predictions.key.to_user_string()} name no version in {watch.version}; the first is "
            f"{wrong!r:.80}.",
            "Store the number of the version that predicted, for instance 3.",
        )
    return numbers.astype("int64")


def _of_partition(context: dg.AssetExecutionContext) -> str:
    return f" of {context.partition_key}" if context.has_partition_key else ""
