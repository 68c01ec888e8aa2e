"""A state folder of a test's own."""

from pathlib import Path

import pytest

from ledgerline.dagster.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nothing is stored yet."""
    return Settings.from_environment({"LEDGERLINE_HOME": str(tmp_path / "home")})
