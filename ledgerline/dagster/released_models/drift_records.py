"""The records that drift assets store, and the configuration of their runs."""

from dataclasses import dataclass

import dagster as dg
from pydantic import Field

WEEK_HOURS = 24 * 7


class DriftConfig(dg.Config):
    """The version whose predictions are compared."""

    version: int | None = Field(
        default=None,
        ge=1,
        description="Version whose predictions are compared. Default: the one that made most of them.",
    )


@dataclass(frozen=True)
class PredictionsDrift:
    """The drift of predictions and their rows, compared with the training rows of the version.

    Attributes:
        partition: Partition of the predictions; None without partitions.
        version: Version whose predictions are compared.
        rows: Number of rows that it predicted.
        clusters: Number of clusters of these rows.
        rows_by_version: Number of rows that each version predicted, by its number.
        first_training_partition: First partition of its training rows; None without partitions.
        last_training_partition: Last partition of its training rows; None without partitions.
        training_rows: Number of its training rows.
        training_data: Text that reports whether the training rows are unchanged.
        feature_psi: Population stability index of each feature, the largest first.
        gaps_psi: Population stability index of whether a feature is missing.
        score_psi: Population stability index of each column of predictions.
        mean_training_score: Mean prediction for the training rows, by column.
        mean_score: Mean prediction, by column.
        rows_with_outcome: Number of rows whose outcome is known; if it is 0, all fields below are 0 or empty.
        clusters_with_outcome: Number of clusters of these rows.
        predicted: Mean prediction for these rows, by column; for quantiles, the level.
        observed: Share or mean of their outcomes; for quantiles, the share of outcomes at or below.
        metrics: Every metric that is defined for these rows.
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
        """The largest index of a column of predictions."""
        return max(self.score_psi.values())


class RequestsDriftConfig(dg.Config):
    """The requests that are compared."""

    since_hours: int = Field(
        default=WEEK_HOURS, ge=1, description="Requests of this many hours before the run are compared."
    )


@dataclass(frozen=True)
class RequestsDrift:
    """The drift of requests to a version from its training rows.

    Attributes:
        version: Version in production.
        since: Start of the period whose requests are compared (ISO 8601).
        until: End of the period.
        requests: Number of requests that the version answered.
        rows: Number of rows in these requests.
        is_cut: True if the period may have more requests than were read.
        first_training_partition: First partition of its training rows; None without partitions.
        last_training_partition: Last partition of its training rows; None without partitions.
        training_rows: Number of its training rows.
        training_data: Text that reports whether the training rows are unchanged.
        feature_psi: Population stability index of each input column, the largest first.
        gaps_psi: Population stability index of whether a feature is missing, for the gaps of the watch.
        not_logged: Columns that have no index, because they are redacted in the log.
        score_psi: Population stability index of each column of predictions.
        mean_training_score: Mean prediction for the training rows, by column.
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
