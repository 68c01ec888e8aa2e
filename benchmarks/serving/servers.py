"""Starts the servers of the serving scenarios: a registry, `ledgerline serve` and `mlflow models serve`."""

import base64
import http.client
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import HOST, SCRIPTS, mlflow_server, responds, started, unused_port, wait_for

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEBHOOKS_KNOWN_SECONDS = 1  # time after which a running MLflow uses a new webhook
JSON = {"Content-Type": "application/json"}
RESPONSE_SECONDS = 60.0


@dataclass(frozen=True)
class Registry:
    """An MLflow server; `secret` signs its webhooks."""

    url: str
    client: "MlflowClient"
    secret: str


@dataclass(frozen=True)
class Server:
    """A server that predicts."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def url(self) -> str:
        """Return the URL."""
        return f"http://{HOST}:{self.port}"


@contextmanager
def mlflow_registry(folder: Path) -> Iterator[Registry]:
    """Start a registry that can send webhooks to this machine."""
    from ledgerline.mlflow_store.store import connect

    webhooks = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": str(WEBHOOKS_KNOWN_SECONDS),
    }
    with mlflow_server(folder, webhooks) as (url, _):
        yield Registry(url, connect(url), secrets.token_hex())


@contextmanager
def starting_service(
    folder: Path, model: str, tracking_uri: str, additions: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `ledgerline serve` with its state in a folder; yield it at once."""
    port, log = unused_port(), folder / "serve.log"
    environment = {
        "LEDGERLINE_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": tracking_uri,
        **_temporary(folder),
        **(additions or {}),
    }
    command = [str(SCRIPTS / "ledgerline"), "serve", "--model", model, "--port", str(port)]
    with started(command, environment, log) as process:
        yield Server(port, process, log)


@contextmanager
def service(
    folder: Path, model: str, tracking_uri: str, additions: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `ledgerline serve`, and wait until it responds."""
    with starting_service(folder, model, tracking_uri, additions) as server:
        wait_for(lambda: responds(f"{server.url}/ping"), "the service responds", server.process, server.log)
        yield server


@contextmanager
def mlflow_service(folder: Path, model: Path) -> Iterator[Server]:
    """Start `mlflow models serve` on the files of a version, and wait until it responds."""
    port = unused_port()
    environment = {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",  # without this, it does not load a model in any format
        "PATH": f"{SCRIPTS}:/usr/bin:/bin",  # to find the programs that it starts
        **_temporary(folder),
    }
    options = ["--model-uri", str(model), "--env-manager", "local", "--host", HOST, "--port", str(port)]
    log = folder / "peer.log"
    with started([str(SCRIPTS / "mlflow"), "models", "serve", *options], environment, log) as process:
        wait_for(lambda: responds(f"http://{HOST}:{port}/ping"), "MLflow's service responds", process, log)
        yield Server(port, process, log)


@contextmanager
def notified(registry: Registry, server: Server) -> Iterator[None]:
    """Let the registry notify a service of changes by a webhook."""
    from ledgerline.mlflow_store import webhooks

    url = f"{server.url}/webhooks/registry"
    webhook = webhooks.register(registry.client, url, registry.secret, "serving-benchmark")
    time.sleep(2 * WEBHOOKS_KNOWN_SECONDS)
    try:
        yield
    finally:
        registry.client.delete_webhook(webhook.webhook_id)


class Probe:
    """A client that sends one row and reads which version responds."""

    def __init__(self, port: int, body: str) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=RESPONSE_SECONDS)
        self._body = body

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def version(self) -> str | None:
        """Return the version that responds; None for an error."""
        self._connection.request("POST", "/invocations", self._body, JSON)
        response = self._connection.getresponse()
        response.read()
        return response.getheader("X-Model-Version") if response.status == http.HTTPStatus.OK else None

    def seconds_until(self, number: int, max_seconds: float, pause: float) -> float | None:
        """Send requests until this version responds; return the seconds, or None after the maximum wait."""
        begun = time.perf_counter()
        while time.perf_counter() - begun < max_seconds:
            try:
                if self.version() == str(number):
                    return time.perf_counter() - begun
            except (OSError, http.client.HTTPException):  # The service may still be starting.
                self._connection.close()
            time.sleep(pause)
        return None


def _temporary(folder: Path) -> dict[str, str]:
    """Return variables for a folder of temporary files, where even those of a killed process are deleted."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {"TMPDIR": str(folder / "tmp")}
