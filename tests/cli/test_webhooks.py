"""Tests `ledgerline registry listen`: notifications of sensors, refused deliveries and mistakes."""

import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
from rich.console import Console

from ledgerline.cli import webhooks
from ledgerline.dagster.registry_notifications import notified_at
from ledgerline.mlflow_store.store import StoreUnreachableError
from ledgerline.mlflow_store.webhooks import RegistrationError
from ledgerline.serving.server import ListenError
from tests.project import PROJECT_ROOT
from tests.registry.deliveries import SECRET, Sent
from tests.webhook_servers import webhook_server

HOST = "127.0.0.1"
PATIENCE_SECONDS = 180  # until a test is given up, also on a machine that has much else to do

# A script starts it like this in the background: Ctrl-C is ignored by default.
BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")

LISTEN = """
import sys
from ledgerline.dagster.settings import set_library_defaults
set_library_defaults()
import dagster as dg
from rich.console import Console
from ledgerline.cli import webhooks

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    webhooks.listen(Console(), instance, sys.argv[2], port=0)
"""


@dataclass(frozen=True)
class Listener:
    """The application on a port of the loopback address, and what it has printed."""

    port: int
    output: io.StringIO

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def lines(self) -> list[str]:
        """Return the printed lines without the time."""
        return [line.partition("  ")[2] for line in self.output.getvalue().splitlines()]

    def post(self, sent: Sent) -> requests.Response:
        return requests.post(f"{self.url}{webhooks.PATH}", data=sent.body, headers=sent.headers, timeout=30)

    def answer_to(self, head: str, body: bytes = b"") -> str:
        """The first line of the answer to a request that is not finished."""
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            connection.sendall(f"POST {webhooks.PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
            return connection.makefile().readline().strip()


@pytest.fixture
def listener(instance: dg.DagsterInstance) -> Iterator[Listener]:
    output = io.StringIO()
    with webhook_server(instance, SECRET, output) as port:
        yield Listener(port, output)


# Deliveries


def test_a_delivery_notifies_the_sensors_and_is_printed_on_a_line(
    listener: Listener, instance: dg.DagsterInstance
) -> None:
    before = time.time()
    answer = listener.post(Sent())
    assert (answer.status_code, answer.content) == (204, b"")
    at = notified_at(instance)
    assert at is not None
    assert at >= before
    assert listener.lines == ["model_version_alias.created flight_delay version 3 alias production"]


def test_names_cannot_command_the_terminal(listener: Listener) -> None:
    name = rb"\u001b]0;x\u0007[red]\nnext"
    body = b'{"entity": "model_version", "action": "created", "data": {"name": "%s"}}' % name
    assert listener.post(Sent(body=body)).status_code == 204
    assert listener.lines == ["model_version.created  ]0;x [red] next"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"secret": "another"}, "the signature does not match"),
        ({"timestamp": "1700000000"}, "it was not sent within 5 minutes of the time here"),
        ({"body": b"nothing"}, "its body is not JSON"),
    ],
    ids=["another secret", "old", "no JSON"],
)
def test_an_invalid_delivery_is_refused_and_notifies_no_sensor(
    listener: Listener, instance: dg.DagsterInstance, fields: dict[str, Any], reason: str
) -> None:
    sent = Sent(**fields)  # now: these tests may have been collected more than 5 minutes ago
    for _ in range(3):
        answer = listener.post(sent)
        assert (answer.status_code, answer.text) == (401, f"Refused: {reason}.")
    assert notified_at(instance) is None
    assert listener.lines == [f"Refused: {reason}. Further refusals for this reason are not printed."]


def test_a_repeated_delivery_is_refused(listener: Listener, instance: dg.DagsterInstance) -> None:
    sent = Sent()
    assert listener.post(sent).status_code == 204
    at = notified_at(instance)
    answer = listener.post(sent)
    assert (answer.status_code, answer.text) == (401, "Refused: it was received before.")
    assert notified_at(instance) == at


