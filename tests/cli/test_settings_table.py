"""Tests `ledgerline settings`: values and their origins, without secrets."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledgerline.cli.main import app


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    (tmp_path / "pyproject.toml").write_text('[tool.ledgerline]\nexperiment = "oven_demand"\n')
    (tmp_path / ".env").write_text("LEDGERLINE_MLFLOW_PORT=5001\nLEDGERLINE_DAGSTER_PORT=3001\n")
    variables = {
        "LEDGERLINE_PROJECT": str(tmp_path),
        "PYTHON_DOTENV_DISABLED": "",
        "LEDGERLINE_DAGSTER_PORT": "3002",
        "LEDGERLINE_MLFLOW_PORT": "",
        "LEDGERLINE_EXPERIMENT": "",
        "LEDGERLINE_WEBHOOK_SECRET": "s3cret",
        "MLFLOW_TRACKING_URI": "http://somebody:s3cret@mlflow.example",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LEDGERLINE_MLFLOW_PORT")  # so that what the file sets is taken back
    result = CliRunner().invoke(app, ["settings"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "s3cret" not in result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    return {name: rest for name, *rest in reversed(lines)}  # a long value is continued on further lines


def test_each_setting_is_listed_with_its_value_and_origin(table: dict[str, list[str]]) -> None:
    assert table["LEDGERLINE_DAGSTER_PORT"] == ["3002", "environment"]
    assert table["LEDGERLINE_MLFLOW_PORT"] == ["5001", ".env"]
    assert table["LEDGERLINE_EXPERIMENT"] == ["oven_demand", "pyproject.toml"]
    assert table["LEDGERLINE_SERVING_PORT"] == ["8080", "default"]


def test_secrets_are_hidden(table: dict[str, list[str]]) -> None:
    assert table["LEDGERLINE_WEBHOOK_SECRET"] == ["***", "environment"]
    assert table["MLFLOW_TRACKING_URI"] == ["http://somebody:***@mlflow.example", "environment"]
