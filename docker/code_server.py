"""Starts Dagster's code server, and ends the runs that died with the one before.

A run is a process beside the code server, in its container. When the container is killed, nobody is left
who could say so, and the run would look as if it went on. The next server knows better: runs that a server
at this address had started cannot be alive. Dagster then runs them again (run_retries in dagster.yaml).

Which these are must be known before the server listens, as what it is given later is alive. But they are
ended after it answers: the daemon runs them again within seconds, asks the server how, and when that does
not answer it gives them up for good.
"""

import json
import os
import subprocess
import sys
import time

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ledgerline.ledger.dagster_internals import DagsterUserCodeUnreachableError

# What the launcher writes on a run: the server that it was given to.
SERVER_TAG = ".dagster/grpc_info"
MESSAGE = "The code server was killed, and this run with it."
UNDER_WAY = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
# The daemon looks once a second whether the server is there again.
NOTICED_SECONDS = 10


def orphaned_runs(instance: dg.DagsterInstance, host: str, port: int) -> list[str]:
    """Find the runs of the server before.

    Returns:
        Their ids.
    """
    found = []
    for run in instance.get_runs(RunsFilter(statuses=UNDER_WAY)):
        server = json.loads(run.tags.get(SERVER_TAG, "{}"))
        if (server.get("host"), server.get("port")) == (host, port):
            found.append(run.run_id)
    return found


def end_runs(instance: dg.DagsterInstance, run_ids: list[str]) -> list[str]:
    """End these runs, unless somebody else did.

    Returns:
        The ids of those that are ended now.
    """
    ended = []
    for run in instance.get_runs(RunsFilter(run_ids=run_ids, statuses=UNDER_WAY)):
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, MESSAGE)
        else:
            instance.report_run_failed(run, MESSAGE)
        ended.append(run.run_id)
    return ended


def wait_for_server(host: str, port: int) -> None:
    """Return when the code server answers. If it never does, the container ends, and this with it."""
    from ledgerline.ledger.dagster_internals import DagsterGrpcClient

    client = DagsterGrpcClient(host=host, port=port)
    while True:
        try:
            client.ping("")
        except DagsterUserCodeUnreachableError:
            time.sleep(1)
        else:
            return


def main() -> None:
    """`code_server.py HOST PORT`, as workspace.yaml names them; with ids of runs behind, it ends these."""
    host, port, *run_ids = sys.argv[1:]
    if run_ids:
        wait_for_server(host, int(port))
        time.sleep(NOTICED_SECONDS)
        with dg.DagsterInstance.get() as instance:
            for run_id in end_runs(instance, run_ids):
                print(f"Run {run_id} is ended: {MESSAGE}", flush=True)  # noqa: T201 (the container's log)
        return
    with dg.DagsterInstance.get() as instance:
        run_ids = orphaned_runs(instance, host, int(port))
    if run_ids:
        subprocess.Popen([sys.executable, __file__, host, port, *run_ids])
    # In place of this process: signals must reach it.
    listening = ["-h", host, "-p", port]
    os.execvp("dagster", ["dagster", "api", "grpc", *listening, "-m", "pipelines.definitions"])  # noqa: S606


if __name__ == "__main__":
    main()
