"""Starts and ends Dagster, MLflow and serving on the local state together, for `ledgerline dev`."""

import base64
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import psutil
import requests
from rich.console import Console

from ledgerline.cleaning.passwords import without_password
from ledgerline.dagster.settings import Settings, environment_with
from ledgerline.errors import LedgerlineError
from ledgerline.mlflow_store.store import SERVER_SCHEMES, connect
from ledgerline.serving.settings import IMPATIENT

HOST = "127.0.0.1"
START_SECONDS = 120
STOP_SECONDS = 15
POLL_SECONDS = 0.25

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

MLFLOW_SERVER_ENVIRONMENT = {
    # Without its job scheduler, which is not used here, MLflow starts in half the time.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Otherwise, MLflow downloads a price list of language models.
    "MLFLOW_MODEL_CATALOG_URI": "",
}


class ServerError(LedgerlineError):
    """A server of `ledgerline dev` cannot be started, or has ended unexpectedly."""


class _StopRequestedError(Exception):
    """An exception of the signal handlers, with which Ctrl-C and service managers end the servers."""


@dataclass(frozen=True)
class Server:
    """A server process, whose output is written to its log."""

    name: str
    command: Sequence[str]
    url: str  # of its page
    ready_url: str  # responds with success once the server is ready
    environment: Mapping[str, str]  # variables that are added to those of this process
    log: Path


def run_until_interrupted(console: Console, settings: Settings) -> None:
    """Start the servers, print their URLs, and on a signal end them with all their child processes.

    Raises:
        ServerError: A port is in use, or a server does not start or ends unexpectedly.
    """
    servers = _servers(settings)
    for server in servers:
        _require_free_port(server)
    if not _has_own_mlflow(settings):
        connect(settings.tracking_uri)  # creates the tables before several processes try to
    running: list[tuple[Server, subprocess.Popen[bytes]]] = []
    # Signals have a handler, because by default a process that a script starts in the background, and its
    # children, ignore Ctrl-C.
    before = {number: signal.signal(number, _request_stop) for number in STOP_SIGNALS}
    try:
        for server in servers:
            running.append((server, _start(server, settings.project.root)))  # noqa: PERF401 (if one fails, the others must be ended)
        _wait_until_ready(console, running)
        for server in servers:
            console.print(f"[bold]{server.name:<8}[/]{server.url}   [dim]log: {server.log}[/]")
        if _has_own_mlflow(settings):
            console.print(f"[bold]MLflow  [/]{without_password(settings.tracking_uri)}")
        console.print("Ctrl-C ends everything.")
        while True:
            _require_running(running)
            time.sleep(POLL_SECONDS)
    except _StopRequestedError:
        console.print("Ending …")
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the shutdown
        _stop([process for _, process in running])
        for number, handler in before.items():
            signal.signal(number, handler)


def _servers(settings: Settings) -> list[Server]:
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent
    dagster_url, mlflow_url, serving_url = (
        f"http://{HOST}:{port}"
        for port in (settings.dagster_port, settings.mlflow_port, settings.serving_port)
    )
    tracking = {} if _has_own_mlflow(settings) else {"MLFLOW_TRACKING_URI": mlflow_url}
    workspace, port = str(settings.project.root / "workspace.yaml"), str(settings.dagster_port)
    dagster = Server(
        name="Dagster",
        command=[str(scripts / "dagster"), "dev", "-w", workspace, "-h", HOST, "-p", port],
        url=dagster_url,
        ready_url=f"{dagster_url}/server_info",
        environment=tracking,
        log=logs / "dagster.log",
    )
    serving = Server(
        name="Serving",
        command=[str(scripts / "ledgerline"), "serve", "--host", HOST, "--port", str(settings.serving_port)],
        url=f"{serving_url}/docs",
        # Serving is live, and not ready, until the first model is trained.
        ready_url=f"{serving_url}/v2/health/live",
        environment=IMPATIENT | tracking,
        log=logs / "serving.log",
    )
    if not tracking:
        return [dagster, serving]
    options = {
        "--backend-store-uri": settings.tracking_uri,
        "--artifacts-destination": settings.artifacts or str(settings.home / "artifacts"),
        "--host": HOST,
        "--port": str(settings.mlflow_port),
        "--workers": "1",
    }
    mlflow = Server(
        name="MLflow",
        command=[str(scripts / "mlflow"), "server", *chain.from_iterable(options.items())],
        url=mlflow_url,
        ready_url=f"{mlflow_url}/health",
        environment=MLFLOW_SERVER_ENVIRONMENT | _webhook_environment(settings),
        log=logs / "mlflow.log",
    )
    return [mlflow, dagster, serving]


def _webhook_environment(settings: Settings) -> dict[str, str]:
    """Return the variables with which MLflow sends webhooks to this machine and encrypts their secret."""
    if settings.webhook_secret is None:
        return {}
    # The key is derived, so that MLflow can decrypt the secret after a restart and no key has to be stored.
    key = hashlib.sha256(f"mlflow webhooks {settings.webhook_secret}".encode()).digest()
    return {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(key).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }


def _has_own_mlflow(settings: Settings) -> bool:
    return settings.tracking_uri.split(":")[0] in SERVER_SCHEMES


def _require_free_port(server: Server) -> None:
    port = urlsplit(server.url).port or 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"Port {port}, which {server.name} needs, cannot be used: {error.strerror}.",
                f"End the program that uses it, or set LEDGERLINE_{server.name.upper()}_PORT to another "
                "port.",
            ) from error


def _start(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    with server.log.open("wb") as log:
        return subprocess.Popen(
            server.command,
            cwd=folder,
            env=environment_with(server.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the process group can be ended as a whole
        )


def _wait_until_ready(console: Console, running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for server, _ in running:
        with console.status(f"Starting {server.name} …"):
            while not _responds(server.ready_url):
                _require_running(running)
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{server.name} did not respond within {START_SECONDS} s.", _log_end(server)
                    )
                time.sleep(POLL_SECONDS)


def _responds(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _require_running(running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> None:
    for server, process in running:
        if process.poll() is not None:
            raise ServerError(
                f"{server.name} ended unexpectedly with exit code {process.returncode}.", _log_end(server)
            )


def _log_end(server: Server) -> str:
    lines = server.log.read_text(errors="replace").splitlines()[-15:]
    return "\n".join([f"The last lines of {server.log}:", *lines])


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and their descendants: with SIGINT, then SIGTERM, then SIGKILL."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    psutil.wait_procs(_families(processes), timeout=STOP_SECONDS)
    # The processes are listed anew each time, because a server may start another process while it ends.
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = _families(processes)
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        psutil.wait_procs(alive, timeout=STOP_SECONDS / 3)


def _families(processes: Sequence[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Return the processes and all others in their sessions: descendants, and orphans of descendants."""
    sessions = {process.pid for process in processes}
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) in sessions:
                members.append(process)
    return members


def _request_stop(number: int, frame: FrameType | None) -> None:
    raise _StopRequestedError
