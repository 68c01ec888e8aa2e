"""How what the service is really asked differs from what its model learned from, and when that is too far.

Drift of the flights that are scored by day: drift.py.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from assets import plots, policies
from assets.delay_model import MODEL_NAME, model_input
from assets.drift import REPORTED_WEATHER, by_feature, features_table
from assets.drift_checks import MOST_SCORE_PSI, SCORES_STABLE
from assets.features import FEATURES
from assets.learned_from import learned_from, warn_if_changed
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.request_log import RequestLogResource, require_logged
from ledgerline.dagster.storage.io_managers import Records, Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.evaluation.stability import population_stability_index, psi_table
from ledgerline.registry.stages import PRODUCTION
from ledgerline.registry.versions import Version
from ledgerline.requests.logged_rows import inputs_of, outputs_of, redacted_columns

if TYPE_CHECKING:
    import pandas as pd

REQUESTS_DRIFT_ASSET = dg.AssetKey("delay_requests_drift")

WEEK_HOURS = 24 * 7

# The latest rows say enough: by chance alone the index of so many is below 0.001.
MOST_ROWS = 200_000

# By chance alone the index of ten bins is about 9 divided by the number of rows: of so few, 0.02.
LEAST_REQUESTS = 500


class RequestsDriftConfig(dg.Config):
    """Which requests are compared."""

    since_hours: int = Field(
        default=WEEK_HOURS, ge=1, description="Requests that came in so many hours before the run."
    )


@dataclass(frozen=True)
class RequestsDrift:
    """How requests to a version differ from what it learned from.

    Attributes:
        version: The version in production.
        since: From when on requests were looked at (ISO 8601).
        until: Until when.
        requests: Requests that it answered.
        flights: Flights they ask about.
        is_cut: Whether there may be more: so many are enough.
        first_training_day: First day it learned from.
        last_training_day: Last day it learned from.
        training_rows: Flights it learned from.
        feature_psi: Population stability index of each feature.
        gaps_psi: The same of whether a feature of the weather is missing.
        not_logged: Features that are left out of the log on purpose, and so are in none of these.
        score_psi: The same of the probabilities that it answered.
        mean_training_score: Mean probability it gives to the flights it learned from.
        mean_score: Mean probability it answered.
    """

    version: int
    since: str
    until: str
    requests: int
    flights: int
    is_cut: bool
    first_training_day: str
    last_training_day: str
    training_rows: int
    feature_psi: dict[str, float]
    gaps_psi: dict[str, float]
    not_logged: list[str]
    score_psi: float
    mean_training_score: float
    mean_score: float


@dg.asset(
    key=REQUESTS_DRIFT_ASSET,
    io_manager_key="records",
    deps=["features", "production_flight_delay"],
    retry_policy=policies.RETRY,
    group_name="predictions",
    kinds={"pandas", "scikitlearn"},
    code_version="1",
)
def delay_requests_drift(
    context: dg.AssetExecutionContext,
    config: RequestsDriftConfig,
    *,
    tables: dg.ResourceParam[Tables],
    registry: ModelRegistryResource,
    request_log: RequestLogResource,
    otel: OTelResource,
) -> RequestsDrift:
    """How the flights that the service is asked about differ from those that its model learned from.

    Of the requests of the last days (a week, unless configured otherwise) that the version in production
    answered: the population stability index of each feature and of the probabilities. What is asked may
    differ from what is scored by day, and from what clients mean to ask: a column in another unit shows here.
    """
    until = datetime.now(UTC)
    since = until - timedelta(hours=config.since_hours)
    version = in_production(registry)
    with otel.span("read requests"):
        logged = request_log.read(MODEL_NAME, since, until, enough=MOST_ROWS + 1)
        asked = answered_by(logged, version)
    learned = learned_from(version, tables, registry, otel)
    warn_if_changed(context, version, learned)
    with otel.span("compare", rows=len(learned.rows) + len(asked)):
        inputs, scores = inputs_of(asked), scores_in(asked)
        redacted = redacted_columns(logged)
        not_logged = [name for name in FEATURES if f"input.{name}" in redacted or name not in inputs]
        # Both as the model takes them: a client may send 5 where the table has 5.0.
        before = model_input(learned.rows)
        now = model_input(inputs.reindex(columns=list(FEATURES)))
        compared = [name for name in FEATURES if name not in not_logged]
        weather = [name for name in REPORTED_WEATHER if name in compared]
        drift = RequestsDrift(
            version=version.number,
            since=since.isoformat(timespec="seconds"),
            until=until.isoformat(timespec="seconds"),
            requests=len(asked[["at", "request_id"]].drop_duplicates()),
            flights=len(asked),
            is_cut=len(logged) > MOST_ROWS,
            first_training_day=learned.days[0],
            last_training_day=learned.days[-1],
            training_rows=len(learned.rows),
            feature_psi=by_feature(psi_table(before, now, compared)),
            gaps_psi=by_feature(psi_table(before.isna(), now.isna(), weather)),
            not_logged=not_logged,
            score_psi=population_stability_index(learned.scores, scores),
            mean_training_score=float(learned.scores.mean()),
            mean_score=float(scores.mean()),
        )
    context.add_asset_metadata(
        {
            **{name: value for name, value in asdict(drift).items() if isinstance(value, int | float | str)},
            "training_data": learned.as_recorded,
            "not_logged": ", ".join(not_logged) or "none",
            "feature_psi": features_table(drift.feature_psi, drift.gaps_psi),
            "scores_plot": plots.as_markdown(plots.scores(learned.scores, scores)),
        }
    )
    return drift


@dg.asset_check(
    asset=REQUESTS_DRIFT_ASSET,
    name=SCORES_STABLE,
    description="The probabilities answered are spread about as they are over the flights learned from.",
)
def requests_scores_stable(records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    """Whether what is asked needs somebody's attention; of few requests nothing is said."""
    drift = records.read(REQUESTS_DRIFT_ASSET, None, RequestsDrift)
    metadata = {"version": drift.version, "requests": drift.requests, "score_psi": drift.score_psi}
    if drift.requests < LEAST_REQUESTS:
        text = f"Not judged: {drift.requests} requests; fewer than {LEAST_REQUESTS} differ by chance alone"
        return dg.AssetCheckResult(passed=True, description=text, metadata=metadata)
    return dg.AssetCheckResult(
        passed=drift.score_psi <= MOST_SCORE_PSI,
        # Every fourth week has weather that does this to a model that is as good as ever.
        severity=dg.AssetCheckSeverity.WARN,
        description=f"PSI {drift.score_psi:.3f} of the probabilities in {drift.requests:,} requests, at most "
        f"{MOST_SCORE_PSI} is stable: the mean is {drift.mean_score:.3f}, over the flights learned from it "
        f"is {drift.mean_training_score:.3f}",
        metadata=metadata,
    )


