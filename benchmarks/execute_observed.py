"""Execute one job of observed_jobs.py in this process, as a run worker does, and say how long it took.

Nothing is imported above that a step would have to import again: this is the main module of steps, too.
"""

import atexit
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any


def main(version: str, ops: str, executor: str, seconds: str, result: str) -> None:
    """Execute the job on the instance of DAGSTER_HOME.

    The time ends when everything has that is done at exit, where peers still have something to send.

    Args:
        version: Of the job.
        ops: How many.
        executor: Where they are executed.
        seconds: How long each sleeps; 0 to compute instead.
        result: File to write: the run's id, whether it succeeded, its seconds, and those of this process.
    """
    outcome: dict[str, Any] = {}

    def write() -> None:
        if outcome:
            outcome["seconds"] = time.perf_counter() - outcome["started"]
            outcome["cpu_seconds"] = time.process_time() - outcome["cpu_started"]
            Path(result).write_text(json.dumps(outcome))

    atexit.register(write)  # the first to come is the last to go

    import dagster as dg

    from benchmarks import observed_jobs

    job = observed_jobs.reconstructable(version, int(ops), executor, float(seconds))
    job.get_definition()
    imports = ["benchmarks.observed_jobs", *observed_jobs.IMPORTS.get(version, ())]
    for name in imports:
        import_module(name)
    if executor == observed_jobs.MULTIPROCESS:
        _warm(imports)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        outcome |= {"started": time.perf_counter(), "cpu_started": time.process_time()}
        # Not as a context, which would initialise the resources once more.
        ended = dg.execute_job(job, instance=instance, run_config=quiet)
        outcome |= {"run_id": ended.run_id, "success": ended.success}


def _warm(modules: list[str]) -> None:
    """Start the process that steps are forked from, with all that the job needs, and wait for it."""
    import multiprocessing
    from multiprocessing import forkserver

    from ledgerline.dagster.executors import PRELOADED
    from ledgerline.ledger.dagster_internals import EXECUTOR_MODULE

    forkserver.set_forkserver_preload([EXECUTOR_MODULE, *PRELOADED, *modules])
    first = multiprocessing.get_context("forkserver").Process(target=int)
    first.start()
    first.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
