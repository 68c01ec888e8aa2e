"""Where the steps of a run are executed, by one setting."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from ledgerline.ledger.dagster_internals import EXECUTOR_MODULE, INSTANCE_MODULES, RetryMode
from ledgerline.settings.extras import MissingExtraError, require

if TYPE_CHECKING:
    from ledgerline.ledger.dagster_internals import MultiprocessExecutor

KUBERNETES = "kubernetes"

# Steps that ask a language model: some of a run at a time, and one run at a time (dagster.yaml). Not a pool:
# steps that wait for a place in one look again after up to 15 seconds only.
USES = "ledgerline/uses"
USES_LANGUAGE_MODEL = {USES: "language_model"}

# Modules that every step imports beside the definitions, paid once for each run: a step is then forked from a
# warm process in a tenth of a second, where a fresh interpreter needs seconds.
PRELOADED = (
    # The instance of a local deployment; opening it would import these in each step.
    *INSTANCE_MODULES,
    "upath.implementations.local",
    "pandas",
    "pyarrow.parquet",
    "ledgerline.traces.step_tracing",
)

# And what only steps of these kinds import.
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


class ExecutorError(Exception):
    """Steps cannot be executed as the settings say; the message says what to do."""


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
        "preloaded": dg.Field(
            dg.Array(str), default_value=[], description="Modules that every step needs: the definitions."
        ),
    },
)
def warm_multiprocess_executor(context: dg.InitExecutorContext) -> "MultiprocessExecutor":
    """Each step in a process of its own, forked from one that has imported what the job needs."""
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
    """Start importing now what steps of these kinds need, while this process goes on.

    The first call in a process decides; later ones find it running.

    Args:
        kinds: Those of the assets.
        preloaded: Modules that every step needs: the definitions.

    Returns:
        The modules that are imported.
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
    """The executor of all jobs.

    Args:
        name: "multiprocess" (a forked process for each step), "multiprocess_spawn" (Dagster's own: a
            fresh interpreter for each step, for platforms where forking is unsafe), "in_process", or
            "kubernetes" (a pod for each step).
        max_concurrent_steps: Steps of one run at the same time; 0 means one for each core, and as pods as
            many as there are.
        max_executions: Of these, how many may be with the language model.
        preloaded: Modules that every step needs: the definitions.

    Raises:
        ExecutorError: What it needs is not installed.
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
    """Refuse tables that only one pod has: the next step, in another one, would not find them.

    Args:
        data: URL or folder of the tables. A folder is taken to be shared if something is mounted there.

    Raises:
        ExecutorError: Nothing is.
    """
    if "://" in data:
        return
    folder = Path(data)
    *above, _root = folder.parents
    if not any(place.is_mount() for place in (folder, *above)):
        raise ExecutorError(
            f"LEDGERLINE_EXECUTOR is {KUBERNETES}, so each step is a pod of its own, and {data} is on the "
            "disk of this one alone. Set LEDGERLINE_DATA to s3://bucket/prefix, to gs://bucket/prefix, or to "
            "a folder on a ReadWriteMany volume that is mounted in all of them."
        )


def _pods(max_concurrent_steps: int, limits: list[dict[str, object]]) -> dg.ExecutorDefinition:
    """Each step in a pod of its own, which goes on when its run's pod is gone.

    Image, variables, volumes and rights are those that the instance's run launcher gives to runs.
    """
    try:
        require("kubernetes", f"LEDGERLINE_EXECUTOR={KUBERNETES}")
    except MissingExtraError as error:
        raise ExecutorError(f"{error.problem} {error.remedy} Or choose another executor.") from error
    from ledgerline.dagster.kubernetes_steps import step_pods

    config: dict[str, Any] = {
        "retries": {"enabled": {}},
        "tag_concurrency_limits": limits,
        # A run starts pods; a step has nothing to ask Kubernetes for.
        "step_k8s_config": {"pod_spec_config": {"automount_service_account_token": False}},
    }
    if max_concurrent_steps:
        config["max_concurrent"] = max_concurrent_steps
    return step_pods.configured(config, name=KUBERNETES)
