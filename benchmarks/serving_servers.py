"""The servers of the serving benchmark: a registry, the service on it, and MLflow's own scoring server.

Each listens on loopback, and is ended by its own id with all that it started, whatever happens.
"""

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

import psutil
import requests

from benchmarks.processes import (
    HOST,
    SCRIPTS,
    environment_of,
    family_of,
    free_port,
    started,
    wait_until,
)
from ledgerline.cli.dev_servers import MLFLOW_SERVER_ENVIRONMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Elsewhere the registry would be on another machine: here it should not take processor time from who answers.
NICE = 10

# A server that runs knows of a new webhook after this time.
WEBHOOKS_KNOWN_SECONDS = 1
WEBHOOK = "serving-benchmark"

# It loads no model otherwise, in whatever format.
PEER_ENVIRONMENT = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}

JSON = {"Content-Type": "application/json"}
ANSWER_SECONDS = 60.0
CONNECT_PAUSE = 0.005


@dataclass(frozen=True)
class Registry:
    """An MLflow server.

    Attributes:
        url: Where it is.
        client: Of it.
        secret: What its webhooks are signed with.
    """

    url: str
    client: "MlflowClient"
    secret: str


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        port: Where it listens.
        process: It.
        log: What it says.
    """

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def looked_at(self) -> psutil.Process:
        """The process, for whoever measures its memory."""
        return psutil.Process(self.process.pid)

    def times_said(self, text: str) -> int:
        """How often something is in its log."""
        return self.log.read_text(errors="replace").count(text)


@contextmanager
def mlflow_registry(folder: Path) -> Iterator[Registry]:
    """A registry on SQLite that can send webhooks to this machine."""
    from ledgerline.mlflow_store.store import connect

    folder.mkdir(parents=True)
    url, database = f"http://{HOST}:{free_port()}", f"sqlite:///{folder}/mlflow.db"
    connect(database)  # creates its tables, before several processes want to
    options = {
        "--backend-store-uri": database,
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": HOST,
        "--port": url.rsplit(":", 1)[1],
        "--workers": "1",
    }
    command = [str(SCRIPTS / "mlflow"), "server", *(part for option in options.items() for part in option)]
    webhooks = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": str(WEBHOOKS_KNOWN_SECONDS),
    }
    environment = environment_of(MLFLOW_SERVER_ENVIRONMENT | webhooks | _own(folder))
    log = folder / "mlflow.log"
    with started(command, environment, log) as process:
        wait_until(lambda: _answers(f"{url}/health"), url, process, log)
        for member in family_of(process.pid):
            member.nice(NICE)
        yield Registry(url, connect(url), secrets.token_hex())


@contextmanager
def service(
    folder: Path, model: str, tracking_uri: str, additions: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`ledgerline serve`, once it answers; its state stays in the folder.

    Args:
        folder: Its own.
        model: What it serves.
        tracking_uri: Whom it follows.
        additions: Other variables.
    """
    with starting_service(folder, model, tracking_uri, additions) as server:
        url = f"http://{HOST}:{server.port}/ping"
        wait_until(lambda: _answers(url), f"the service: {url}", server.process, server.log)
        yield server


@contextmanager
def starting_service(
    folder: Path, model: str, tracking_uri: str, additions: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`ledgerline serve`, just started."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "serve.log"
    command = [str(SCRIPTS / "ledgerline"), "serve", "--model", model, "--port", str(port)]
    settings = {"LEDGERLINE_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": tracking_uri}
    environment = environment_of(settings | dict(additions or {}) | _own(folder))
    with started(command, environment, log) as process:
        yield Server(port, process, log)


@contextmanager
def peer(folder: Path, model: Path) -> Iterator[Server]:
    """`mlflow models serve`, once it answers.

    Args:
        folder: Its own.
        model: The files of the version that it serves.
    """
    folder.mkdir(parents=True)
    port, log = free_port(), folder / "peer.log"
    where = ["--model-uri", str(model), "--env-manager", "local", "--host", HOST, "--port", str(port)]
    environment = environment_of(_own(folder) | PEER_ENVIRONMENT)
    environment["PATH"] = f"{SCRIPTS}:{environment.get('PATH', '')}"  # it starts others by their names
    with started([str(SCRIPTS / "mlflow"), "models", "serve", *where], environment, log) as process:
        url = f"http://{HOST}:{port}/ping"
        wait_until(lambda: _answers(url), f"mlflow models serve: {url}", process, log)
        yield Server(port, process, log)


@contextmanager
def woken(registry: Registry, server: Server) -> Iterator[None]:
    """The registry tells a service by webhook of what changes."""
    from ledgerline.mlflow_store import webhooks

    url = f"http://{HOST}:{server.port}/webhooks/registry"
    webhook = webhooks.register(registry.client, url, registry.secret, WEBHOOK)
    time.sleep(2 * WEBHOOKS_KNOWN_SECONDS)
    try:
        yield
    finally:
        registry.client.delete_webhook(webhook.webhook_id)


class Probe:
    """A client that asks about one row, and looks who answers.

    Args:
        port: Of the service.
        body: What it asks.
    """

    def __init__(self, port: int, body: str) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
        self._body = body

    def close(self) -> None:
        """End its connection."""
        self._connection.close()

    def version(self) -> str | None:
        """Which version answers; None: there is an error."""
        self._connection.request("POST", "/invocations", self._body, JSON)
        response = self._connection.getresponse()
        response.read()
        return response.getheader("X-Model-Version") if response.status == http.HTTPStatus.OK else None

    def wait_for(self, number: int, most_seconds: float, pause: float) -> float | None:
        """Ask until this version answers.

        Returns:
            For how many seconds; None: longer than wanted.
        """
        started_at = time.perf_counter()
        while time.perf_counter() - started_at < most_seconds:
            if self.version() == str(number):
                return time.perf_counter() - started_at
            time.sleep(pause)
        return None

    def wait_for_first(self, most_seconds: float) -> None:
        """Ask until there is an answer, of a server that has just been started.

        Raises:
            TimeoutError: There is none in time.
        """
        deadline = time.monotonic() + most_seconds
        while time.monotonic() < deadline:
            try:
                if self.version() is not None:
                    return
            except (OSError, http.client.HTTPException):
                self._connection.close()
            time.sleep(CONNECT_PAUSE)
        raise TimeoutError(f"No answer within {most_seconds:.0f} s.")


def _own(folder: Path) -> dict[str, str]:
    """Temporary files go where they are deleted, also those of who is killed."""
    (folder / "tmp").mkdir(exist_ok=True)
    return {"TMPDIR": str(folder / "tmp")}


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False
