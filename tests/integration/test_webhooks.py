"""Tests a real MLflow server that notifies the sensors of a Dagster instance."""

import base64
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import requests
from rich.console import Console

from ledgerline.cli import webhooks
from ledgerline.dagster.registry_notifications import notified_at
from ledgerline.mlflow_store import webhooks as registry_webhooks
from ledgerline.mlflow_store.webhooks import RegistrationError
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until
from tests.registry.deliveries import SECRET
from tests.webhook_servers import webhook_server

if TYPE_CHECKING:
    from mlflow import MlflowClient


SENDING = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    # Otherwise a test would wait for a minute until the server has loaded its webhook.
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    # One of a listener that is not there is over at once.
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
}


@pytest.fixture(scope="module")
def server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an MLflow server that may send webhooks to this machine."""
    folder = tmp_path_factory.mktemp("sending-server")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    port = unused_port()
    options = {
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination": f"{folder}/artifacts",
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "mlflow"),
                "server",
                *(part for option in options.items() for part in option),
            ],
            cwd=folder,
            env=os.environ | SENDING,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to be ended as a whole
        )

    def healthy() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        with suppress(requests.RequestException):
            return requests.get(f"http://{HOST}:{port}/health", timeout=2).ok
        return False

    try:
        wait_until(healthy, "the server answers")
        yield f"http://{HOST}:{port}"
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)


@pytest.fixture
def client(server: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(server)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@contextmanager
def listening(instance: dg.DagsterInstance, secret: str = SECRET) -> Iterator[str]:
    """The URL of an instance that webhooks are sent to."""
    with webhook_server(instance, secret, io.StringIO()) as port:
        yield f"http://{HOST}:{port}{webhooks.PATH}"


def registered(tracking_uri: str, url: str, secret: str = SECRET) -> tuple[bool, str]:
    """Return the output of `ledgerline registry webhook`, and whether the listener accepted the test."""
    output = io.StringIO()
    accepted = webhooks.register(Console(file=output, width=200), tracking_uri, url, secret)
    return accepted, output.getvalue()


def test_every_change_of_a_version_notifies_the_sensors(
    server: str,
    client: "MlflowClient",
    instance: dg.DagsterInstance,
    record_property: Callable[[str, object], None],
) -> None:
    name = "wakes_the_sensors"
    client.create_registered_model(name)
    run = client.create_run("0")

    def notified_by(event: str, act: Callable[[], object]) -> None:
        before, started = notified_at(instance), time.time()
        act()
        acted = time.time()
        wait_until(lambda: notified_at(instance) != before, f"{event} wakes")
        at = notified_at(instance)
        assert at is not None
        assert at > started
        record_property(f"{event}: seconds from the call", round(at - started, 4))
        record_property(f"{event}: seconds from its answer", round(at - acted, 4))

    with listening(instance) as url:
        notified_by("a test", lambda: registered(server, url))
        notified_by(
            "a version",
            lambda: client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id),
        )
        notified_by("an alias", lambda: client.set_registered_model_alias(name, "production", "1"))
        notified_by("the same again", lambda: client.set_registered_model_alias(name, "production", "1"))
        notified_by("a tag", lambda: client.set_model_version_tag(name, "1", "stage", "production"))
        notified_by("no tag", lambda: client.delete_model_version_tag(name, "1", "stage"))
        notified_by("no alias", lambda: client.delete_registered_model_alias(name, "production"))


def test_a_second_registration_changes_the_webhook_and_creates_no_other(
    server: str, client: "MlflowClient", instance: dg.DagsterInstance
) -> None:
    with listening(instance) as one, listening(instance, secret="another") as other:
        for url, secret in ((one, SECRET), (one, SECRET), (other, "another"), (other, "another")):
            accepted, output = registered(server, url, secret)
            assert accepted, output
            assert output == (
                f"MLflow sends changes of its registry to {url} (webhook 'ledgerline').\n"
                "A test delivery was accepted.\n"
            )
            (webhook,) = client.list_webhooks()
            assert (webhook.name, webhook.url) == ("ledgerline", url)
            assert sorted(str(event) for event in webhook.events) == sorted(registry_webhooks.EVENTS)


def test_a_disabled_webhook_of_another_name_is_reused(
    client: "MlflowClient", instance: dg.DagsterInstance
) -> None:
    with listening(instance) as url:
        made = client.create_webhook("by-hand", url, ["registered_model.created"], status="DISABLED")
        for webhook in client.list_webhooks():
            if webhook.webhook_id != made.webhook_id:
                client.delete_webhook(webhook.webhook_id)
        webhook = registry_webhooks.register(client, url, SECRET, "ledgerline")
        assert (webhook.webhook_id, webhook.name, webhook.status) == (made.webhook_id, "ledgerline", "ACTIVE")
        assert registry_webhooks.send_test(client, webhook) is None


def test_a_listener_that_refuses_or_is_unavailable_is_named_with_a_remedy(
    server: str, instance: dg.DagsterInstance
) -> None:
    with listening(instance, secret="another") as url:
        accepted, output = registered(server, url)
        assert not accepted
        assert "not accepted: the response is 401: Refused: the signature does not match." in output
        assert "LEDGERLINE_WEBHOOK_SECRET" in output
    assert notified_at(instance) is None
    accepted, output = registered(server, url)
    assert not accepted
    assert "Connection refused" in output
    assert "ledgerline registry listen" in output


def test_an_address_that_mlflow_refuses_is_reported_with_the_needed_setting(server: str) -> None:
    with pytest.raises(RegistrationError) as error:
        registered(server, "ftp://someone:password@ledgerline.example/webhooks/registry")
    message = str(error.value)
    assert message.startswith("MLflow does not accept the webhook: ")
    assert "Invalid webhook URL scheme: 'ftp'" in message
    for name in ("SECRET_ENCRYPTION_KEY", "ALLOW_PRIVATE_IPS", "ALLOWED_SCHEMES"):
        assert f"MLFLOW_WEBHOOK_{name}" in message
    assert "password" not in message
    assert SECRET not in message
