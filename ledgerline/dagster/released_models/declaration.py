"""The declaration of a released model: all that its gates, its promotion and its history need to know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from ledgerline.dagster.released_models.after_promotion import RunAgain
from ledgerline.dagster.released_models.baselines import constant
from ledgerline.dagster.released_models.holdout import Holdout
from ledgerline.dagster.released_models.named_assets import Asset, declared_columns, several_problem
from ledgerline.dagster.released_models.names import ReleaseNames
from ledgerline.dagster.released_models.translator import ReleaseTranslator
from ledgerline.dagster.released_models.watch import Watch, WatchError
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.policy import Policy, default_policy
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError

if TYPE_CHECKING:
    import pandas as pd


class DeclarationError(ValueError):
    """A declaration contradicts itself; the message names the model and the field."""


@dataclass(frozen=True)
class Baseline:
    """A simple prediction that stands in for production as long as there is none.

    Attributes:
        name: Its name in texts.
        answer: Takes the rows that staging was trained on, and the rows to predict; returns what a model
            would answer to the latter.
        kind: The kind of prediction that it makes; None: whichever the model makes.
    """

    name: str
    answer: "Callable[[pd.DataFrame, pd.DataFrame], Any]"
    kind: type[PredictionKind] | None = None


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A model whose versions go through staging, gates and production.

    Attributes:
        name: The registered model in MLflow.
        kind: What it predicts: Binary(), Multiclass(...), Regression() or Quantiles(...).
        versions: The asset that registers its versions (registration.register_version).
        rows: The asset with the rows that versions are trained and evaluated on.
        outcome: The column of the rows that is predicted. Rows without a value there are left out.
        inputs: Makes of rows what a model takes, with columns as a client sends them.
        clusters: What rows share that is not in them, as orders of one day share the weather: a column, or a
            function that gives each row its label. Rows are drawn in whole clusters. None: nothing.
        read: Reads the rows of some partitions, where they are more than what the asset `rows` stores;
            default: by its IO manager.
        evaluated_on: The partitions of the rows that the version of a partition is evaluated on; default: the
            partition of the same key. A version that records its own (tag `evaluated_on`) goes by that.
        holdout: Of rows without partitions, those that are kept for evaluation.
        slices: Columns of the rows; the answers to no value of them may become noticeably worse.
        features: Columns of the rows whose change since production was trained is reported.
        baseline: What stands in for production as long as there is none; default: a constant, made of the
            outcomes that staging was trained on.
        policy: The gates that a version must pass; default: those for its kind.
        metrics: Further metrics to compare by, beside those of the kind.
        after_promotion: What runs when another version is in production.
        watch: How the drift of its predictions and requests is watched; None: it is not.
        translator: Makes names and specs.
    """

    name: str
    kind: PredictionKind
    versions: Asset
    rows: Asset
    outcome: str
    inputs: "Callable[[pd.DataFrame], pd.DataFrame]"
    clusters: "str | Callable[[pd.DataFrame], pd.Series] | None"
    read: "Callable[[dg.AssetExecutionContext, Sequence[str]], pd.DataFrame] | None" = None
    evaluated_on: Callable[[str], Sequence[str]] = field(default=lambda key: [key])
    holdout: Holdout | None = None
    slices: Sequence[str] = ()
    features: Sequence[str] = ()
    baseline: Baseline | None = None
    policy: Policy | None = None
    metrics: Sequence[Metric] = ()
    after_promotion: RunAgain | None = None
    watch: Watch | None = None
    translator: ReleaseTranslator = field(default_factory=ReleaseTranslator)

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise DeclarationError(f"name is {self.name!r}; give the registered model in MLflow.")
        for name in ("versions", "rows"):
            self._require_one_asset(name)
        self._require_columns()
        self._require_partitions()
        self._require_gates()
        self._require_watch()
        kind = self.stand_in.kind
        if kind is not None and not isinstance(self.kind, kind):
            self._refuse(
                "baseline", f"{self.stand_in.name} predicts {kind.__name__}, the model {self.kind!r}"
            )

    @property
    def evaluated_by(self) -> Policy:
        """The policy that versions are judged by."""
        return self.policy if self.policy is not None else default_policy(self.kind)

    @property
    def stand_in(self) -> Baseline:
        """The baseline that stands in for production."""
        return self.baseline if self.baseline is not None else Baseline("constant", self._constant)

    @property
    def names(self) -> ReleaseNames:
        """The names of all that is made for it."""
        return self.translator.names(self)

    @property
    def rows_key(self) -> dg.AssetKey:
        """The asset key of its rows."""
        return self.rows.key

    @property
    def versions_key(self) -> dg.AssetKey:
        """The asset key of its versions."""
        return self.versions.key

    @property
    def rows_partitions(self) -> dg.PartitionsDefinition | None:
        """The partitions of its rows."""
        return self.rows.partitions_def

    @property
    def drift_partitions(self) -> dg.PartitionsDefinition | None:
        """The partitions of the drift of its predictions: those of its versions, if its rows have some."""
        return self.versions.partitions_def if self.rows_partitions is not None else None

    def clusters_of(self, rows: "pd.DataFrame") -> "pd.Series | list[int]":
        """Return the cluster of each row."""
        if self.clusters is None:
            return list(range(len(rows)))
        return rows[self.clusters] if isinstance(self.clusters, str) else self.clusters(rows)

    def _constant(self, trained_on: "pd.DataFrame", rows: "pd.DataFrame") -> Any:
        return constant(self.kind, self.kind.outcomes(trained_on[self.outcome]), len(rows))

    def _require_one_asset(self, name: str) -> None:
        problem = several_problem(getattr(self, name))
        if problem is not None:
            self._refuse(name, problem)

    def _require_columns(self) -> None:
        known = declared_columns(self.rows)
        if known is None or self.read is not None:
            return
        named = {"outcome": [self.outcome], "slices": self.slices, "features": self.features}
        if isinstance(self.clusters, str):
            named["clusters"] = [self.clusters]
        if self.holdout is not None:
            named["holdout"] = self.holdout.by
        for name, columns in named.items():
            missing = [column for column in columns if column not in known]
            if missing:
                self._refuse(
                    name,
                    f"{self.rows_key.to_user_string()} has no column {missing[0]!r}; it has "
                    f"{', '.join(sorted(known))}",
                )

    def _require_partitions(self) -> None:
        if self.rows_partitions is None and self.holdout is None:
            self._refuse(
                "holdout",
                f"{self.rows_key.to_user_string()} has no partitions, so that it must be said which rows "
                "are kept for evaluation: holdout=Holdout(share=0.2, by=[...])",
            )
        if self.rows_partitions is not None and self.holdout is not None:
            self._refuse(
                "holdout", f"{self.rows_key.to_user_string()} has partitions, by which rows are kept apart"
            )

    def _require_gates(self) -> None:
        try:
            self.evaluated_by.require_fits(self.kind)
        except (ValueError, ComparisonError) as error:
            self._refuse("policy", str(error))
        known = [metric.name for metric in (*self.evaluated_by.metrics(self.kind), *self.metrics)]
        twice = sorted({name for name in known if known.count(name) > 1})
        if twice:
            self._refuse("metrics", f"two metrics have the name {twice[0]!r}")

    def _require_watch(self) -> None:
        if self.watch is None:
            return
        known = None if self.read is not None else declared_columns(self.rows)
        try:
            self.watch.require_fits(self.kind, self.rows_partitions, known, self.features, self.metrics)
        except WatchError as error:
            self._refuse(f"watch.{error.field}", error.why)
        in_time = isinstance(self.versions.partitions_def, dg.TimeWindowPartitionsDefinition)
        if self.watch.retrain is not None and not (in_time and self.rows_partitions is not None):
            versions = self.versions_key.to_user_string()
            self._refuse("watch.retrain", f"{versions} has no partitions of time, or the rows have none")

    def _refuse(self, name: str, why: str) -> None:
        raise DeclarationError(f"Released model {self.name!r}: {name}: {why}.")