def test_a_delivery_is_deferred_while_the_database_is_unavailable(
    listener: Listener, instance: dg.DagsterInstance
) -> None:
    sent = Sent()
    file = Path(instance.root_directory, "history", "runs.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("ALTER TABLE kvs RENAME TO away")
        answer = listener.post(sent)
        assert (answer.status_code, answer.text) == (503, "The notification cannot be stored now.")
        assert listener.lines[0].startswith("The notification cannot be stored: ")
        database.execute("ALTER TABLE away RENAME TO kvs")
    assert listener.post(sent).status_code == 204
    assert notified_at(instance) is not None


# Other requests


def test_a_body_with_too_large_a_declared_length_is_refused_unread(listener: Listener) -> None:
    answer = listener.answer_to(f"Content-Length: {webhooks.MAX_BODY_BYTES + 1}")
    assert answer.startswith("HTTP/1.1 413 ")


def test_a_body_that_turns_out_too_large_is_refused_before_its_end(listener: Listener) -> None:
    size = webhooks.MAX_BODY_BYTES + 1
    answer = listener.answer_to("Transfer-Encoding: chunked", f"{size:x}\r\n".encode() + b" " * size)
    assert answer.startswith("HTTP/1.1 413 ")


def test_a_body_of_the_greatest_size_is_read(listener: Listener) -> None:
    body = b"{}" + b" " * (webhooks.MAX_BODY_BYTES - 2)
    assert listener.post(Sent(body=body)).status_code == 204


def test_a_client_that_disconnects_does_not_disturb_the_others(listener: Listener) -> None:
    with socket.create_connection((HOST, listener.port)) as connection:
        connection.sendall(
            f"POST {webhooks.PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode()
        )
    assert listener.post(Sent()).status_code == 204


def test_the_health_page_reports_nothing_but_health(listener: Listener) -> None:
    health = requests.get(f"{listener.url}/health", timeout=30)
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    for path in ("/", "/docs", "/redoc", "/openapi.json", webhooks.PATH + "/"):
        assert requests.get(f"{listener.url}{path}", timeout=30).status_code == 404
    assert requests.get(f"{listener.url}{webhooks.PATH}", timeout=30).status_code == 405


# Mistakes


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_the_message_has_the_command_that_creates_one(
    instance: dg.DagsterInstance, secret: str | None
) -> None:
    with pytest.raises(webhooks.WebhookError, match="openssl rand -hex 32"):
        webhooks.listen(Console(), instance, secret)
    with pytest.raises(webhooks.WebhookError, match="openssl rand -hex 32"):
        webhooks.register(Console(), "http://127.0.0.1:5000", "https://ledgerline.example", secret)


def test_a_port_in_use_is_named(instance: dg.DagsterInstance) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ListenError, match=f"^The server cannot listen on 127.0.0.1:{port}: Address already in use"
        ):
            webhooks.listen(Console(), instance, SECRET, port=port)


def test_an_invalid_port_is_named(instance: dg.DagsterInstance) -> None:
    with pytest.raises(ListenError, match=r"^99999 is not a port"):
        webhooks.listen(Console(), instance, SECRET, port=99_999)


def test_a_server_that_does_not_answer_is_named(free_port: int) -> None:
    url = f"http://{HOST}:{free_port}"
    with pytest.raises(StoreUnreachableError, match=f"^The MLflow server at {url} does not respond"):
        webhooks.register(Console(), url, "https://ledgerline.example/webhooks/registry", SECRET)


def test_a_bare_database_cannot_send_webhooks_and_is_not_created(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/state/mlflow.db"
    with pytest.raises(RegistrationError) as error:
        webhooks.register(Console(), database, "https://ledgerline.example/webhooks/registry", SECRET)
    assert str(error.value) == (
        f"Webhooks are sent by an MLflow server, and {database} is not one. Set MLFLOW_TRACKING_URI to the "
        "address of a server, like http://127.0.0.1:5000."
    )
    assert not (tmp_path / "state").exists()


# A process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_until_a_signal_ends_it(instance: dg.DagsterInstance, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*BACKGROUND, sys.executable, "-c", LISTEN, instance.root_directory, SECRET],
        env={**os.environ, "COLUMNS": "200"},
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(f"Listening for webhooks on http://{HOST}:"), line + process.stdout.read()
        url = line.split()[4].rstrip(";")
        sent = Sent()
        answer = requests.post(url, data=sent.body, headers=sent.headers, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 204
        assert notified_at(instance) is not None

        process.send_signal(number)
        process.wait(PATIENCE_SECONDS)
        assert process.returncode == 0
        (line,) = process.stdout.read().splitlines()
        assert line.endswith("  model_version_alias.created flight_delay version 3 alias production")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
