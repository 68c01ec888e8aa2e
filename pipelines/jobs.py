"""What is run together. When it is run: schedules.py. Jobs of a release come with its declaration."""

import dagster as dg

from ledgerline.dagster.executors import USES_LANGUAGE_MODEL

_DAY_TABLES = dg.AssetSelection.assets("flights", "features")
_REFERENCE_TABLES = dg.AssetSelection.groups("reference")
_MEMORY = dg.AssetSelection.assets("analyst_memory")
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

train_delay_minutes = dg.define_asset_job(
    "train_delay_minutes",
    selection=dg.AssetSelection.groups("delay_minutes"),
    description=(
        "Train the model of the minutes of a month, evaluate it on that month, and register it as staging."
    ),
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

evaluate_analyst = dg.define_asset_job(
    "evaluate_analyst",
    selection=dg.AssetSelection.groups("analyst") - _MEMORY,
    tags=USES_LANGUAGE_MODEL,
    description="Ask the analyst every question and judge its answers. Needs a server of language models.",
)

remember_reports = dg.define_asset_job(
    "remember_reports",
    selection=_MEMORY,
    description="Let the analyst remember the comparisons of models and the lineage that are new.",
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
