"""Tests an MLflow that is down, overloaded or out of space: reported within seconds, and complete later."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.ledger.projection import TargetUnavailableError
from ledgerline.mlflow_store import store
from tests.observability.mlflow_target import Target, links_in, mapped, projection_to

HOST = "127.0.0.1"
ALWAYS = 1_000_000


class Proxy(ThreadingHTTPServer):
    """Proxies requests to MLflow; after some requests, it responds with an error."""

    def __init__(self, behind: str | None, status: int, healthy_requests: int) -> None:
        super().__init__((HOST, 0), ProxyHandler)
        self.behind = behind
        self.status = status
        self.healthy_requests = healthy_requests
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"


class ProxyHandler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        proxy = self.server
        assert isinstance(proxy, Proxy)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/health":
            self.reply(200, b"OK")
            return
        proxy.requests += 1
        if proxy.behind is None or proxy.requests > proxy.healthy_requests:
            self.reply(proxy.status, b"not now")
            return
        headers = {"Content-Type": self.headers["Content-Type"]} if self.headers["Content-Type"] else {}
        request = urllib.request.Request(proxy.behind + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                self.reply(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self.reply(error.code, error.read())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
        """Keep quiet."""


@contextmanager
def proxy(behind: str | None, status: int, healthy_requests: int = 0) -> Iterator[Proxy]:
    with Proxy(behind, status, healthy_requests) as between:
        thread = threading.Thread(target=between.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield between
        finally:
            between.shutdown()
            thread.join()


def test_a_server_that_is_down_is_named(free_port: int, instance: dg.DagsterInstance):
    history = mapped(instance)
    projection = projection_to(f"http://reader:hunter2@{HOST}:{free_port}", "unreachable")

    with pytest.raises(TargetUnavailableError) as failure:
        projection.export(instance, history, None)

    assert f"{HOST}:{free_port}" in str(failure.value)
    assert "hunter2" not in str(failure.value)
    assert links_in(instance, history.run.run_id) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_has_other_worries_is_named(status: int, instance: dg.DagsterInstance):
    history = mapped(instance)

    with proxy(None, status) as server:
        address = server.url.replace("http://", "http://reader:hunter2@")
        projection = projection_to(address, "overloaded")
        with pytest.raises(TargetUnavailableError) as failure:
            projection.export(instance, history, None)

    assert server.requests <= 3  # MLflow's default is eight attempts over minutes
    assert f"MLflow at http://reader:[redacted]@{HOST}:{server.server_port} does not accept this" in str(
        failure.value
    )
    assert "hunter2" not in str(failure.value)


def test_a_server_that_dies_on_the_way_is_named_too(free_port: int, instance: dg.DagsterInstance):
    from mlflow import MlflowClient

    history = mapped(instance)
    projection = projection_to(f"http://{HOST}:{free_port}", "dying")
    client = MlflowClient(f"http://{HOST}:{free_port}")
    object.__setattr__(projection, "open_experiment", lambda: (client, "1"))

    with pytest.raises(TargetUnavailableError, match=f"MLflow at http://{HOST}:{free_port} does not"):
        projection.export(instance, history, None)


def test_the_next_attempt_completes_the_export_after_any_failed_call(
    mlflow_server: str,
    instance: dg.DagsterInstance,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    target = Target(mlflow_server, request.node.name, None, MlflowClient(mlflow_server))
    store.experiment_id(target.client, target.experiment, None)
    reference = mapped(instance)
    with proxy(mlflow_server, 503, ALWAYS) as server:
        projection_to(server.url, target.experiment).export(instance, reference, None)
        requests = server.requests

    for healthy in range(requests):
        history = mapped(instance)
        with proxy(mlflow_server, 503, healthy) as server:
            projection = projection_to(server.url, target.experiment)
            with pytest.raises(TargetUnavailableError):
                projection.export(instance, history, None)
            server.healthy_requests = ALWAYS
            projection.export(instance, history, None)

        run = target.run(history)
        assert run.info.status == "FINISHED"
        assert set(run.data.metrics) == set(target.run(reference).data.metrics)
        assert len(target.points(history)) == len(run.data.metrics)
        assert target.files(history) == {"lineage", "lineage/mapping.json", "timeline.png"}
        assert len(links_in(instance, history.run.run_id)) == 1


def test_artifacts_that_cannot_be_written_are_late(
    mlflow_database: str, instance: dg.DagsterInstance, tmp_path: Path
):
    history = mapped(instance)
    occupied = tmp_path / "artifacts"
    occupied.write_bytes(b"a file where the folder should be")
    projection = projection_to(mlflow_database, "artifacts", str(occupied))

    with pytest.raises(TargetUnavailableError, match=r"artifacts"):
        projection.export(instance, history, None)
    occupied.unlink()
    assert projection.export(instance, history, None) > 0


def test_a_deleted_experiment_is_named_with_its_remedy(
    mlflow_database: str, instance: dg.DagsterInstance, tmp_path: Path
):
    history = mapped(instance)
    client = store.connect(mlflow_database)
    experiment_id = store.experiment_id(client, "deleted", str(tmp_path))
    projection = projection_to(mlflow_database, "deleted", str(tmp_path))
    client.delete_experiment(experiment_id)

    with pytest.raises(TargetUnavailableError, match=f"restore --experiment-id {experiment_id}"):
        projection.export(instance, history, None)
    client.restore_experiment(experiment_id)
    assert projection.export(instance, history, None) > 0
