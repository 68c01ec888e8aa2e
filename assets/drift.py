"""How the flights scored in a month differ from those learned from. When that is too far: drift_checks.py."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import dagster as dg

from assets import metrics, plots, policies
from assets.delay_model import FEATURES_ASSET, MODEL_NAME, read_days, with_outcome
from assets.features import FEATURES, LABEL, WEATHER_FEATURES
from assets.flights import FLIGHT_KEY
from assets.learned_from import learned_from, warn_if_changed
from assets.partitions import MONTHS, TRAINING_MONTHS, judged_days
from assets.predictions import PREDICTIONS_SCHEMA
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.storage.io_managers import Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.evaluation.stability import population_stability_index, psi_table

if TYPE_CHECKING:
    import pandas as pd

DRIFT_ASSET = dg.AssetKey("delay_predictions_drift")
PREDICTIONS_ASSET = dg.AssetKey("delay_predictions")

# The weather of a month is never that of the months before it, and a model is meant to know that: in 2013
# the PSI of the temperature is 0.4 to 8.7. So of these columns only gaps are judged: the weather may change,
# but it must go on being reported. Where there are no gusts, there is no speed of gusts either.
SCHEDULE_FEATURES = tuple(name for name in FEATURES if name not in WEATHER_FEATURES)
REPORTED_WEATHER = tuple(name for name in WEATHER_FEATURES if name != "wind_gust")


@dataclass(frozen=True)
class PredictionsDrift:
    """How the flights scored in a month differ from what the model that scored them learned from.

    Attributes:
        month: The month.
        days: Days of it that were scored by the judged version.
        version: The judged version: of those that scored flights of the month, the one with most.
        flights: Flights it scored.
        flights_by_version: Flights that each version scored, by its number.
        first_training_day: First day the judged version learned from.
        last_training_day: Last day it learned from.
        training_rows: Flights it learned from.
        feature_psi: Population stability index of each feature.
        gaps_psi: The same of whether a feature of the weather is missing.
        score_psi: The same of the probabilities the version gives.
        mean_training_score: Mean probability it gives to the flights it learned from.
        mean_score: Mean probability it gave to flights of the month.
        days_with_outcome: Days of the month with flights whose outcome is known.
        flights_with_outcome: These flights; without any, all below is None.
        late_rate: Share of these that arrived late.
        mean_score_of_known: Mean probability it gave to these.
        calibration_error: Expected calibration error on these.
        brier: Brier score on these.
    """

    month: str
    days: int
    version: int
    flights: int
    flights_by_version: dict[str, int]
    first_training_day: str
    last_training_day: str
    training_rows: int
    feature_psi: dict[str, float]
    gaps_psi: dict[str, float]
    score_psi: float
    mean_training_score: float
    mean_score: float
    days_with_outcome: int
    flights_with_outcome: int
    late_rate: float | None
    mean_score_of_known: float | None
    calibration_error: float | None
    brier: float | None


@dg.asset(
    key=DRIFT_ASSET,
    partitions_def=MONTHS,
    io_manager_key="records",
    deps=[
        PREDICTIONS_ASSET,
        # Which days exactly were learned from, the version says; these are the usual ones, and the month.
        dg.AssetDep(
            FEATURES_ASSET,
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-TRAINING_MONTHS, end_offset=0, allow_nonexistent_upstream_partitions=True
            ),
        ),
    ],
    retry_policy=policies.RETRY,
    group_name="predictions",
    kinds={"pandas", "scikitlearn"},
    code_version="1",
)
def delay_predictions_drift(
    context: dg.AssetExecutionContext,
    tables: dg.ResourceParam[Tables],
    registry: ModelRegistryResource,
    otel: OTelResource,
) -> PredictionsDrift:
    """How the flights scored in a month differ from those that the model which scored them learned from.

    One partition for each month, over the days of it that are scored so far: the population stability
    index of each feature and of the probabilities and, for flights whose outcome is known by now, how
    the probabilities compare with what happened. If several versions scored flights of the month, the
    one that scored most of them is judged, on these.
    """
    month = context.partition_key
    with otel.span("read predictions"):
        flights = scored_flights(tables, month)
    by_version = flights_by_version(flights)
    number = next(iter(by_version))
    flights = flights[flights["model_version"] == number].reset_index(drop=True)
    version = registry.version(MODEL_NAME, number)
    learned = learned_from(version, tables, registry, otel)
    days = learned.days
    context.log.info(
        f"Comparing {len(flights):,} flights that version {number} scored with those from {days[0]} to "
        f"{days[-1]} that it learned from"
    )
    warn_if_changed(context, version, learned)
    with otel.span("compare", rows=len(learned.rows) + len(flights)):
        features = psi_table(learned.rows, flights, FEATURES)
        gaps = psi_table(learned.rows.isna(), flights.isna(), REPORTED_WEATHER)
        known = with_outcome(flights)
        outcomes = outcomes_of(known)
        drift = PredictionsDrift(
            month=month,
            days=flights["date"].nunique(),
            version=number,
            flights=len(flights),
            flights_by_version={str(each): count for each, count in by_version.items()},
            first_training_day=days[0],
            last_training_day=days[-1],
            training_rows=len(learned.rows),
            feature_psi=by_feature(features),
            gaps_psi=by_feature(gaps),
            score_psi=population_stability_index(learned.scores, flights["late_probability"]),
            mean_training_score=float(learned.scores.mean()),
            mean_score=float(flights["late_probability"].mean()),
            **asdict(outcomes),
        )
    numbers = {name: value for name, value in asdict(drift).items() if isinstance(value, int | float)}
    context.add_asset_metadata(
        {
            **numbers,
            "days_of_month": len(judged_days(month)),
            "flights_by_version": drift.flights_by_version,
            "learned_from": f"{days[0]} to {days[-1]}",
            "training_data": learned.as_recorded,
            "feature_psi": features_table(drift.feature_psi, drift.gaps_psi),
            "scores_plot": plots.as_markdown(plots.scores(learned.scores, flights["late_probability"])),
        }
    )
    if not known.empty:
        calibration = metrics.calibration(known[LABEL].astype(bool), known["late_probability"])
        picture = plots.as_markdown(plots.calibration(calibration))
        context.add_asset_metadata({"calibration_plot": picture})
    return drift


def scored_flights(tables: Tables, month: str) -> "pd.DataFrame":
    """The stored predictions of a month, with the features they were made from.

    Raises:
        PermanentFailure: No day of the month is scored, or features have other flights.
    """
    stored = set(tables.stored_partitions(PREDICTIONS_ASSET))
    days = [day for day in judged_days(month) if day in stored]
    if not days:
        raise PermanentFailure(
            f"No day of {month[:7]} has predictions.",
            "Run the job score_flights for days of that month first.",
        )
    predictions = tables.read(PREDICTIONS_ASSET, days, PREDICTIONS_SCHEMA)
    features = read_days(tables, days, f"{DRIFT_ASSET.to_user_string()} {month} compares")
    flights = predictions.merge(features, on=list(FLIGHT_KEY), how="inner", validate="one_to_one")
    if len(flights) < len(predictions):
        raise PermanentFailure(
            f"{len(predictions) - len(flights):,} of {len(predictions):,} scored flights of {month[:7]} are "
            "not in features any more.",
            f"Run the job score_flights again for {days[0]} to {days[-1]}.",
        )
    return flights


def flights_by_version(flights: "pd.DataFrame") -> dict[int, int]:
    """How many flights each version scored: most first, and of equally many the later version."""
    counts = flights["model_version"].value_counts().sort_index(ascending=False)
    counts = counts.sort_values(ascending=False, kind="stable")
    return {int(str(number)): int(count) for number, count in counts.items()}


@dataclass(frozen=True)
class Outcomes:
    """How probabilities compare with what happened; the fields are those of `PredictionsDrift`."""

    days_with_outcome: int = 0
    flights_with_outcome: int = 0
    late_rate: float | None = None
    mean_score_of_known: float | None = None
    calibration_error: float | None = None
    brier: float | None = None


def outcomes_of(known: "pd.DataFrame") -> Outcomes:
    """Compare probabilities with what happened, over flights whose outcome is known.

    Not `metrics.score`: its curves need flights of both outcomes, which one good day may not have.
    """
    if known.empty:
        return Outcomes()
    late, said = known[LABEL].astype(float), known["late_probability"]
    bins = metrics.calibration(late, said)
    gaps = (bins["predicted"] - bins["observed"]).abs()
    return Outcomes(
        days_with_outcome=known["date"].nunique(),
        flights_with_outcome=len(known),
        late_rate=float(late.mean()),
        mean_score_of_known=float(said.mean()),
        calibration_error=float((gaps * bins["flights"]).sum() / bins["flights"].sum()),
        brier=float(((said - late) ** 2).mean()),
    )


def by_feature(table: "pd.DataFrame") -> dict[str, float]:
    """A table of indices as a mapping in the same order."""
    return {str(name): float(psi) for name, psi in zip(table["feature"], table["psi"], strict=True)}


def features_table(feature_psi: Mapping[str, float], gaps_psi: Mapping[str, float]) -> dg.TableMetadataValue:
    """The index of each feature, for the Dagster UI."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "feature": name,
                    "psi": round(psi, 4),
                    "psi of gaps": round(gaps_psi[name], 4) if name in gaps_psi else "",
                    "judged by": judged_by(name),
                }
            )
            for name, psi in feature_psi.items()
        ]
    )


def judged_by(feature: str) -> str:
    """What the check of features looks at of a feature."""
    if feature in REPORTED_WEATHER:
        return "gaps"
    return "psi" if feature in SCHEDULE_FEATURES else "nothing"
