"""The declaration of the watch over a released model's drift. comparing_predictions.py measures it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.dagster.released_models.named_assets import Asset, declared_columns, several_problem
from ledgerline.errors import LedgerlineError
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError

if TYPE_CHECKING:
    from ledgerline.dagster.released_models.declaration import ReleasedModel

SCORES_STABLE = "scores_stable"
FEATURES_STABLE = "features_stable"

# Name of the check that predictions agree with outcomes, by metric.
_OUTCOME_CHECKS: Mapping[str, str] = {
    "calibration_error": "calibrated_on_outcomes",
    "coverage_error": "covers_outcomes",
    "bias": "unbiased_on_outcomes",
}

# Largest accepted calibration error, 0 to 1. Outcomes change with the season even if a model is as good as it
# can be; 0.1 is more than that in most data, and `on_outcomes` declares another bound.
MAX_CALIBRATION_ERROR = 0.1


class WatchError(LedgerlineError):
    """A field of a watch contradicts the model; `why` is the problem as a clause."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}.")
        self.field = field
        self.why = why


@dataclass(frozen=True)
class Bound:
    """The worst accepted value of a metric, on rows whose outcome is known.

    Attributes:
        metric: Metric, or name of a metric of the kind of prediction or of the model.
        worst: Worst accepted value, in the unit of the metric. The metric defines which direction is worse; a
            metric with a target may be as far from it as this value.
    """

    metric: str | Metric
    worst: float


