"""Tests `ledgerline serve` as a process: its imports, its end, and its restart after a kill."""

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ledgerline.serving.server import LOG, CleanFormatter
from ledgerline.testing.waiting import wait_until
from tests.serving.conftest import ServedModels
from tests.serving.test_following import body

START_SECONDS = 60
END_SECONDS = 20
LEDGERLINE = str(Path(sys.executable).parent / "ledgerline")


@dataclass(frozen=True)
class Process:
    """A process that serves.

    Attributes:
        popen: The process.
        port: Where it listens.
        log: What it wrote.
    """

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self) -> tuple[int, str]:
        """Status and version of an answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("POST", "/invocations", body(), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers.get("X-Model-Version", "")

    def get(self, path: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.popen.poll() is None, self.log.read_text()
            with suppress(OSError):
                return self.get("/ready") == 200
            return False

        wait_until(is_ready, "the service is ready", START_SECONDS)


@contextmanager
def served(folder: Path, port: int, tracking_uri: str, **variables: str) -> Iterator[Process]:
    """`ledgerline serve`, until the body ends."""
    log = folder / "serve.log"
    environment = os.environ | {
        "LEDGERLINE_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "LEDGERLINE_SERVING_POLL_SECONDS": "0.1",
        "OTEL_SDK_DISABLED": "true",
    }
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [LEDGERLINE, "serve", "--port", str(port)],
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Process(popen, port, log)
    finally:
        popen.kill()
        popen.wait(END_SECONDS)


@pytest.fixture
def registered(served_models: ServedModels) -> ServedModels:
    served_models.serve(served_models.version())
    return served_models


def test_it_imports_no_dagster_and_listens_on_loopback_only(
    registered: ServedModels, tmp_path: Path, free_port: int
):
    names = tmp_path / "names"
    # Python starts with this module, where it is found: it writes down what was imported in the end.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: open({str(names)!r}, 'w').write('\\n'.join(sorted(sys.modules))))\n"
    )
    with served(tmp_path, free_port, registered.uri, PYTHONPATH=str(tmp_path)) as process:
        process.wait_until_ready()
        assert process.ask() == (200, "1")
        listening = [
            connection.laddr
            for connection in psutil.Process(process.popen.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        process.popen.terminate()
        assert process.popen.wait(END_SECONDS) == 0

    assert listening == [("127.0.0.1", free_port)]
    imported = names.read_text().splitlines()
    assert "ledgerline.serving.app" in imported
    assert [name for name in imported if name.partition(".")[0] in ("dagster", "assets", "pipelines")] == []


def test_at_its_end_it_answers_open_requests_and_refuses_new_connections(
    registered: ServedModels, tmp_path: Path, free_port: int
):
    with served(tmp_path, free_port, registered.uri) as process:
        process.wait_until_ready()
        content = body()
        with socket.create_connection(("127.0.0.1", free_port), timeout=END_SECONDS) as half:
            head = (
                "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            half.sendall(head.encode() + content[:10])
            wait_until(lambda: in_flight(process), "the service counts the request")
            process.popen.terminate()
            wait_until(lambda: refuses_connections(free_port), "the service refuses connections")
            half.sendall(content[10:])
            answer = half.makefile("rb").readline()
        assert process.popen.wait(END_SECONDS) == 0

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_killed_without_a_registry_it_restarts_with_the_last_version(
    registered: ServedModels, tmp_path: Path, free_port: int
):
    with served(tmp_path, free_port, registered.uri) as process:
        process.wait_until_ready()
        asking = threading.Thread(target=ask_until_it_fails, args=(process,))
        asking.start()
        process.popen.send_signal(signal.SIGKILL)
        process.popen.wait(END_SECONDS)
        asking.join()

    # An unavailable registry: no server listens there.
    with served(tmp_path, free_port, "http://127.0.0.1:9") as process:
        process.wait_until_ready()
        assert process.ask() == (200, "1")
        assert "is active again, from the cache" in process.log.read_text()


def test_a_port_in_use_is_named(tmp_path: Path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        served(tmp_path, port := taken.getsockname()[1], f"sqlite:///{tmp_path}/mlflow.db") as process,
    ):
        assert process.popen.wait(START_SECONDS) == 2
        assert process.log.read_text().strip() == (
            f"The server cannot listen on 127.0.0.1:{port}: Address already in use. Stop the process that "
            "uses "
            "the port, or choose another one by --port or LEDGERLINE_SERVING_PORT."
        )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"LEDGERLINE_SERVING_SHADOW_SHARE": "2"},
            "LEDGERLINE_SERVING_SHADOW_SHARE is '2'; set it to a number",
        ),
        ({"LEDGERLINE_SERVING_MODELS": "a,a"}, "name at least one model, and each of them once"),
    ],
)
def test_a_wrong_setting_is_named(variables: dict[str, str], message: str, tmp_path: Path, free_port: int):
    with served(tmp_path, free_port, f"sqlite:///{tmp_path}/mlflow.db", **variables) as process:
        assert process.popen.wait(START_SECONDS) == 2
        written = process.log.read_text()

    assert message in written
    assert "Traceback" not in written


def in_flight(process: Process) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return "ledgerline_requests_now 2.0" in text  # the half one and this


def refuses_connections(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return False
    return True


def ask_until_it_fails(process: Process) -> None:
    with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
        while process.ask()[0] == 200:
            pass


def test_a_line_of_the_log_and_its_stack_trace_have_no_secrets() -> None:
    try:
        raise ValueError("cannot read postgresql://me:hunter2@db/x")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "It fails: %s", "args": (error,), "exc_info": sys.exc_info()})
    line = CleanFormatter(LOG).format(record)
    assert "hunter2" not in line
    assert "It fails: cannot read postgresql://me:[redacted]@db/x" in line
    assert "Traceback" in line
