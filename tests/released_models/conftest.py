"""A separate state folder, and a small watched project of each kind of prediction."""

from pathlib import Path

import pytest

from ledgerline.dagster.released_models.watch import Bound
from ledgerline.dagster.settings import Settings
from ledgerline.evaluation.kinds import Regression
from tests.released_models.watched import KINDS, Project, made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nothing is stored yet."""
    return Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path / "home")})


@pytest.fixture(scope="session", params=list(KINDS))
def of_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of each kind, to be read only; numbers need a bound of their own unit."""
    home = tmp_path_factory.mktemp(request.param) / "home"
    kind = KINDS[request.param]
    bound = {"on_outcomes": Bound("bias", 1.0)} if isinstance(kind, Regression) else {}
    return made(Settings.from_environment({"LEDGERLINE_HOME": str(home)}), kind, **bound)
