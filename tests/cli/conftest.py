"""Local state for the tests of the command line. The tests themselves are in the files beside it."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ledgerline.cli import state
from ledgerline.dagster.settings import Settings


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
