"""Starts Dagster's code server, and ends the runs that were killed together with the previous one.

A run is a process beside the code server, in the same container. When the container is killed, no process
reports the end of the run, which then seems to be in progress. Therefore the next server at this address ends
the runs of the previous one. Dagster retries them (run_retries in dagster.yaml).

These runs are listed before the server listens, because later runs are alive. They are ended after the server
responds, because the daemon retries a run within seconds and abandons it if the server does not respond.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ledgerline.ledger.dagster_internals import DagsterUserCodeUnreachableError

# The tag in which the launcher records the server of a run.
SERVER_TAG = ".dagster/grpc_info"
MESSAGE = "The code server was killed, and this run with it."
UNDER_WAY = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
# The daemon polls the server once a second.
NOTICED_SECONDS = 10


def orphaned_runs(instance: dg.DagsterInstance, host: str, port: int) -> list[str]:
    """Return the ids of the runs of the previous server."""
    orphaned = []
    for run in instance.get_runs(RunsFilter(statuses=UNDER_WAY)):
        server = json.loads(run.tags.get(SERVER_TAG, "{}"))
        if (server.get("host"), server.get("port")) == (host, port):
            orphaned.append(run.run_id)
    return orphaned


def end_runs(instance: dg.DagsterInstance, run_ids: list[str]) -> list[str]:
    """End runs that are still in progress, and return their ids."""
    ended = []
    for run in instance.get_runs(RunsFilter(run_ids=run_ids, statuses=UNDER_WAY)):
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, MESSAGE)
        else:
            instance.report_run_failed(run, MESSAGE)
        ended.append(run.run_id)
    return ended


def wait_for_server(host: str, port: int) -> None:
    """Wait until the code server responds. If it does not, the container ends together with this process."""
    from ledgerline.ledger.dagster_internals import DagsterGrpcClient

    client = DagsterGrpcClient(host=host, port=port)
    while True:
        with suppress(DagsterUserCodeUnreachableError):
            client.ping("")
            return
        time.sleep(1)


def main() -> None:
    """Run `code_server.py HOST PORT [RUN_ID ...]`: start the server, or end these runs after it responds."""
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
    # The server replaces this process, so that it receives signals.
    listening = ["-h", host, "-p", port]
    os.execvp("dagster", ["dagster", "api", "grpc", *listening, "-m", "pipelines.definitions"])  # noqa: S606


if __name__ == "__main__":
    main()
