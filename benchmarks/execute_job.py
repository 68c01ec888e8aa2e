"""Execute one job in this process, as a run worker does. Used by step_startup.py."""

import sys

import dagster as dg

from benchmarks.checkout import PROJECT_ROOT
from ledgerline.ledger.dagster_internals import ReconstructableRepository

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main(job_name: str, partition: str) -> int:
    """Execute the job for one partition.

    Returns:
        0 if it succeeded.
    """
    repository = ReconstructableRepository.for_module("pipelines.definitions", "defs", str(PROJECT_ROOT))
    with (
        dg.DagsterInstance.get() as instance,
        dg.execute_job(
            repository.get_reconstructable_job(job_name),
            instance=instance,
            run_config=QUIET,
            tags={"dagster/partition": partition},
        ) as result,
    ):
        return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
