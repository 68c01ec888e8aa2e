"""`ledgerline dev`: Dagster, MLflow and serving on the local state, started and ended together."""

import base64
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import psutil
import requests
from rich.console import Console

from ledgerline.dagster.settings import Settings, environment_with
from ledgerline.mlflow_store.store import SERVER_SCHEMES, connect, without_password
from ledgerline.serving.settings import IMPATIENT

HOST = "127.0.0.1"
START_SECONDS = 120
STOP_SECONDS = 15
POLL_SECONDS = 0.25

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

MLFLOW_SERVER_ENVIRONMENT = {
    # Without scheduled jobs of its own, which nothing here uses, it starts in half the time.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # It would look for a price list of language models on the internet.
    "MLFLOW_MODEL_CATALOG_URI": "",
}


class ServerError(Exception):
    """A server cannot be started, or ended by itself; the message says which and why."""


class _StopRequestedError(Exception):
    """Somebody asked for the end: Ctrl-C, a closed terminal, a service manager."""


@dataclass(frozen=True)
class Server:
    """A process to start, and how to see that it works.

    Attributes:
        name: What it is called in messages.
        command: Its arguments.
        url: Its page.
        ready_url: Answers once it works.
        environment: Additions to this process's environment.
        log: Where its output goes.
    """

    name: str
    command: Sequence[str]
    url: str
    ready_url: str
    environment: Mapping[str, str]
    log: Path


def run_until_interrupted(console: Console, settings: Settings) -> None:
    """Start the servers, print their pages, and end them and all they started when asked to.

    Raises:
        ServerError: A port is taken, or a server does not start or ends by itself.
    """
    servers = _servers(settings)
    for server in servers:
        _require_free_port(server)
    if not _has_own_mlflow(settings):
        connect(settings.tracking_uri)  # creates its tables, before several processes want to
    running: list[tuple[Server, subprocess.Popen[bytes]]] = []
    # A handler, and not the default: started from a script in the background, this process and its
    # children would ignore Ctrl-C.
    before = {number: signal.signal(number, _request_stop) for number in STOP_SIGNALS}
    try:
        for server in servers:
            running.append((server, _start(server, settings.project.root)))  # noqa: PERF401 (one may fail: keep the others)
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
            signal.signal(number, signal.SIG_IGN)  # once is enough: ending must not be interrupted
        _stop([process for _, process in running])
        for number, handler in before.items():
            signal.signal(number, handler)


def _servers(settings: Settings) -> list[Server]:
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent
    dagster_url = f"http://{HOST}:{settings.dagster_port}"
    mlflow_url = f"http://{HOST}:{settings.mlflow_port}"
    workspace = str(settings.project.root / "workspace.yaml")
    port = str(settings.dagster_port)
    dagster = Server(
        name="Dagster",
        command=[str(scripts / "dagster"), "dev", "-w", workspace, "-h", HOST, "-p", port],
        url=dagster_url,
        ready_url=f"{dagster_url}/server_info",
        environment={} if _has_own_mlflow(settings) else {"MLFLOW_TRACKING_URI": mlflow_url},
        log=logs / "dagster.log",
    )
    serving_url = f"http://{HOST}:{settings.serving_port}"
    serving = Server(
        name="Serving",
        command=[str(scripts / "ledgerline"), "serve", "--host", HOST, "--port", str(settings.serving_port)],
        url=f"{serving_url}/docs",
        # That it is there: before the first model is trained, nothing answers.
        ready_url=f"{serving_url}/v2/health/live",
        environment=IMPATIENT | ({} if _has_own_mlflow(settings) else {"MLFLOW_TRACKING_URI": mlflow_url}),
        log=logs / "serving.log",
    )
    if _has_own_mlflow(settings):
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
        command=[
            str(scripts / "mlflow"),
            "server",
            *(part for option in options.items() for part in option),
        ],
        url=mlflow_url,
        ready_url=f"{mlflow_url}/health",
        environment=MLFLOW_SERVER_ENVIRONMENT | _webhook_environment(settings),
        log=logs / "mlflow.log",
    )
    return [mlflow, dagster, serving]


def _webhook_environment(settings: Settings) -> dict[str, str]:
    """What lets MLflow send webhooks to this machine, and keep their secret encrypted."""
    if settings.webhook_secret is None:
        return {}
    # The same key at each start, or MLflow could not read what it kept; and nothing to store for it.
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
                f"Port {port}, wanted for {server.name}, cannot be used: {error.strerror}. End what "
                f"uses it, or set LEDGERLINE_{server.name.upper()}_PORT to another."
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
            start_new_session=True,  # a group of its own, to be ended as a whole
        )


def _wait_until_ready(console: Console, running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for server, _ in running:
        with console.status(f"Starting {server.name} …"):
            while not _answers(server.ready_url):
                _require_running(running)
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{server.name} did not answer within {START_SECONDS} s.{_tail(server)}"
                    )
                time.sleep(POLL_SECONDS)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _require_running(running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> None:
    for server, process in running:
        if process.poll() is not None:
            raise ServerError(f"{server.name} ended by itself with code {process.returncode}.{_tail(server)}")


def _tail(server: Server) -> str:
    lines = server.log.read_text(errors="replace").splitlines()[-15:]
    return "\n".join(["", f"The last lines of {server.log}:", *lines])


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and everything they started: first politely, then not."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    psutil.wait_procs(_families(processes), timeout=STOP_SECONDS)
    # Listed anew each time: a server that was just starting another when it was asked to end left that one.
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = _families(processes)
        for member in alive:
            _signal(member, number)
        psutil.wait_procs(alive, timeout=STOP_SECONDS / 3)


def _families(processes: Sequence[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Processes, their descendants, and whoever else is in their sessions (orphans of descendants)."""
    sessions = {process.pid for process in processes}
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions:
                members.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _request_stop(number: int, frame: FrameType | None) -> None:
    raise _StopRequestedError
