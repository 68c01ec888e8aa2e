"""Tests the commands as a person types them: their help, and the messages for mistakes."""

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ledgerline.cli.main import app
from ledgerline.serving.settings import IMPATIENT
from ledgerline.settings.library_defaults import MLFLOW_DEFAULTS

COMMANDS = {
    "run": ["job", "--partition", "--from", "--to", "--config", "--fresh"],
    "backfill": ["job", "--partition", "--from", "--to"],
    "dev": [],
    "observe": ["--all", "--since", "--follow", "--dagster-home"],
    "trace": ["--least", "--dagster-home"],
    "settings": [],
}


def ledgerline(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", **environment})


def plain(text: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "home")


def test_without_a_command_all_are_listed() -> None:
    shown = plain(ledgerline("--help").stdout)
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself_and_its_options(command: str) -> None:
    result = ledgerline(command, "--help")
    assert result.exit_code == 0
    shown = plain(result.stdout)
    assert [option for option in COMMANDS[command] if option not in shown] == []


def test_a_month_that_is_not_there_is_refused_with_those_that_are(home: str) -> None:
    result = ledgerline("run", "--partition", "2013-13", LEDGERLINE_HOME=home)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "'2013-13' is not a partition of train_delay_model. Choose one from 2013-02-01 to 2013-12-01."
    )
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sleep", "--from", "2013-02"], "There is no job 'sleep'. Choose one of "),
        (["train_delay_model", "--from", "2013-01"], "'2013-01' is not a partition of train_delay_model"),
        (["score_flights", "--from", "2013-02"], "'2013-02' is more than one partition of score_flights. "),
        (["score_flights", "--from", "2013-02-02", "--to", "2013-02-01"], "--from 2013-02-02 is later"),
    ],
)
def test_a_backfill_of_unknown_assets_is_refused(arguments: list[str], message: str, home: str) -> None:
    result = ledgerline("backfill", *arguments, LEDGERLINE_HOME=home)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["dev"], ["backfill", "score_flights", "--from", "2013-02-01"], ["observe", "--all"]],
)
def test_a_file_in_the_way_of_the_state_folder_is_named(arguments: list[str], home: str) -> None:
    Path(home).write_text("in the way")
    result = ledgerline(*arguments, LEDGERLINE_HOME=home)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{home} cannot be written: File exists.")
    assert "set LEDGERLINE_HOME to a folder that you can write" in result.stderr
    assert "Traceback" not in result.output
    assert Path(home).read_text() == "in the way"


def test_a_state_folder_inside_a_file_is_named(home: str) -> None:
    Path(home).write_text("in the way")
    result = ledgerline("run", LEDGERLINE_HOME=f"{home}/inside")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{home}/inside cannot be written: Not a directory.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEDGERLINE_EXECUTOR", "cluster"),
        ("LEDGERLINE_DAGSTER_PORT", "http"),
        ("LEDGERLINE_MLFLOW_PORT", "-1"),
        ("LEDGERLINE_OBSERVER", "nobody"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str, home: str) -> None:
    result = ledgerline("run", LEDGERLINE_HOME=home, **{name: value})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{name} is {value!r}; set it to ")
    assert not Path(home).exists()


def test_a_variable_of_the_file_wins_over_the_default_that_serving_sets_for_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ledgerline]\nmodels = ["oven_demand"]\n')
    (tmp_path / ".env").write_text("MLFLOW_HTTP_REQUEST_TIMEOUT=7\n")
    for name in (*IMPATIENT, *MLFLOW_DEFAULTS):
        monkeypatch.setenv(name, "")  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("LEDGERLINE_PROJECT", str(tmp_path))
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "")

    assert CliRunner().invoke(app, ["serve", "--host", "no.such.host.invalid"]).exit_code == 2

    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == IMPATIENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]


def test_the_first_command_makes_the_state_folder_ready_for_dagster(home: str) -> None:
    ledgerline("run", "--partition", "2013-13", LEDGERLINE_HOME=home)
    configuration = Path(home, "dagster", "dagster.yaml")
    assert configuration.is_symlink()
    assert "telemetry" in configuration.read_text()


def test_a_link_to_a_checkout_that_has_moved_is_renewed(home: str) -> None:
    configuration = Path(home, "dagster", "dagster.yaml")
    configuration.parent.mkdir(parents=True)
    configuration.symlink_to("/nowhere/dagster.yaml")
    ledgerline("run", "--partition", "2013-13", LEDGERLINE_HOME=home)
    assert configuration.exists()


def test_a_custom_instance_configuration_is_kept(home: str) -> None:
    configuration = Path(home, "dagster", "dagster.yaml")
    configuration.parent.mkdir(parents=True)
    configuration.write_text("telemetry: {enabled: false}\n")
    ledgerline("run", "--partition", "2013-13", LEDGERLINE_HOME=home)
    assert configuration.read_text() == "telemetry: {enabled: false}\n"


def test_a_file_in_the_way_of_the_cache_of_serving_is_named(home: str) -> None:
    Path(home).write_text("in the way")
    result = ledgerline("serve", LEDGERLINE_SERVING_CACHE=f"{home}/cache", LEDGERLINE_HOME=home)
    assert result.exit_code == 2
    assert result.stderr == (
        f"The cache {home}/cache cannot be created: Not a directory. "
        "Set LEDGERLINE_SERVING_CACHE to a folder that you can write.\n"
    )
