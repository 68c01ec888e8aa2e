"""Tests warnings about variables that are similar to settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerline.settings.unknown import _warn_if_unknown, warn_of_unknown


@pytest.fixture(autouse=True)
def _nothing_is_warned_of_yet() -> None:
    _warn_if_unknown.cache_clear()


def test_an_unknown_variable_is_named_with_the_nearest_setting_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        warn_of_unknown(["LEDGERLINE_SERVING_PROT", "LEDGERLINE_HOME", "PATH"])

    (record,) = caplog.records
    assert record.getMessage() == (
        "LEDGERLINE_SERVING_PROT is not a setting of this version, and has no effect. "
        "Did you mean LEDGERLINE_SERVING_PORT?"
    )


def test_a_variable_that_is_like_no_setting_is_named_alone(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown(["LEDGERLINE_QQQQQQQQQQQQQQQQQQQQQQQQQQQQ"])

    assert [record.getMessage() for record in caplog.records] == [
        "LEDGERLINE_QQQQQQQQQQQQQQQQQQQQQQQQQQQQ is not a setting of this version, and has no effect."
    ]


def test_variables_of_the_stack_and_of_the_project_are_known(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown(["LEDGERLINE_PROJECT", "LEDGERLINE_JAEGER_PORT", "LEDGERLINE_SERVERS"])

    assert caplog.records == []


@pytest.mark.parametrize("command", [["serve", "--host", "no.such.host.invalid"], ["trace", "no-run"]])
def test_commands_warn_on_stderr_of_the_environment_and_of_the_file(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ledgerline]\nmodels = ["oven_demand"]\n')
    (tmp_path / ".env").write_text("LEDGERLINE_HOEM=state\n")

    child = subprocess.run(
        [Path(sys.executable).parent / "ledgerline", *command],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHON_DOTENV_DISABLED": "",
            "LEDGERLINE_PROJECT": str(tmp_path),
            "LEDGERLINE_HOME": str(tmp_path / "home"),
            "LEDGERLINE_SERVING_PROT": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert child.returncode != 0
    assert child.stderr.count("LEDGERLINE_HOEM is not a setting") == 1
    assert child.stderr.count("Did you mean LEDGERLINE_SERVING_PORT?") == 1
