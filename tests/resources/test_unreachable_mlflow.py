"""Tests a tracking server that is down, hangs or is broken: the step fails within seconds and names it."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg
import pytest

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.tracking import MLflowResource
from ledgerline.registry.promotion import Mode, Request
from ledgerline.registry.versions import Version

HOST = "127.0.0.1"


class BrokenHandler(http.server.BaseHTTPRequestHandler):
    """Responds to every request with 500."""

    def do_GET(self) -> None:
        self.send_error(500)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
        """Keep quiet."""


@contextmanager
def nothing() -> Iterator[int]:
    """A port that nobody listens on: it is bound, so that nobody else can take it."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


@contextmanager
def silence() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def broken() -> Iterator[int]:
    """A port where every answer is an error."""
    with http.server.ThreadingHTTPServer((HOST, 0), BrokenHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=[nothing, silence, broken], ids=lambda kind: kind.__name__)
def dead_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a server that does not work."""
    with request.param() as port:
        yield f"http://{HOST}:{port}"


def test_a_step_fails_without_retry_and_names_the_server(dead_server: str):
    entered: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small"):
            entered.append(context.retry_number)

    mlflow = MLflowResource(tracking_uri=dead_server, experiment="unreachable")
    result = dg.materialize([trained], resources={"mlflow": mlflow}, raise_on_error=False)

    assert not result.success
    assert entered == []
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    failed = result.failure_data_for_node("trained")
    assert failed is not None
    assert failed.error is not None
    reason = failed.error.to_string()
    assert f"The MLflow server at {dead_server} does not respond: " in reason
    assert "ledgerline dev" in reason


@pytest.mark.parametrize(
    "use",
    [
        lambda registry: registry.model("flight_delay").version_with_alias("staging"),
        lambda registry: registry.model("flight_delay").register("m-1", {}),
        lambda registry: registry.model("flight_delay").load(
            Version("flight_delay", 1, "/nowhere", "", datetime.now(UTC), {})
        ),
        lambda registry: registry.model("flight_delay").promote(
            1, Request("Ada", "", "", "a request"), Mode.automatic
        ),
        lambda registry: registry.model("flight_delay").rollback(None, Request("Ada", "", "", "a request")),
        lambda registry: registry.alias_states(),
        lambda registry: registry.model("flight_delay").reconcile().history,
    ],
    ids=["find", "register", "load", "promote", "roll back", "look", "history"],
)
def test_the_registry_names_the_server_too(use: Callable[[ModelRegistryResource], object]):
    with nothing() as port:
        registry = ModelRegistryResource(tracking_uri=f"http://{HOST}:{port}")

        with pytest.raises(PermanentFailure, match=f"The MLflow server at http://{HOST}:{port} does not"):
            use(registry)


def test_the_password_of_a_server_is_not_printed():
    with nothing() as port:
        uri = f"http://ledgerline:secret@{HOST}:{port}"
        registry = ModelRegistryResource(tracking_uri=uri)

        with pytest.raises(PermanentFailure) as failure:
            registry.model("flight_delay").version_with_alias("staging")

    assert f"http://ledgerline:***@{HOST}:{port}" in str(failure.value)
    assert "secret" not in str(failure.value)


def test_a_database_that_cannot_be_created_stops_the_step_and_names_itself(
    tmp_path_factory: pytest.TempPathFactory,
):
    file = tmp_path_factory.mktemp("state") / "occupied"
    file.write_bytes(b"a file where the folder should be")

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def trained(context: dg.AssetExecutionContext, mlflow: MLflowResource) -> None:
        with mlflow.training_run(context, "small"):
            pass

    mlflow = MLflowResource(tracking_uri=f"sqlite:///{file}/mlflow.db", experiment="unreachable")
    result = dg.materialize([trained], resources={"mlflow": mlflow}, raise_on_error=False)

    assert not any(event.is_step_up_for_retry for event in result.all_events)
    failed = result.failure_data_for_node("trained")
    assert failed is not None
    assert failed.error is not None
    assert f"{file} cannot be written: " in failed.error.to_string()
