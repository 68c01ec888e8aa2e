"""Records that the assets of drift store, and the configuration of their runs."""

from dataclasses import dataclass

import dagster as dg
from pydantic import Field

WEEK_HOURS = 24 * 7


class DriftConfig(dg.Config):
    """The version whose predictions are compared."""

    version: int | None = Field(
        default=None,
        ge=1,
        description="The predictions of this version. Default: of the one that made most of them.",
    )


@dataclass(frozen=True)
class PredictionsDrift:
    """How predictions and their rows differ from what the version that made them was trained on.

    Attributes:
        partition: The partition that it is about; None: it has none.
        version: The version whose predictions are compared.
        rows: The rows that it predicted.
        clusters: Their clusters.
        rows_by_version: The rows that each version predicted, by its number.
        first_training_partition: The first partition that the version was trained on; None: rows have none.
        last_training_partition: The last one.
        training_rows: The rows that it was trained on.
        training_data: Whether these are stored as they were then.
        feature_psi: Population stability index of each feature, the one that differs most first.
        gaps_psi: The same of whether a feature is missing.
        score_psi: The same of each column of predictions.
        mean_training_score: Mean prediction for the rows that it was trained on, by column.
        mean_score: Mean prediction, by column.
        rows_with_outcome: The rows whose outcome is known; without any, all that follows is 0 or empty.
        clusters_with_outcome: Their clusters.
        predicted: Mean prediction for them, by column; for quantiles, the level.
        observed: What happened: the share or the mean of outcomes; for quantiles, the share at or below.
        metrics: How good the predictions were: every metric that is defined for these rows.
    """

    partition: str | None
    version: int
    rows: int
    clusters: int
    rows_by_version: dict[str, int]
    first_training_partition: str | None
    last_training_partition: str | None
    training_rows: int
    training_data: str
    feature_psi: dict[str, float]
    gaps_psi: dict[str, float]
    score_psi: dict[str, float]
    mean_training_score: dict[str, float]
    mean_score: dict[str, float]
    rows_with_outcome: int
    clusters_with_outcome: int
    predicted: dict[str, float]
    observed: dict[str, float]
    metrics: dict[str, float]

    @property
    def largest_score_psi(self) -> float:
        """The index of the column of predictions that differs most."""
        return max(self.score_psi.values())


class RequestsDriftConfig(dg.Config):
    """Which requests are compared."""

    since_hours: int = Field(
        default=WEEK_HOURS, ge=1, description="Requests that came in so many hours before the run."
    )


@dataclass(frozen=True)
class RequestsDrift:
    """How requests to a version differ from what it was trained on.

    Attributes:
        version: The version in production.
        since: From when on requests are compared (ISO 8601).
        until: Until when.
        requests: The requests that it answered.
        rows: The rows in them.
        is_cut: Whether there may be more: so many are enough.
        first_training_partition: The first partition that the version was trained on; None: rows have none.
        last_training_partition: The last one.
        training_rows: The rows that it was trained on.
        training_data: Whether these are stored as they were then.
        feature_psi: Population stability index of each column that it takes, the one that differs most first.
        gaps_psi: The same of whether it is missing, of features for which the watch names that.
        not_logged: Columns that are left out of the log on purpose, and so are in neither.
        score_psi: The same of each column of its predictions.
        mean_training_score: Mean prediction for the rows that it was trained on, by column.
        mean_score: Mean prediction in the responses, by column.
    """

    version: int
    since: str
    until: str
    requests: int
    rows: int
    is_cut: bool
    first_training_partition: str | None
    last_training_partition: str | None
    training_rows: int
    training_data: str
    feature_psi: dict[str, float]
    gaps_psi: dict[str, float]
    not_logged: list[str]
    score_psi: dict[str, float]
    mean_training_score: dict[str, float]
    mean_score: dict[str, float]
