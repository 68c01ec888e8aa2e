"""Where the steps of a run are executed, by one setting."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from assets.policies import USES, USES_LANGUAGE_MODEL

if TYPE_CHECKING:
    from dagster._core.executor.multiprocess import MultiprocessExecutor

# What every step imports, paid once for each run: a step is then forked from a warm process in a
# tenth of a second, where a fresh interpreter needs seconds.
PRELOADED = (
    "pipelines.definitions",
    # The instance of a local deployment; opening it would import these in each step.
    "dagster._core.storage.sqlite_storage",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.launcher.default_run_launcher",
    "dagster._core.instance.factory",
    "upath.implementations.local",
    "pandas",
    "pyarrow.parquet",
    "observability.step_tracing",
)

# And what only steps of these kinds import.
PRELOADED_FOR_KIND = {
    "scikitlearn": ("sklearn.ensemble", "sklearn.compose", "skops.io"),
    "ollama": ("agent.agent", "agent.query_tool", "agent.ollama_provider", "ollama", "duckdb"),
    "mlflow": ("mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.figure"),
}


@dg.executor(
    name="multiprocess",
    requirements=dg.multiple_process_executor_requirements(),
    config_schema={
        "max_concurrent": dg.Field(
            int, default_value=0, description="Steps at the same time; 0 means one for each core."
        ),
        "tag_concurrency_limits": dg.Field(
            dg.Array({"key": str, "value": str, "limit": int}),
            default_value=[],
            description="Steps with a tag at the same time.",
        ),
    },
)
def warm_multiprocess_executor(context: dg.InitExecutorContext) -> "MultiprocessExecutor":
    """Each step in a process of its own, forked from one that has imported what the job needs."""
    from dagster._core.execution.retries import RetryMode
    from dagster._core.executor.multiprocess import MultiprocessExecutor

    assets = context.job.get_definition().asset_layer
    kinds = {kind for key in assets.executable_asset_keys for kind in assets.get(key).kinds}
    modules = start_warm_process(kinds)
    return MultiprocessExecutor(
        retries=RetryMode.ENABLED,
        max_concurrent=int(str(context.executor_config["max_concurrent"])),
        tag_concurrency_limits=cast(
            "list[dict[str, Any]]", context.executor_config["tag_concurrency_limits"]
        ),
        start_method="forkserver",
        explicit_forkserver_preload=modules,
    )


def start_warm_process(kinds: Iterable[str] = tuple(PRELOADED_FOR_KIND)) -> list[str]:
    """Start importing now what steps of these kinds need, while this process goes on.

    The first call in a process decides; later ones find it running.

    Returns:
        The modules that are imported.
    """
    from multiprocessing import forkserver

    modules = ["dagster._core.executor.multiprocess", *PRELOADED]
    for kind in sorted(PRELOADED_FOR_KIND.keys() & set(kinds)):
        modules += PRELOADED_FOR_KIND[kind]
    forkserver.set_forkserver_preload(modules)
    forkserver.ensure_running()
    return modules


def executor_for(name: str, max_concurrent_steps: int, max_executions: int) -> dg.ExecutorDefinition:
    """The executor of all jobs.

    Args:
        name: "multiprocess" (a forked process for each step), "multiprocess_spawn" (Dagster's own: a
            fresh interpreter for each step, for platforms where forking is unsafe), or "in_process".
        max_concurrent_steps: Steps of one run at the same time; 0 means one for each core.
        max_executions: Of these, how many may be with the language model.
    """
    if name == "in_process":
        return dg.in_process_executor
    executor = dg.multiprocess_executor if name == "multiprocess_spawn" else warm_multiprocess_executor
    limits = [{"key": USES, "value": USES_LANGUAGE_MODEL[USES], "limit": max_executions}]
    return executor.configured(
        {"max_concurrent": max_concurrent_steps, "tag_concurrency_limits": limits}, name="multiprocess"
    )
