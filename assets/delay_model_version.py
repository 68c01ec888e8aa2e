"""Registers the evaluated model as a version, and declares how its versions are released."""

from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from assets import metrics, policies
from assets.delay_model import MODEL_NAME, TrainedModel, model_input
from assets.delay_model_evaluation import CARRIER_HOUR_RATE, MODEL, Evaluation
from assets.delay_watch import WATCH
from assets.features import FEATURES, LABEL, features
from assets.partitions import MONTHS, days_between, evaluation_days
from assets.predictions import delay_predictions
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.after_promotion import RunAgain
from ledgerline.dagster.released_models.declaration import Baseline, ReleasedModel
from ledgerline.dagster.released_models.registration import RegisteredVersion, register_version
from ledgerline.evaluation.kinds import Binary
from ledgerline.registry.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


@dg.asset(
    partitions_def=MONTHS,
    io_manager_key="records",
    retry_policy=policies.RETRY,
    pool=policies.REGISTRY_POOL,
    group_name="delay_model",
    kinds={"mlflow"},
    code_version="1",
)
def delay_model_version(
    context: dg.AssetExecutionContext,
    delay_model: TrainedModel,
    delay_model_evaluation: Evaluation,
    registry: ModelRegistryResource,
) -> RegisteredVersion:
    """Versions of `flight_delay` in the model registry, one for each evaluated model.

    The version records the SHA-256 of the model's files, its month and its provenance. It gets the alias
    `staging`, unless a version of a later month has it, since months may be backfilled in any order.
    """
    provenance = Provenance(
        partition=delay_model.month,
        trained_on=days_between(*map(date.fromisoformat, (delay_model.first_day, delay_model.last_day))),
        training_data_sha256=delay_model.data_sha256,
        details={"judged_data_sha256": delay_model_evaluation.data_sha256},
    )
    return register_version(
        context,
        registry,
        FLIGHT_DELAY,
        model_id=delay_model.model_id,
        provenance=provenance,
        metrics=delay_model_evaluation.scores[MODEL],
    )


def carrier_hour_rate(trained_on: "pd.DataFrame", rows: "pd.DataFrame") -> "pd.Series":
    """Predict the rate at which a carrier was late in the scheduled hour on the training days."""
    late = trained_on[LABEL].astype(bool)
    rates = metrics.carrier_hour_rates(trained_on, late)
    return metrics.carrier_hour_baseline(rows, rates, float(late.mean()))


FLIGHT_DELAY = ReleasedModel(
    name=MODEL_NAME,
    kind=Binary(),
    versions=delay_model_version,
    rows=features,
    outcome=LABEL,
    inputs=model_input,
    clusters="date",  # delays of flights on one day are correlated
    slices=("carrier", "origin"),
    features=FEATURES,
    evaluated_on=evaluation_days,
    baseline=Baseline(CARRIER_HOUR_RATE, carrier_hour_rate, Binary),
    after_promotion=RunAgain("score_flights", delay_predictions),
    watch=WATCH,
)
