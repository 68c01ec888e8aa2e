"""Tests the pipeline through the whole stack, with every run in Jaeger and MLflow."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message

import dagster as dg
import pytest
from dagster import DagsterEventType
from mlflow import MlflowClient

from benchmarks.stack.stack import Stack
from ledgerline.testing.waiting import wait_until
from tests.integration.stack.exports import EXPORT_SECONDS, Exports, pages_of

JOBS = {"ingest_flights", "train_delay_model", "release_flight_delay", "score_flights"}
FLIGHT = {
    "carrier": "UA",
    "origin": "EWR",
    "dest": "ORD",
    "sched_dep_time": 1845,
    "sched_arr_time": 2010,
    "day_of_week": 4,
    "distance": 719,
}


@pytest.fixture(scope="module")
def first_run(stack: Stack) -> Mapping[str, str]:
    """Follow the runbook for a first model; return the runs by their jobs."""
    done = stack.run_in("code", "ledgerline", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Dagster: {pages_of(stack).url}\nMLflow: {stack.mlflow_url}\n" in done.stdout
    with stack.instance() as instance:
        runs = {run.job_name: run.run_id for run in instance.get_runs() if run.job_name in JOBS}
    assert runs.keys() == JOBS
    return runs


@pytest.mark.parametrize("job", sorted(JOBS))
def test_a_run_is_one_trace_in_jaeger_and_in_mlflow_and_one_run_as_in_its_event_log(
    job: str, first_run: Mapping[str, str], stack: Stack, instance: dg.DagsterInstance
) -> None:
    trace = Exports(stack, instance).everywhere(first_run[job])
    assert trace.root.name.startswith(f"run {job}")
    assert trace.repeated == []


def test_dagsters_page_of_a_run_links_to_its_trace_in_jaeger_and_to_its_run_in_mlflow(
    first_run: Mapping[str, str], stack: Stack, instance: dg.DagsterInstance
) -> None:
    run_id = first_run["train_delay_model"]
    Exports(stack, instance).as_mlflow_run(run_id)
    links = {
        value.url
        for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)
        if entry.dagster_event is not None
        for value in entry.dagster_event.engine_event_data.metadata.values()
        if isinstance(value, dg.UrlMetadataValue) and value.url is not None
    }
    assert f"{stack.jaeger.url}/trace/{run_id.replace('-', '')}" in links
    assert any(link.startswith(f"{stack.mlflow_url}/#/experiments/") for link in links)


def test_training_is_nested_in_the_run_that_trained(
    first_run: Mapping[str, str], stack: Stack, instance: dg.DagsterInstance, mlflow_client: MlflowClient
) -> None:
    outer = Exports(stack, instance).as_mlflow_run(first_run["train_delay_model"])
    version = mlflow_client.get_model_version("flight_delay", "1")
    training = mlflow_client.get_run(version.run_id or "")
    assert training.data.tags["mlflow.parentRunId"] == outer.info.run_id
    files = {file.path for file in mlflow_client.list_artifacts(training.info.run_id)}
    assert "loss.png" in files  # transferred by the server: no other program opens its folder


def test_serving_predicts_with_the_promoted_version_and_requires_a_token(
    first_run: Mapping[str, str], stack: Stack, instance: dg.DagsterInstance
) -> None:
    wait_until(lambda: answered(stack, path="/ready")[0] == 200, "serving has the model", EXPORT_SECONDS)
    status, headers, body = answered(stack, {"dataframe_records": [FLIGHT]})
    assert (status, headers["X-Model-Version"]) == (200, "1")
    ((punctual, late),) = json.loads(body)["predictions"]
    assert punctual + late == pytest.approx(1)
    assert answered(stack, {"dataframe_records": [FLIGHT]}, token="another")[0] == 401
    assert answered(stack, {"dataframe_records": [FLIGHT]}, token=None)[0] == 401


def test_the_trace_of_a_prediction_links_to_the_trace_of_the_training(
    first_run: Mapping[str, str], stack: Stack
) -> None:
    _, headers, _ = answered(stack, {"dataframe_records": [FLIGHT]}, traceparent=True)
    trace_id = headers["traceparent"].split("-")[1]
    spans = wait_until(lambda: stack.jaeger.trace_of(trace_id).spans, "Jaeger has it", EXPORT_SECONDS)
    training = first_run["train_delay_model"].replace("-", "")
    assert training in {linked for span in spans for linked, _ in span.links}


def answered(
    stack: Stack,
    body: object = None,
    *,
    path: str = "/invocations",
    token: str | None = "",
    traceparent: bool = False,
) -> tuple[int, Message, bytes]:
    """Send a request to serving, by default with a valid token; return the response."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token or stack.machine.variables['LEDGERLINE_SERVING_TOKENS']}"
    if traceparent:
        # One that is sampled: of requests without, only some are traced.
        headers["traceparent"] = f"00-{'ab' * 16}-{'cd' * 8}-01"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{stack.machine.url('serving', 8080)}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
