"""Declares jobs. Their schedules are in schedules.py; the jobs of a release come with its declaration."""

import dagster as dg

from ledgerline.dagster.executors import USES_LANGUAGE_MODEL

_DAY_TABLES = dg.AssetSelection.assets("flights", "features")
_REFERENCE_TABLES = dg.AssetSelection.groups("reference")
_MEMORY = dg.AssetSelection.assets("analyst_memory")
_PREDICTIONS = dg.AssetSelection.assets("delay_predictions")

ingest_flights = dg.define_asset_job(
    "ingest_flights",
    selection=_REFERENCE_TABLES | _DAY_TABLES,
    description="Read the flights of one or more days and the tables they refer to, and build the features.",
)

train_delay_model = dg.define_asset_job(
    "train_delay_model",
    selection=dg.AssetSelection.groups("delay_model"),
    description="Train the delay model for a month, evaluate it on that month, and register it as staging.",
)

train_delay_minutes = dg.define_asset_job(
    "train_delay_minutes",
    selection=dg.AssetSelection.groups("delay_minutes"),
    description=(
        "Train the delay minutes model for a month, evaluate it on that month, and register it as staging."
    ),
)

score_flights = dg.define_asset_job(
    "score_flights",
    selection=_PREDICTIONS,
    description="Predict the flights of one or more days with the model in production.",
)

replay_day = dg.define_asset_job(
    "replay_day",
    selection=_DAY_TABLES | _PREDICTIONS,
    description="Read the flights of a day, build their features and predict them, as every day.",
)

evaluate_analyst = dg.define_asset_job(
    "evaluate_analyst",
    selection=dg.AssetSelection.groups("analyst") - _MEMORY,
    tags=USES_LANGUAGE_MODEL,
    description="Let the analyst answer every question, and score its answers. It needs a language model.",
)

remember_reports = dg.define_asset_job(
    "remember_reports",
    selection=_MEMORY,
    description="Add new comparisons of models and new lineage to the analyst's memory.",
)

JOBS = [
    ingest_flights,
    train_delay_model,
    train_delay_minutes,
    score_flights,
    replay_day,
    evaluate_analyst,
    remember_reports,
]
