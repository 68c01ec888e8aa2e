"""What is run together. When it is run: schedules.py."""

import dagster as dg

from assets.partitions import DAYS, MONTHS

_DAY_TABLES = dg.AssetSelection.assets("flights", "features")
_REFERENCE_TABLES = dg.AssetSelection.groups("reference")
_PREDICTIONS = dg.AssetSelection.assets("delay_predictions")

ingest_flights = dg.define_asset_job(
    "ingest_flights",
    selection=_REFERENCE_TABLES | _DAY_TABLES,
    partitions_def=DAYS,
    description="Read flights of one or more days and everything they refer to; build the features.",
)

train_delay_model = dg.define_asset_job(
    "train_delay_model",
    selection=dg.AssetSelection.groups("delay_model"),
    partitions_def=MONTHS,
    description="Train the model of a month, judge it on that month, and register it as staging.",
)

score_flights = dg.define_asset_job(
    "score_flights",
    selection=_PREDICTIONS,
    partitions_def=DAYS,
    description="Score the flights of one or more days with the model in use.",
)

replay_day = dg.define_asset_job(
    "replay_day",
    selection=_DAY_TABLES | _PREDICTIONS,
    partitions_def=DAYS,
    description="What happens every day: read the day's flights, build their features, score them.",
)

JOBS = [ingest_flights, train_delay_model, score_flights, replay_day]
