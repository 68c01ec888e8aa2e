"""What a version learned from, and what it says to that. What is compared with it: drift.py, and others."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from assets.delay_model import MODEL_NAME, describe, model_input, read_days, with_outcome
from assets.partitions import DAYS
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.mlflow_store.stored_model import StoredModel
from ledgerline.registry import provenance
from ledgerline.registry.provenance import ProvenanceError, RowPartitions
from ledgerline.registry.versions import TRAINING_DATA_TAG, Version

if TYPE_CHECKING:
    import pandas as pd

CHANGED = "has changed since"


@dataclass(frozen=True)
class LearnedFrom:
    """What a version learned from.

    Attributes:
        days: The days, in order.
        rows: Their flights, as they are stored now.
        as_recorded: Whether they are those it learned from.
        scores: The probability of being late that it gives to each.
    """

    days: list[str]
    rows: "pd.DataFrame"
    as_recorded: str
    scores: "pd.Series"


def learned_from(
    version: Version, tables: Tables, registry: ModelRegistryResource, otel: OTelResource
) -> LearnedFrom:
    """Read what a version learned from, and score it.

    Raises:
        PermanentFailure: The version does not say what it learned from, that is not stored any more, or its
            files are not those that were registered.
    """
    days = training_days_of(version)
    with otel.span("read features", days=len(days)):
        rows = with_outcome(read_days(tables, days, f"{MODEL_NAME} version {version.number} learned from"))
        training_data = as_recorded(version, describe(rows, tables, days).sha256)
    with otel.span("load model"):
        model = registry.load(version)
    with otel.span("predict", rows=len(rows)):
        scores = scores_of(model, rows)
    return LearnedFrom(days, rows, training_data, scores)


def training_days_of(version: Version) -> list[str]:
    """Return the days that a version was trained on.

    Raises:
        PermanentFailure: It does not say which.
    """
    try:
        return provenance.trained_on(version, RowPartitions(DAYS.get_partition_keys()))
    except ProvenanceError as error:
        raise PermanentFailure(str(error), "Nothing was changed.") from error


def warn_if_changed(context: dg.AssetExecutionContext, version: Version, learned: LearnedFrom) -> None:
    """Say so if the flights are not those that the version learned from."""
    if learned.as_recorded == CHANGED:
        context.log.warning(
            f"Features from {learned.days[0]} to {learned.days[-1]} were written again, and differently, "
            f"since version {version.number} learned from them."
        )


def as_recorded(version: Version, sha256: str) -> str:
    """Whether the rows that are there now are those a version learned from, by their digest."""
    recorded = version.tags.get(TRAINING_DATA_TAG)
    if recorded is None:
        return "not recorded"
    return "as recorded" if recorded == sha256 else CHANGED


def scores_of(model: StoredModel, flights: "pd.DataFrame") -> "pd.Series":
    """The probability of being late that a model gives to each flight."""
    import pandas as pd

    return pd.Series(model.answer(model_input(flights))[:, 1], name="late_probability")
