"""Starts `ledgerline serve` and `mlflow models serve`, and waits until a version responds."""

import http.client
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from assets.delay_model import MODEL_NAME
from benchmarks.processes import HOST, SCRIPTS, started, unused_port
from benchmarks.serving.load import OK
from benchmarks.serving.models import WEBHOOKS_KNOWN_SECONDS, Models
from ledgerline.mlflow_store import webhooks

JSON = {"Content-Type": "application/json"}
RESPONSE_SECONDS = 60.0


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

    @property
    def megabytes(self) -> float:
        """Return the memory of the process (RSS)."""
        return psutil.Process(self.process.pid).memory_info().rss / 1024**2

    def seconds_until(self, number: int, body: str, max_seconds: float, pause: float) -> float | None:
        """Send a row until a version responds; return the seconds, or None after the maximum wait."""
        begun = time.perf_counter()
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=RESPONSE_SECONDS)) as connection:
            while time.perf_counter() - begun < max_seconds:
                try:
                    connection.request("POST", "/invocations", body, JSON)
                    response = connection.getresponse()
                    response.read()
                    if response.status == OK and response.getheader("X-Model-Version") == str(number):
                        return time.perf_counter() - begun
                except (OSError, http.client.HTTPException):  # The service may still be starting.
                    connection.close()
                time.sleep(pause)
        return None


def service(
    folder: Path, models: Models, additions: Mapping[str, str] | None = None, ready: str = "/ping"
) -> AbstractContextManager[Server]:
    """Start `ledgerline serve` with its state in a folder, and wait until the page `ready` responds."""
    environment = {"LEDGERLINE_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": models.url}
    command = ("ledgerline", "serve", "--model", MODEL_NAME)
    return _started(folder, command, {**environment, **(additions or {})}, ready)


def mlflow_service(folder: Path, model: Path) -> AbstractContextManager[Server]:
    """Start `mlflow models serve` on the files of a version, and wait until it responds."""
    environment = {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",  # without this, it does not load a model in any format
        "PATH": f"{SCRIPTS}:/usr/bin:/bin",  # to find the programs that it starts
    }
    options = ("--model-uri", str(model), "--env-manager", "local", "--host", HOST)
    return _started(folder, ("mlflow", "models", "serve", *options), environment, "/ping")


@contextmanager
def notified(models: Models, server: Server) -> Iterator[None]:
    """Let the registry notify a service of changes by a webhook."""
    url = f"{server.url}/webhooks/registry"
    webhook = webhooks.register(models.client, url, models.secret, "serving-benchmark")
    time.sleep(2 * WEBHOOKS_KNOWN_SECONDS)
    try:
        yield
    finally:
        models.client.delete_webhook(webhook.webhook_id)


@contextmanager
def _started(
    folder: Path, command: Sequence[str], environment: Mapping[str, str], ready: str
) -> Iterator[Server]:
    # Even the temporary files of a killed process are deleted with this folder.
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    port, log = unused_port(), folder / "server.log"
    program = [SCRIPTS / command[0], *command[1:], "--port", str(port)]
    page = f"http://{HOST}:{port}{ready}" if ready else ""
    with started(program, {**environment, "TMPDIR": str(folder / "tmp")}, log, page) as process:
        yield Server(port, process, log)
