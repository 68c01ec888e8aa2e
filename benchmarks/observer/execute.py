"""Executes jobs of jobs.py in this process, as a run worker does.

    python -m benchmarks.observer.execute VERSION OPS EXECUTOR SECONDS RESULT_FILE
    python -m benchmarks.observer.execute VERSION OPS RUN_IDS

Only the standard library is imported above, because this is the main module of steps, too.
"""

import atexit
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any


def execute_once(version: str, ops: str, executor: str, seconds: str, result: str) -> None:
    """Execute a job on the instance of DAGSTER_HOME, and write its duration to a file.

    The time includes the exit of the process, at which peers may still export. The file has the run's id,
    whether it succeeded, its duration, and the processor time of this process, both in seconds.
    """
    outcome: dict[str, Any] = {}

    def write() -> None:
        if outcome:
            outcome["seconds"] = time.perf_counter() - outcome["begun"]
            outcome["cpu_seconds"] = time.process_time() - outcome["cpu_begun"]
            Path(result).write_text(json.dumps(outcome))

    atexit.register(write)  # The function that is registered first is called last.

    import dagster as dg

    from benchmarks.observer import jobs

    job = jobs.reconstructable(version, int(ops), executor, float(seconds))
    job.get_definition()
    imports = ["benchmarks.observer.jobs", *jobs.IMPORTS.get(version, ())]
    for name in imports:
        import_module(name)
    if executor == jobs.MULTIPROCESS:
        _warm(imports)
    with dg.DagsterInstance.get() as instance:
        outcome |= {"begun": time.perf_counter(), "cpu_begun": time.process_time()}
        # It is not used as a context manager, which would initialise the resources a second time.
        ended = dg.execute_job(job, instance=instance, run_config=jobs.QUIET)
        outcome |= {"run_id": ended.run_id, "success": ended.success}


def execute_each(version: str, ops: str, run_ids: str) -> None:
    """Execute runs with the ids in a JSON list, and print each id before its run starts."""
    import dagster as dg

    from benchmarks.observer import jobs
    from ledgerline.ledger.dagster_internals import execute_run

    job = jobs.reconstructable(version, int(ops), jobs.IN_PROCESS, 0.0)
    with dg.DagsterInstance.get() as instance:
        for run_id in json.loads(run_ids):
            run = instance.create_run_for_job(job.get_definition(), run_id=run_id, run_config=jobs.QUIET)
            print(run_id, flush=True)
            if not execute_run(job, run, instance).success:
                sys.exit(f"Run {run_id} failed.")


def _warm(modules: list[str]) -> None:
    """Start the process that steps are forked from, and wait until it has imported the job's modules."""
    import multiprocessing
    from multiprocessing import forkserver

    from ledgerline.dagster.executors import PRELOADED
    from ledgerline.ledger.dagster_internals import EXECUTOR_MODULE

    forkserver.set_forkserver_preload([EXECUTOR_MODULE, *PRELOADED, *modules])
    first = multiprocessing.get_context("forkserver").Process(target=int)
    first.start()
    first.join()


if __name__ == "__main__":
    (execute_once if len(sys.argv) == 6 else execute_each)(*sys.argv[1:])
