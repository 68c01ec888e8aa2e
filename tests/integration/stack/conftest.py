"""The stack of docker/, started once for all tests here. They leave it as they receive it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from benchmarks.stack.files import servers
from benchmarks.stack.stack import Stack, running
from benchmarks.stack.traces import MLflowTraces
from ledgerline.testing import postgresql
from ledgerline.testing.waiting import wait_until
from tests.integration.stack.exports import pages_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need the real servers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("stack")


@pytest.fixture(scope="session")
def server_programs() -> dict[str, Path]:
    """Jaeger and the collector."""
    programs = servers()
    missing = {"jaeger", "otel-collector"} - programs.keys()
    if missing:
        pytest.skip(
            f"There is no {' and no '.join(sorted(missing))}: docker/servers/build makes them with Go"
        )
    return programs


@pytest.fixture(scope="session")
def stack(server_programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if postgresql.program("postgres") is None or postgresql.program("psql") is None:
        pytest.skip("PostgreSQL is not installed")
    with running(tmp_path_factory.mktemp("stack"), server_programs) as stack:
        wait_until(pages_of(stack).have_jobs, "the code location is loaded")
        yield stack
    # Hundreds of megabytes, which pytest would keep for a while.
    shutil.rmtree(stack.machine.folder)


@pytest.fixture
def instance(stack: Stack) -> Iterator[dg.DagsterInstance]:
    """Dagster's, on PostgreSQL."""
    with stack.instance() as instance:
        yield instance


@pytest.fixture
def mlflow_client(stack: Stack) -> MlflowClient:
    return MlflowClient(stack.mlflow_url)


@pytest.fixture
def mlflow_traces(mlflow_client: MlflowClient) -> MLflowTraces:
    return MLflowTraces(mlflow_client)
