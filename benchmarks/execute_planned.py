"""Execute runs of observed_jobs.py whose ids are given, one after the other, in this process."""

import json
import sys

import dagster as dg

from benchmarks import observed_jobs
from ledgerline.ledger.dagster_internals import execute_run


def main(version: str, ops: str, run_ids: str) -> None:
    """Execute the runs on the instance of DAGSTER_HOME, and print the id of each before it begins.

    Args:
        version: Of the job.
        ops: How many.
        run_ids: A list in JSON.
    """
    job = observed_jobs.reconstructable(version, int(ops), observed_jobs.IN_PROCESS, 0.0)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        for run_id in json.loads(run_ids):
            run = instance.create_run_for_job(job.get_definition(), run_id=run_id, run_config=quiet)
            print(run_id, flush=True)
            if not execute_run(job, run, instance).success:
                sys.exit(f"Run {run_id} failed.")


if __name__ == "__main__":
    main(*sys.argv[1:])
