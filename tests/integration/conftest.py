"""Fixtures of the project as its users start it: real processes with separate state folders."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import PROJECT_ROOT

LEDGERLINE = Path(sys.executable).with_name("ledgerline")


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """Makes the environment of a process with this state folder, and nothing left of another."""

    def make(home: Path, **variables: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LEDGERLINE_") and name not in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI")
        }
        return kept | {"LEDGERLINE_HOME": str(home), "LEDGERLINE_PROJECT": str(PROJECT_ROOT)} | variables

    return make


@pytest.fixture(scope="session")
def ledgerline(
    environment: Callable[..., dict[str, str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end."""

    def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LEDGERLINE, *arguments],
            env=environment(home, **variables),
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    return run
