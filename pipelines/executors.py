"""Where the steps of a run are executed, by one setting."""

import dagster as dg

# What steps import, paid once for each run: a step is then forked in a fraction of a second, where
# a fresh interpreter would need seconds.
PRELOADED_MODULES = [
    "pipelines.definitions",
    "pandas",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "sklearn.compose",
    "mlflow",
    "mlflow.sklearn",
    "skops.io",
    "matplotlib.figure",
]


def executor_for(name: str, max_concurrent_steps: int) -> dg.ExecutorDefinition:
    """The executor of all jobs.

    Args:
        name: "multiprocess" (a process for each step, forked from a warm one) or "in_process".
        max_concurrent_steps: Steps of one run at the same time; 0 means one for each core.
    """
    if name == "in_process":
        return dg.in_process_executor
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": max_concurrent_steps,
            "start_method": {"forkserver": {"preload_modules": PRELOADED_MODULES}},
        },
        name="multiprocess",
    )
