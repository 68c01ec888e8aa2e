"""Fixtures of the tests of the command line: local state, and the command line in this process."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from ledgerline.cli import state
from ledgerline.cli.main import app
from ledgerline.dagster.settings import Settings
from tests.cli.command_lines import Ledgerline
from tests.cli.foreign_homes import baked


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Commands export their settings to the processes they start: take that back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder, made ready as the commands do."""
    home = {"LEDGERLINE_HOME": str(tmp_path / "home"), "LEDGERLINE_EXECUTOR": "in_process"}
    settings = Settings.from_environment(home)
    state.prepare(settings)
    return settings


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of that state."""
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        yield instance


@pytest.fixture
def mlflow_with_tables(settings: Settings, mlflow_template: Path) -> None:
    """Copy MLflow's tables to that state: creating them takes seconds."""
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")


@pytest.fixture
def client(settings: Settings, mlflow_with_tables: None) -> MlflowClient:
    """A client of the MLflow database of that state."""
    return MlflowClient(settings.tracking_uri)


@pytest.fixture
def ledgerline(settings: Settings, mlflow_with_tables: None) -> Ledgerline:
    """Return a function that runs the command line in this process: `ledgerline("observe", "--all")`."""

    def invoke(*arguments: object, **variables: str) -> Result:
        environment = {"LEDGERLINE_HOME": str(settings.home), "COLUMNS": "120", **variables}
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)

    return invoke


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of an instance of another project, which has run once."""
    folder = tmp_path / "bakery" / "dagster_home"
    folder.mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        baked(instance)
    return folder