def in_production(registry: ModelRegistryResource) -> Version:
    """The version whose requests are looked at.

    Raises:
        PermanentFailure: There is none.
    """
    version = registry.version_with_alias(MODEL_NAME, PRODUCTION)
    if version is None:
        raise PermanentFailure(
            f"No version of {MODEL_NAME} carries the alias {PRODUCTION}.",
            "Promote one with the job release_flight_delay, and let `ledgerline serve` answer requests.",
        )
    return version


def answered_by(logged: "pd.DataFrame", version: Version) -> "pd.DataFrame":
    """The rows that a version answered.

    Raises:
        PermanentFailure: There are none, or its answers are left out on purpose.
    """
    require_logged(logged, [])
    rows = logged[logged["version"] == version.number].reset_index(drop=True)
    if rows.empty:
        raise PermanentFailure(
            f"No request since then was answered by version {version.number} of {MODEL_NAME}, which is in "
            "production.",
            "Let it answer some, or look further back with since_hours.",
        )
    return rows


def scores_in(asked: "pd.DataFrame") -> "pd.Series":
    """The probabilities of being late that were answered.

    Raises:
        PermanentFailure: The answers are no probabilities of two classes.
    """
    import pandas as pd

    answers = outputs_of(asked).get("")
    if answers is None or answers.ndim != 2 or answers.shape[1] != 2:
        raise PermanentFailure(
            "What was answered are no probabilities of two classes.",
            f"Look at requests that a version of {MODEL_NAME} answered which gives these.",
        )
    return pd.Series(answers[:, 1], name="late_probability")
