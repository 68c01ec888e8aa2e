"""Tests that with compose.login.yaml MLflow requires a login, which all programs of the stack have."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from benchmarks.stack.files import LOGIN
from benchmarks.stack.stack import Stack
from tests.integration.pages import wait_for_the_end
from tests.integration.stack.exports import Exports, pages_of

WITH_LOGIN = ("mlflow", "otel-collector", "code", "observer")


@pytest.fixture
def stack_with_login(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Restart MLflow and its clients with a login, and finally as they were."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")  # of the client of these tests
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", stack.machine.variables["MLFLOW_ADMIN_PASSWORD"])
    stack.stop(*WITH_LOGIN)
    stack.start(*WITH_LOGIN, options=[LOGIN])
    try:
        yield stack
    finally:
        stack.stop(*WITH_LOGIN)
        stack.start(*WITH_LOGIN)


def test_a_run_is_exported_to_an_mlflow_that_requires_a_login(
    stack_with_login: Stack, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(
            f"{stack_with_login.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=1"
        )

    run_id = pages_of(stack_with_login).launch("ingest_flights", {"dagster/partition": "2013-02-08"})

    assert wait_for_the_end(instance, run_id) is DagsterRunStatus.SUCCESS
    Exports(stack_with_login, instance).everywhere(run_id)
