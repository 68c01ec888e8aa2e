"""Tests `ledgerline dev`: both pages respond, runs launched there work, and no process is left."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from mlflow import MlflowClient

from ledgerline.testing.ports import unused_port
from ledgerline.testing.waiting import wait_until

RUN_SECONDS = 300

LAUNCH = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""
MATERIALISED = "{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { timestamp } } }"
RUNS = "{ runsOrError { ... on Runs { results { status jobName tags { key value } } } } }"


class Dev:
    """A running `ledgerline dev`."""

    def __init__(
        self, process: subprocess.Popen[str], dagster_port: int, mlflow_port: int, serving_port: int
    ) -> None:
        self.process = process
        self.ports = (dagster_port, mlflow_port, serving_port)
        self.serving = f"http://127.0.0.1:{serving_port}"
        self.dagster = f"http://127.0.0.1:{dagster_port}"
        self.mlflow = f"http://127.0.0.1:{mlflow_port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.dagster}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def materialise(self, assets: list[str], partitions: list[str]) -> None:
        """Launch a backfill as the UI does, and wait for its end."""
        params = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": partitions}
        launched = self.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def ended() -> bool:
            backfill = self.ask(BACKFILL, id=launched["backfillId"])["partitionBackfillOrError"]
            assert backfill["status"] in ("REQUESTED", "REQUESTING", "COMPLETED_SUCCESS"), self.ask(RUNS)
            return backfill["status"] == "COMPLETED_SUCCESS"

        self.wait_for(ended, f"the backfill of {assets}")

    def materialised(self) -> set[str]:
        """The assets that have been materialised at least once."""
        nodes = self.ask(MATERIALISED)["assetNodes"]
        return {node["assetKey"]["path"][0] for node in nodes if node["assetMaterializations"]}

    def runs(self) -> list[dict[str, Any]]:
        """Every run, as its page has it."""
        return self.ask(RUNS)["runsOrError"]["results"]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what, RUN_SECONDS)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def listening_on(self, port: int) -> set[str]:
        """The addresses at which its processes listen on a port."""
        found: set[str] = set()
        for member in self.family():
            with suppress(psutil.NoSuchProcess):  # steps of runs start and end
                found |= {
                    connection.laddr.ip
                    for connection in member.net_connections(kind="tcp")
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                }
        return found


def program(process: psutil.Process) -> str:
    """Return the first part of its command; nothing if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()[:3])
    return ""


@contextmanager
def started(home: Path, env: dict[str, str], ports: tuple[int, int]) -> Iterator[Dev]:
    command = [str(Path(sys.executable).with_name("ledgerline")), "dev"]
    dagster_port, mlflow_port = ports
    serving_port = unused_port()
    env |= {
        "LEDGERLINE_DAGSTER_PORT": str(dagster_port),
        "LEDGERLINE_MLFLOW_PORT": str(mlflow_port),
        "LEDGERLINE_SERVING_PORT": str(serving_port),
    }
    with subprocess.Popen(
        command, env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            shown = ""
            while "Ctrl-C ends everything." not in shown:
                line = process.stdout.readline()
                assert line, f"ended early: {shown}"
                shown += line
            yield Dev(process, dagster_port, mlflow_port, serving_port)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def dev(
    tmp_path_factory: pytest.TempPathFactory, environment: Callable[..., dict[str, str]]
) -> Iterator[Dev]:
    home = tmp_path_factory.mktemp("home")
    with started(home, environment(home), (unused_port(), unused_port())) as running:
        yield running


def test_missing_reference_tables_appear_by_themselves(dev: Dev) -> None:
    names = {"airlines", "airports", "planes", "weather"}
    dev.wait_for(lambda: names <= dev.materialised(), "reference tables")


def test_a_backfill_from_the_page_ingests_days_in_one_run_and_trains_by_month(dev: Dev) -> None:
    january_and_february = [(date(2013, 1, 1) + timedelta(days=n)).isoformat() for n in range(31 + 28)]
    dev.materialise(["flights", "features"], january_and_february)
    dev.materialise(["delay_model", "delay_model_evaluation", "delay_model_version"], ["2013-02-01"])

    asked_for = [run for run in dev.runs() if run["jobName"] != "release_flight_delay"]
    assert [run["status"] for run in asked_for] == ["SUCCESS"] * len(asked_for)
    ranges = [
        tag["value"]
        for run in asked_for
        for tag in run["tags"]
        if tag["key"] == "dagster/asset_partition_range_end"
    ]
    assert ranges == ["2013-02-28"]  # one run for all days
    client = MlflowClient(dev.mlflow)
    run = client.get_run(client.get_model_version("flight_delay", "1").run_id or "")
    assert run.info.status == "FINISHED"
    assert "roc_auc" in run.data.metrics


def test_a_version_in_staging_is_compared_automatically(dev: Dev) -> None:
    client = MlflowClient(dev.mlflow)
    dev.wait_for(
        lambda: "decision" in client.get_model_version("flight_delay", "1").tags, "a judgement of version 1"
    )
    (release,) = [run for run in dev.runs() if run["jobName"] == "release_flight_delay"]
    assert {"key": "dagster/sensor_name", "value": "staging_changed_flight_delay"} in release["tags"]


def test_a_version_set_to_production_is_activated_automatically(dev: Dev) -> None:
    MlflowClient(dev.mlflow).set_registered_model_alias("flight_delay", "production", "1")

    dev.wait_for(
        lambda: requests.get(f"{dev.serving}/ready", timeout=10).status_code == 200, "an answer of version 1"
    )
    assert requests.get(f"{dev.serving}/model", timeout=10).json()["version"] == 1


def test_all_listen_on_this_machine_only(dev: Dev) -> None:
    for port in dev.ports:
        assert dev.listening_on(port) == {"127.0.0.1"}


def test_a_port_in_use_is_named(dev: Dev, tmp_path: Path, ledgerline: Callable[..., Any]) -> None:
    port = dev.ports[0]
    done = ledgerline(
        tmp_path, "dev", LEDGERLINE_DAGSTER_PORT=str(port), LEDGERLINE_MLFLOW_PORT=str(unused_port())
    )
    assert done.returncode == 2
    assert f"Port {port}" in done.stderr
    assert "LEDGERLINE_DAGSTER_PORT" in done.stderr


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path, environment: Callable[..., dict[str, str]]) -> None:
    with started(tmp_path, environment(tmp_path), (unused_port(), unused_port())) as running:
        family = running.family()
        assert len(family) > 2
    assert running.process.returncode == 0
    assert [member for member in family if member.is_running()] == []


def test_a_server_that_dies_ends_the_other_and_is_named(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    with started(tmp_path, environment(tmp_path), (unused_port(), unused_port())) as running:
        family = running.family()
        mlflow = next(member for member in family if "mlflow" in program(member))
        mlflow.send_signal(signal.SIGKILL)
        output = running.process.communicate(timeout=60)[0]
    assert running.process.returncode == 2
    assert "MLflow ended unexpectedly" in output
    assert [member for member in family if member.is_running()] == []
