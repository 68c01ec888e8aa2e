"""Reads the rows that a version was trained on, and predicts them. comparing_*.py compare them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.contenders import contender
from ledgerline.dagster.released_models.declaration import ReleasedModel
from ledgerline.dagster.released_models.evaluation_rows import partitions_of, read_training_rows
from ledgerline.dagster.storage import digests
from ledgerline.dagster.tracing import OTelResource
from ledgerline.evaluation.samples import ComparisonError
from ledgerline.registry import provenance
from ledgerline.registry.provenance import named, span
from ledgerline.registry.versions import TRAINING_DATA_TAG, Version

if TYPE_CHECKING:
    from ledgerline.evaluation.samples import Answer


@dataclass(frozen=True)
class TrainingReference:
    """The rows that a version was trained on, with its predictions.

    Attributes:
        first_partition: First partition of the rows; None if they have no partitions.
        last_partition: Last partition of the rows; None if they have no partitions.
        rows: Rows, as they are stored now.
        as_recorded: Text that reports whether the rows are unchanged since the training.
        prediction: Predictions of the version for these rows, as the kind of prediction returns them.
    """

    first_partition: str | None
    last_partition: str | None
    rows: pd.DataFrame
    as_recorded: str
    prediction: NDArray[np.float64]

    @property
    def span(self) -> str:
        """The partitions of the rows, for a text."""
        if self.first_partition is None or self.last_partition is None:
            return "all partitions"
        return span(list(dict.fromkeys([self.first_partition, self.last_partition])))


def training_reference(
    context: dg.AssetExecutionContext, model: ReleasedModel, version: Version
) -> TrainingReference:
    """Read the rows that a version was trained on, and predict them.

    Raises:
        PermanentFailure: The version does not record its training rows, they are not stored any more, or the
            files of the version are not those that were registered.
    """
    registered = context.resources.registry.model(model.name)
    otel: OTelResource = context.resources.otel
    with otel.span("read training rows"):
        partitions = partitions_of(model, context.instance)
        rows = read_training_rows(context, model, partitions, version)
        keys = provenance.trained_on(version, partitions) if model.holdout is None else []
        recorded = version.tags.get(TRAINING_DATA_TAG)
        has_changed = recorded is not None and recorded != digests.frame_sha256(rows)
    if rows.empty:
        raise PermanentFailure(
            f"None of the rows that {named(version)} was trained on is stored with an outcome any more.",
            "Materialise them again, or train another version.",
        )
    as_recorded = "not recorded" if recorded is None else "as recorded"
    if has_changed:
        as_recorded = "has changed since"
        context.log.warning(f"The rows that {named(version)} was trained on have changed since.")
    with otel.span("load model"):
        loaded = contender(registered, model, version)
    with otel.span("predict", rows=len(rows)):
        prediction = checked_predictions(model, named(version), loaded.answers(rows), len(rows))
    return TrainingReference(
        first_partition=keys[0] if keys else None,
        last_partition=keys[-1] if keys else None,
        rows=rows,
        as_recorded=as_recorded,
        prediction=prediction,
    )


def checked_predictions(model: ReleasedModel, name: str, answer: "Answer", rows: int) -> NDArray[np.float64]:
    """Return predictions in the form of their kind.

    Raises:
        PermanentFailure: They are not predictions of the declared kind.
    """
    try:
        return model.kind.predictions(name, answer, rows)
    except ComparisonError as error:
        raise PermanentFailure(
            str(error),
            f"{model.name} is declared to predict {model.kind!r}: store such predictions, or correct the "
            "declaration.",
        ) from error
