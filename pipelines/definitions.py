"""Everything Dagster is told of this project. Wiring only, and the one module that acts at import."""

import warnings

import dagster as dg

# Backfill policies and time window mappings are in beta; the version of Dagster is pinned.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

from assets import (  # noqa: E402
    checks,
    delay_model,
    delay_model_evaluation,
    delay_model_version,
    features,
    flights,
    predictions,
    reference,
)
from pipelines.executors import executor_for  # noqa: E402
from pipelines.jobs import JOBS  # noqa: E402
from pipelines.schedules import SCHEDULES  # noqa: E402
from pipelines.sensors import SENSORS  # noqa: E402
from resources.environments import Settings, resources_for, set_library_defaults  # noqa: E402

set_library_defaults()
settings = Settings.from_environment()

ASSET_MODULES = [
    flights,
    reference,
    features,
    delay_model,
    delay_model_evaluation,
    delay_model_version,
    predictions,
]

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(ASSET_MODULES),
    asset_checks=dg.load_asset_checks_from_modules([checks]),
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources=resources_for(settings),
    executor=executor_for(settings.executor, settings.max_concurrent_steps),
)
