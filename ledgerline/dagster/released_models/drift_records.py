"""The records that drift assets store, and the configuration of their runs."""

from dataclasses import dataclass, field

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


class RequestsDriftConfig(dg.Config):
    """The requests that are compared."""

    since_hours: int = Field(
        default=WEEK_HOURS, ge=1, description="Requests of this many hours before the run are compared."
    )


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The drift of rows and of their predictions from the training rows of the version that predicted.

    Attributes:
        version: Version that predicted.
        rows: Number of rows that it predicted.
        first_training_partition: First partition of its training rows; None without partitions.
        last_training_partition: Last partition of its training rows; None without partitions.
        training_rows: Number of its training rows.
        training_data: Text that reports whether the training rows are unchanged.
        feature_psi: Population stability index of each feature or input column, the largest first.
        gaps_psi: Population stability index of whether a feature is missing, for the gaps of the watch.
        score_psi: Population stability index of each column of predictions.
        mean_training_score: Mean prediction for the training rows, by column.
        mean_score: Mean prediction, by column.
    """

    version: int
    rows: int
    first_training_partition: str | None
    last_training_partition: str | None
    training_rows: int
    training_data: str
    feature_psi: dict[str, float]
    gaps_psi: dict[str, float]
    score_psi: dict[str, float]
    mean_training_score: dict[str, float]
    mean_score: dict[str, float]

    @property
    def largest_score_psi(self) -> float:
        """The largest index of a column of predictions."""
        return max(self.score_psi.values())


@dataclass(frozen=True, kw_only=True)
class PredictionsDrift(Drift):
    """The drift of stored predictions and their rows.

    Attributes:
        partition: Partition of the predictions; None without partitions.
        clusters: Number of clusters of the predicted rows.
        rows_by_version: Number of rows that each version predicted, by its number.
        rows_with_outcome: Number of rows whose outcome is known; if it is 0, all fields below are 0 or empty.
        clusters_with_outcome: Number of clusters of these rows.
        predicted: Mean prediction for these rows, by column; for quantiles, the level.
        observed: Share or mean of their outcomes; for quantiles, the share of outcomes at or below.
        metrics: Every metric that is defined for these rows.
    """

    partition: str | None
    clusters: int
    rows_by_version: dict[str, int]
    rows_with_outcome: int = 0
    clusters_with_outcome: int = 0
    predicted: dict[str, float] = field(default_factory=dict)
    observed: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RequestsDrift(Drift):
    """The drift of requests to the version in production.

    Attributes:
        since: Start of the period whose requests are compared (ISO 8601).
        until: End of the period.
        requests: Number of requests that the version answered.
        is_cut: True if the period may have more requests than were read.
        not_logged: Columns that have no index, because they are redacted in the log.
    """

    since: str
    until: str
    requests: int
    is_cut: bool
    not_logged: list[str]