@dataclass(frozen=True)
class RetrainOnDrift:
    """A job that trains a version after drift, for the partition after the one that has drifted.

    The sensor `retrain_on_drift_<model>` starts it once for each partition; the sensor is off by default.

    Attributes:
        job: Name of the job, which has the partitions of the versions' asset.
        needs: Function that returns the partitions of the rows that the version of a partition is trained and
            evaluated on. The sensor waits until they are materialised.
    """

    job: str
    needs: Callable[[str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The watch over the drift of a model's predictions and of the requests to it.

    The numbers are always reported; these fields declare which of them checks evaluate, and with which
    bounds.

    Attributes:
        predictions: Asset with the stored predictions: a table, without partitions or with those of the rows.
            If the rows have no partitions, it may have any.
        join: Columns that join a prediction to its row; together they identify one row.
        answers: Columns that hold a prediction, in the order of the kind of prediction (`score_names`): the
            probability, that of each class, the value, or the quantile of each level.
        version: Column with the number of the version that predicted.
        features: Features of the model whose population stability index is evaluated. Default: all.
        gaps: Features whose share of missing values is evaluated. Name a feature only here if its values are
            expected to change, like the weather.
        max_score_psi: Largest accepted population stability index of a column of predictions. By a rule of
            thumb (Siddiqi, Intelligent Credit Scoring, 2017) 0.1 to 0.25 means some change, and more means
            another population.
        max_feature_psi: Largest accepted index of a feature, and of its gaps. It is lower because single
            features change less than predictions, which combine all of them.
        on_outcomes: Bound that is evaluated on rows whose outcome is known. Default: a calibration error of
            0.1 for probabilities, a coverage error of 0.1 for quantiles, and none for numbers, whose unit is
            not known.
        min_clusters: Smallest number of clusters of predictions, or of outcomes, that is evaluated; fewer are
            only reported, because rows of one cluster vary together.
        min_rows: Smallest number of rows that is evaluated. By chance alone the index of ten bins is about 9
            divided by the number of rows: 0.02 for 500.
        retrain: Job that runs when the predictions of a partition fail the check of scores or of outcomes;
            for versions with time partitions.
        min_requests: Smallest number of requests to the service that is evaluated.

    Example:
        >>> from ledgerline.evaluation.kinds import Binary
        >>> watch = Watch(
        ...     predictions=dg.AssetSpec("late_orders"),
        ...     join=["order"],
        ...     answers=["late_probability"],
        ...     version="model_version",
        ...     on_outcomes=Bound("calibration_error", 0.05),
        ... )
        >>> watch.checks(Binary(), features=["price", "weekday"])
        ['scores_stable', 'features_stable', 'calibrated_on_outcomes']
    """

    predictions: Asset
    join: Sequence[str]
    answers: Sequence[str]
    version: str
    features: Sequence[str] | None = None
    gaps: Sequence[str] = ()
    max_score_psi: float = 0.25
    max_feature_psi: float = 0.2
    on_outcomes: Bound | None = None
    retrain: RetrainOnDrift | None = None
    min_clusters: int = 20
    min_rows: int = 500
    min_requests: int = 500

    def evaluated_features(self, features: Sequence[str]) -> Sequence[str]:
        """Return the features of the model whose index is evaluated."""
        return self.features if self.features is not None else features

    def bound(self, kind: PredictionKind) -> Bound | None:
        """Return the bound that is evaluated on rows whose outcome is known; None without a bound."""
        if self.on_outcomes is not None or kind.calibration_metric is None:
            return self.on_outcomes
        return Bound(kind.calibration_metric, MAX_CALIBRATION_ERROR)

    def bounded_metric(self, kind: PredictionKind, metrics: Sequence[Metric]) -> Metric | None:
        """Return the metric of the bound, for a model with this kind of prediction and these metrics.

        Raises:
            ComparisonError: No metric has this name.
        """
        bound = self.bound(kind)
        if bound is None:
            return None
        if isinstance(bound.metric, Metric):
            return bound.metric
        own = {metric.name: metric for metric in metrics}
        return own[bound.metric] if bound.metric in own else kind.metric(bound.metric)

    def outcome_check(self, kind: PredictionKind) -> str | None:
        """Return the name of the check of outcomes; None without a bound."""
        bound = self.bound(kind)
        if bound is None:
            return None
        name = bound.metric.name if isinstance(bound.metric, Metric) else bound.metric
        return _OUTCOME_CHECKS.get(name, "accurate_on_outcomes")

    def checks(self, kind: PredictionKind, features: Sequence[str]) -> list[str]:
        """Return the names of all checks of predictions."""
        has_features = bool(self.evaluated_features(features) or self.gaps)
        outcomes = self.outcome_check(kind)
        return [
            SCORES_STABLE,
            *([FEATURES_STABLE] if has_features else []),
            *([outcomes] if outcomes is not None else []),
        ]

    def require_fits(self, model: "ReleasedModel", columns: Collection[str] | None) -> None:
        """Raise if the watch does not fit a model, whose rows have these columns; None if they are not known.

        Raises:
            WatchError: A field contradicts the model.
        """
        self._require_table(model.rows_partitions)
        self._require_columns(model.kind, columns)
        for field, names in (("features", self.evaluated_features(model.features)), ("gaps", self.gaps)):
            unknown = [name for name in names if name not in model.features]
            if unknown:
                raise WatchError(field, f"{unknown[0]!r} is not one of the features of the model")
        for field in ("max_score_psi", "max_feature_psi"):
            if not getattr(self, field) > 0:
                raise WatchError(field, f"{getattr(self, field)!r} is not above 0")
        for field in ("min_clusters", "min_rows", "min_requests"):
            if getattr(self, field) < 1:
                raise WatchError(field, f"{getattr(self, field)!r} is not at least 1")
        try:
            self.bounded_metric(model.kind, model.metrics)
        except ComparisonError as error:
            raise WatchError("on_outcomes", str(error).removesuffix(".")) from error

    def _require_table(self, partitions: dg.PartitionsDefinition | None) -> None:
        problem = several_problem(self.predictions)
        if problem is not None:
            raise WatchError("predictions", problem)
        own = self.predictions.partitions_def
        if own is not None and partitions is not None and not _are_alike(own, partitions):
            name = self.predictions.key.to_user_string()
            raise WatchError("predictions", f"{name} has other partitions than the rows; use theirs, or none")

    def _require_columns(self, kind: PredictionKind, columns: Collection[str] | None) -> None:
        for field in ("join", "answers"):
            names = getattr(self, field)
            if isinstance(names, str) or not names or len(set(names)) < len(names):
                raise WatchError(field, f"{names!r} is not a list of different columns")
        if len(self.answers) != len(kind.score_names):
            raise WatchError(
                "answers",
                f"{len(self.answers)} columns, and a prediction has {len(kind.score_names)}: "
                f"{', '.join(kind.score_names)}",
            )
        name = self.predictions.key.to_user_string()
        stored = declared_columns(self.predictions)
        for field, names in (("join", self.join), ("answers", self.answers), ("version", [self.version])):
            missing = [column for column in names if stored is not None and column not in stored]
            if missing:
                has = ", ".join(sorted(stored or ()))
                raise WatchError(field, f"{name} has no column {missing[0]!r}; it has {has}")
        missing = [column for column in self.join if columns is not None and column not in columns]
        if missing:
            has = ", ".join(sorted(columns or ()))
            raise WatchError("join", f"the rows have no column {missing[0]!r}; they have {has}")


def _are_alike(one: dg.PartitionsDefinition, other: dg.PartitionsDefinition) -> bool:
    """Return whether the keys of both are compatible; time partitions may begin and end at other times."""
    if isinstance(one, dg.TimeWindowPartitionsDefinition) and isinstance(
        other, dg.TimeWindowPartitionsDefinition
    ):
        return (one.cron_schedule, one.fmt) == (other.cron_schedule, other.fmt)
    return one == other
