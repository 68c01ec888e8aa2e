"""Chooses the executor of steps by the setting LEDGERLINE_EXECUTOR."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from ledgerline.errors import LedgerlineError
from ledgerline.ledger.dagster_internals import EXECUTOR_MODULE, INSTANCE_MODULES, RetryMode
from ledgerline.settings.extras import MissingExtraError, require

if TYPE_CHECKING:
    from ledgerline.ledger.dagster_internals import MultiprocessExecutor

KUBERNETES = "kubernetes"

# The tag of steps that use a language model. The executor limits the number of such steps in one run, and
# dagster.yaml the number of runs with them. A pool would be slower, because a step that waits for a slot in a
# pool polls only every 15 seconds.
USES = "ledgerline/uses"
USES_LANGUAGE_MODEL = {USES: "language_model"}

# Modules that every step imports in addition to the definitions. They are imported once for each run: a step
# is then forked from a warm process in a tenth of a second, while a new interpreter needs seconds.
PRELOADED = (
    # Without preloading, opening the instance of a local deployment would import these in each step.
    *INSTANCE_MODULES,
    "upath.implementations.local",
    "ledgerline.dagster.storage.arrow_tables",
    "ledgerline.dagster.storage.parquet",
    "ledgerline.dagster.storage.partition_rows",
    "ledgerline.traces.step_tracing",
)

# Modules that only steps of these kinds import.
PRELOADED_FOR_KIND = {
    "scikitlearn": ("sklearn.ensemble", "sklearn.compose", "skops.io"),
    "ollama": (
        "ledgerline.agent.agent",
        "ledgerline.agent.query_tool",
        "ledgerline.agent.ollama_provider",
        "ollama",
        "duckdb",
    ),
    "mlflow": ("mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.figure"),
}


class ExecutorError(LedgerlineError):
    """Steps cannot be executed with the configured executor."""


@dg.executor(
    name="multiprocess",
    requirements=dg.multiple_process_executor_requirements(),
    config_schema={
        "max_concurrent": dg.Field(
            int, default_value=0, description="Maximum number of concurrent steps; 0 means one for each core."
        ),
        "tag_concurrency_limits": dg.Field(
            dg.Array({"key": str, "value": str, "limit": int}),
            default_value=[],
            description="Maximum number of concurrent steps with a tag.",
        ),
        "preloaded": dg.Field(
            dg.Array(str), default_value=[], description="Modules to preload, such as the definitions."
        ),
    },
)
def warm_multiprocess_executor(context: dg.InitExecutorContext) -> "MultiprocessExecutor":
    """Run each step in a process that is forked from a warm process with the modules of the job."""
    from ledgerline.ledger.dagster_internals import MultiprocessExecutor

    assets = context.job.get_definition().asset_layer
    kinds = {kind for key in assets.executable_asset_keys for kind in assets.get(key).kinds}
    modules = start_warm_process(kinds, cast("list[str]", context.executor_config["preloaded"]))
    return MultiprocessExecutor(
        retries=RetryMode.ENABLED,
        max_concurrent=int(str(context.executor_config["max_concurrent"])),
        tag_concurrency_limits=cast(
            "list[dict[str, Any]]", context.executor_config["tag_concurrency_limits"]
        ),
        start_method="forkserver",
        explicit_forkserver_preload=modules,
    )


def start_warm_process(
    kinds: Iterable[str] = tuple(PRELOADED_FOR_KIND), preloaded: Sequence[str] = ()
) -> list[str]:
    """Start the process that steps are forked from, and return the modules that it imports.

    They are those for assets of these kinds, and those that every step needs, such as the definitions
    (`preloaded`). Only the first call in a process has an effect.
    """
    from multiprocessing import forkserver

    modules = [EXECUTOR_MODULE, *preloaded, *PRELOADED]
    for kind in sorted(PRELOADED_FOR_KIND.keys() & set(kinds)):
        modules += PRELOADED_FOR_KIND[kind]
    forkserver.set_forkserver_preload(modules)
    forkserver.ensure_running()
    return modules


def executor_for(
    name: str, max_concurrent_steps: int, max_executions: int, preloaded: Sequence[str] = ()
) -> dg.ExecutorDefinition:
    """Return the executor of all jobs.

    Args:
        name: "multiprocess" (a forked process for each step), "multiprocess_spawn" (Dagster's executor with a
            new interpreter for each step, for platforms where forking is unsafe), "in_process", or
            "kubernetes" (a pod for each step).
        max_concurrent_steps: Maximum number of concurrent steps of a run; 0 means one for each core, and no
            limit for pods.
        max_executions: Maximum number of concurrent steps that use the language model.
        preloaded: Modules that every step needs, such as the definitions.

    Raises:
        ExecutorError: A package that the executor needs is not installed.

    Example:
        >>> executor = executor_for("multiprocess", max_concurrent_steps=4, max_executions=1)
        >>> dg.Definitions(executor=executor).executor.name
        'multiprocess'
    """
    if name == "in_process":
        return dg.in_process_executor
    limits = [{"key": USES, "value": USES_LANGUAGE_MODEL[USES], "limit": max_executions}]
    if name == KUBERNETES:
        return _pods(max_concurrent_steps, limits)
    config: dict[str, Any] = {"max_concurrent": max_concurrent_steps, "tag_concurrency_limits": limits}
    if name == "multiprocess_spawn":
        return dg.multiprocess_executor.configured(config, name="multiprocess")
    return warm_multiprocess_executor.configured(
        {**config, "preloaded": list(preloaded)}, name="multiprocess"
    )


def require_shared(data: str) -> None:
    """Refuse tables on the disk of one pod, because steps in other pods could not read them.

    Args:
        data: URL or folder of the tables. A folder counts as shared if it is on a mounted volume.

    Raises:
        ExecutorError: The folder is not on a mounted volume.
    """
    if "://" in data:
        return
    folder = Path(data)
    *above, _root = folder.parents
    if not any(place.is_mount() for place in (folder, *above)):
        raise ExecutorError(
            f"LEDGERLINE_EXECUTOR is {KUBERNETES}, so each step runs in another pod, and {data} is on the "
            "disk of this pod.",
            "Set LEDGERLINE_DATA to s3://bucket/prefix, to gs://bucket/prefix, or to a folder on a "
            "ReadWriteMany volume that is mounted in all pods.",
        )


def _pods(max_concurrent_steps: int, limits: list[dict[str, object]]) -> dg.ExecutorDefinition:
    """Return the executor that runs each step in a separate pod, which continues if the run's pod ends.

    A pod has the image, variables, volumes and permissions that the run launcher of the instance gives to
    runs.
    """
    try:
        require("kubernetes", f"LEDGERLINE_EXECUTOR={KUBERNETES}")
    except MissingExtraError as error:
        raise ExecutorError(error.problem, f"{error.remedy} Or choose another executor.") from error
    from ledgerline.dagster.kubernetes_steps import step_pods

    config: dict[str, Any] = {
        "retries": {"enabled": {}},
        "tag_concurrency_limits": limits,
        # Only the process of the run starts pods; a step does not need the API of Kubernetes.
        "step_k8s_config": {"pod_spec_config": {"automount_service_account_token": False}},
    }
    if max_concurrent_steps:
        config["max_concurrent"] = max_concurrent_steps
    return step_pods.configured(config, name=KUBERNETES)
