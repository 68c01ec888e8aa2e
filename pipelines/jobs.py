"""What is run together. When it is run: schedules.py."""

import dagster as dg

_DAY_TABLES = dg.AssetSelection.assets("flights", "features")
_REFERENCE_TABLES = dg.AssetSelection.groups("reference")
_PREDICTIONS = dg.AssetSelection.assets("delay_predictions")

ingest_flights = dg.define_asset_job(
    "ingest_flights",
    selection=_REFERENCE_TABLES | _DAY_TABLES,
    description="Read flights of one or more days and everything they refer to; build the features.",
)

train_delay_model = dg.define_asset_job(
    "train_delay_model",
    selection=dg.AssetSelection.groups("delay_model"),
    description="Train the model of a month, judge it on that month, and register it as staging.",
)

score_flights = dg.define_asset_job(
    "score_flights",
    selection=_PREDICTIONS,
    description="Score the flights of one or more days with the model in use.",
)

replay_day = dg.define_asset_job(
    "replay_day",
    selection=_DAY_TABLES | _PREDICTIONS,
    description="What happens every day: read the day's flights, build their features, score them.",
)

JOBS = [ingest_flights, train_delay_model, score_flights, replay_day]
