"""Starts Dagster's code server, after ending the runs that died with the one before.

A run is a process beside the code server, in its container. When the container is killed, nobody is left
who could say so, and the run would look as if it went on. The next server knows better: runs that a server
at this address had started cannot be alive. Dagster then runs them again (run_retries in dagster.yaml).
"""

import json
import os
import sys

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

# What the launcher writes on a run: the server that it was given to.
SERVER_TAG = ".dagster/grpc_info"
MESSAGE = "The code server was killed, and this run with it."


def end_orphaned_runs(instance: dg.DagsterInstance, host: str, port: int) -> list[str]:
    """End runs of the server before.

    Returns:
        Their ids.
    """
    ended = []
    under_way = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    for run in instance.get_runs(under_way):
        server = json.loads(run.tags.get(SERVER_TAG, "{}"))
        if (server.get("host"), server.get("port")) != (host, port):
            continue
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, MESSAGE)
        else:
            instance.report_run_failed(run, MESSAGE)
        ended.append(run.run_id)
    return ended


def main() -> None:
    """`code_server.py HOST PORT`, as workspace.yaml names them."""
    host, port = sys.argv[1], sys.argv[2]
    with dg.DagsterInstance.get() as instance:
        for run_id in end_orphaned_runs(instance, host, int(port)):
            print(f"Run {run_id} is ended: {MESSAGE}", flush=True)  # noqa: T201 (the container's log)
    # In place of this process: signals must reach it.
    listening = ["-h", host, "-p", port]
    os.execvp("dagster", ["dagster", "api", "grpc", *listening, "-m", "pipelines.definitions"])  # noqa: S606


if __name__ == "__main__":
    main()
