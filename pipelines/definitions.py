"""Assembles the Dagster definitions of this project. No other module has effects at import."""

import gc

import dagster as dg

from ledgerline.dagster.settings import Settings, set_library_defaults
from resources.wiring import resources_for

# Objects from the import of Dagster are never freed. After gc.freeze(), the garbage collector does not search
# them while the other modules are loaded. It also does not write to their memory pages, which would copy the
# pages in steps that are forked from this process.
gc.freeze()

# This precedes the import of the assets, because their declarations use beta features that warn.
set_library_defaults()

from assets import (  # noqa: E402
    analyst_answers,
    analyst_checks,
    analyst_memory,
    analyst_questions,
    analyst_scores,
    checks,
    delay_minutes,
    delay_model,
    delay_model_evaluation,
    delay_model_version,
    features,
    flights,
    predictions,
    reference,
)
from ledgerline.dagster.executors import KUBERNETES, executor_for, require_shared  # noqa: E402
from ledgerline.dagster.observed import observed  # noqa: E402
from ledgerline.dagster.released_models.released import released  # noqa: E402
from pipelines.jobs import JOBS  # noqa: E402
from pipelines.schedules import SCHEDULES  # noqa: E402
from pipelines.sensors import SENSORS  # noqa: E402

ASSET_MODULES = [
    flights,
    reference,
    features,
    delay_model,
    delay_model_evaluation,
    delay_model_version,
    delay_minutes,
    predictions,
    analyst_questions,
    analyst_answers,
    analyst_scores,
    analyst_memory,
]

CHECK_MODULES = [checks, analyst_checks]


def build_definitions(settings: Settings, executor: dg.ExecutorDefinition) -> dg.Definitions:
    """Return the definitions of the project with the resources that the settings describe."""
    project = dg.Definitions(
        assets=dg.load_assets_from_modules(ASSET_MODULES),
        asset_checks=dg.load_asset_checks_from_modules(CHECK_MODULES),
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources=resources_for(settings),
        executor=executor,
    )
    return dg.Definitions.merge(
        project, released(delay_model_version.FLIGHT_DELAY, delay_minutes.DELAY_MINUTES), observed(settings)
    )


settings = Settings.from_environment()
if settings.executor == KUBERNETES:
    require_shared(settings.data)
defs = build_definitions(
    settings,
    executor_for(settings.executor, settings.max_concurrent_steps, settings.agent.executions, [__name__]),
)
