"""Tests `ledgerline dev` before it starts servers: ports in use, and no process left behind."""

import io
import signal
import socket
from collections.abc import Iterator

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ledgerline.cli import dev_servers
from ledgerline.cli.main import app
from ledgerline.dagster.settings import Settings


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server((dev_servers.HOST, 0)) as listener:
        yield listener.getsockname()[1]


def with_ports(settings: Settings, *, mlflow: int, dagster: int) -> Settings:
    return settings.model_copy(update={"mlflow_port": mlflow, "dagster_port": dagster})


def refusal_of(settings: Settings) -> str:
    console = Console(file=io.StringIO())
    with pytest.raises(dev_servers.ServerError) as caught:
        dev_servers.run_until_interrupted(console, settings)
    return str(caught.value)


def test_a_port_in_use_is_named_with_its_server(settings: Settings, taken_port: int, free_port: int) -> None:
    assert refusal_of(with_ports(settings, mlflow=free_port, dagster=taken_port)) == (
        f"Port {taken_port}, which Dagster needs, cannot be used: Address already in use. "
        "End the program that uses it, or set LEDGERLINE_DAGSTER_PORT to another port."
    )
    assert "LEDGERLINE_MLFLOW_PORT" in refusal_of(with_ports(settings, mlflow=taken_port, dagster=free_port))


def test_no_server_is_started_when_a_port_is_in_use(
    settings: Settings, taken_port: int, free_port: int
) -> None:
    before = {number: signal.getsignal(number) for number in dev_servers.STOP_SIGNALS}
    children = psutil.Process().children(recursive=True)
    refusal_of(with_ports(settings, mlflow=free_port, dagster=taken_port))
    assert psutil.Process().children(recursive=True) == children
    assert {number: signal.getsignal(number) for number in dev_servers.STOP_SIGNALS} == before


def test_an_existing_mlflow_server_needs_no_port(settings: Settings, taken_port: int) -> None:
    there = settings.model_copy(update={"tracking_uri": "http://mlflow.example:5000"})
    elsewhere = with_ports(
        there,
        mlflow=taken_port,
        dagster=taken_port,
    )
    assert f"Port {taken_port}, which Dagster needs, " in refusal_of(elsewhere)


def test_the_command_ends_with_the_message_only(settings: Settings, taken_port: int) -> None:
    environment = {"LEDGERLINE_HOME": str(settings.home), "LEDGERLINE_MLFLOW_PORT": str(taken_port)}
    result = CliRunner().invoke(app, ["dev"], env=environment)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Port {taken_port}, which MLflow needs, cannot be used: ")
    assert "Traceback" not in result.output
