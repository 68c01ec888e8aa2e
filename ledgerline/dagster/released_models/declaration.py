"""The declaration of a released model, from which its gates, jobs, sensors and assets are made."""

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
from ledgerline.errors import LedgerlineError
from ledgerline.evaluation.metrics import Metric
from ledgerline.evaluation.policy import Policy, default_policy
from ledgerline.evaluation.prediction_kind import PredictionKind
from ledgerline.evaluation.samples import ComparisonError

if TYPE_CHECKING:
    import pandas as pd


class DeclarationError(LedgerlineError):
    """A declaration of a released model contradicts itself."""


@dataclass(frozen=True)
class Baseline:
    """A simple prediction that takes the place of production until a version is in production.

    Attributes:
        name: Name of the baseline in texts.
        answer: Function of the training rows of staging and the rows to predict; it returns predictions as a
            model would.
        kind: Kind of prediction that it makes; None for any kind.
    """

    name: str
    answer: "Callable[[pd.DataFrame, pd.DataFrame], Any]"
    kind: type[PredictionKind] | None = None


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A model whose versions go through staging, gates and production.

    `released` makes the assets, checks, jobs and sensors for it.

    Attributes:
        name: Name of the registered model in MLflow.
        kind: Kind of prediction: Binary(), Multiclass(...), Regression() or Quantiles(...).
        versions: Asset that registers its versions (registration.register_version).
        rows: Asset with the rows that versions are trained and evaluated on.
        outcome: Column of the rows that is predicted. Rows without a value there are left out.
        inputs: Function that turns rows into inputs of the model, with columns as a client sends them.
        clusters: Column, or function that labels each row, for rows that are not independent, such as orders
            of one day. The bootstrap draws whole clusters. None for independent rows.
        read: Function that reads the rows of some partitions, if the model needs more than the asset `rows`
            stores. Default: the IO manager of the asset.
        evaluated_on: Function that returns the partitions of the rows that the version of a partition is
            evaluated on. Default: the partition of the same key. The tag `evaluated_on` of a version takes
            precedence.
        holdout: Rows that are kept for evaluation, if the rows have no partitions.
        slices: Columns of the rows; predictions may not become noticeably worse for any of their values.
        features: Columns of the rows whose change since production was trained is reported.
        baseline: Prediction that takes the place of production until a version is in production. Default: a
            constant, computed from the training outcomes of staging.
        policy: Gates that a version must pass. Default: those for its kind.
        metrics: Metrics to compare by, in addition to those of the kind.
        after_promotion: Job that runs when another version is in production.
        watch: Watch of the drift of its predictions and requests; None for no watch.
        translator: Translator that makes names and specs.

    Example:
        >>> from ledgerline.dagster.released_models.holdout import Holdout
        >>> from ledgerline.dagster.released_models.released import released
        >>> from ledgerline.evaluation.kinds import Regression
        >>> demand = ReleasedModel(
        ...     name="demand",
        ...     kind=Regression(),
        ...     versions=dg.AssetSpec("demand_version"),
        ...     rows=dg.AssetSpec("orders"),
        ...     outcome="quantity",
        ...     inputs=lambda rows: rows[["price", "weekday"]],
        ...     clusters=None,
        ...     holdout=Holdout(share=0.2, by=["customer"]),
        ... )
        >>> [job.name for job in released(demand).jobs]
        ['compare_demand', 'promote_demand', 'release_demand']
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
            raise DeclarationError(
                f"The name of a released model is {self.name!r}.", "Name the registered model in MLflow."
            )
        for name, asset in (("versions", self.versions), ("rows", self.rows)):
            if problem := several_problem(asset):
                self._refuse(name, problem)
        self._require_columns()
        self._require_partitions()
        self._require_gates()
        self._require_watch()
        kind = self.stand_in.kind
        if kind is not None and not isinstance(self.kind, kind):
            self._refuse(
                "baseline",
                f"{self.stand_in.name} predicts {kind.__name__}, and the model predicts {self.kind!r}",
            )

    @property
    def evaluated_by(self) -> Policy:
        """The policy that versions are evaluated by."""
        return self.policy if self.policy is not None else default_policy(self.kind)

    @property
    def stand_in(self) -> Baseline:
        """The baseline that takes the place of production."""
        return self.baseline if self.baseline is not None else Baseline("constant", self._constant)

    @property
    def names(self) -> ReleaseNames:
        """The names of the assets, jobs and sensors that are made for the model."""
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
        """The partitions of its predictions' drift: those of its versions, if its rows have partitions."""
        return self.versions.partitions_def if self.rows_partitions is not None else None

    def clusters_of(self, rows: "pd.DataFrame") -> "pd.Series | list[int]":
        """Return the cluster of each row."""
        if self.clusters is None:
            return list(range(len(rows)))
        return rows[self.clusters] if isinstance(self.clusters, str) else self.clusters(rows)

    def _constant(self, trained_on: "pd.DataFrame", rows: "pd.DataFrame") -> Any:
        return constant(self.kind, self.kind.outcomes(trained_on[self.outcome]), len(rows))

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
                f"{self.rows_key.to_user_string()} has no partitions, so the declaration must name the rows "
                "that are kept for evaluation: holdout=Holdout(share=0.2, by=[...])",
            )
        if self.rows_partitions is not None and self.holdout is not None:
            self._refuse(
                "holdout",
                f"{self.rows_key.to_user_string()} has partitions, which separate training from evaluation",
            )

    def _require_gates(self) -> None:
        try:
            self.evaluated_by.require_fits(self.kind)
        except (ValueError, ComparisonError) as error:
            self._refuse("policy", str(error))
        names = [metric.name for metric in (*self.evaluated_by.metrics(self.kind), *self.metrics)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            self._refuse("metrics", f"two metrics have the name {twice[0]!r}")

    def _require_watch(self) -> None:
        if self.watch is None:
            return
        known = None if self.read is not None else declared_columns(self.rows)
        try:
            self.watch.require_fits(self, known)
        except WatchError as error:
            self._refuse(f"watch.{error.field}", error.why)
        in_time = isinstance(self.versions.partitions_def, dg.TimeWindowPartitionsDefinition)
        if self.watch.retrain is not None and not (in_time and self.rows_partitions is not None):
            versions = self.versions_key.to_user_string()
            self._refuse(
                "watch.retrain", f"{versions} has no time partitions, or the rows have no partitions"
            )

    def _refuse(self, name: str, why: str) -> None:
        raise DeclarationError(f"Released model {self.name!r}: {name}: {why}.")
