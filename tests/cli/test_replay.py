"""Tests `ledgerline registry replay`: its refusals, and its output before the ruling."""

import io
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from assets.delay_model_version import FLIGHT_DELAY
from ledgerline.cli import releases, runs
from ledgerline.cli.loaded_project import load
from ledgerline.cli.main import app
from ledgerline.dagster.released_models.comparison import EvaluatedVersion
from ledgerline.dagster.settings import Settings
from ledgerline.requests.offline_inference import Latency
from ledgerline.requests.replay import Replay


def ledgerline(*arguments: str, home: Path) -> Result:
    environment = {"COLUMNS": "200", "LEDGERLINE_HOME": str(home)}
    return CliRunner().invoke(app, ["registry", "replay", *arguments], env=environment)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "'yesterday' is not a time. Write 2026-01-31"),
        (["--since", "3x"], "'3x' is not a time."),
        (
            ["somebody_else"],
            "No job compares or promotes 'somebody_else', because the definitions do not",
        ),
    ],
)
def test_contradictory_options_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = ledgerline(*arguments, home=tmp_path / "home")
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.output


def test_replayed_requests_are_printed_before_the_ruling(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    replay = Replay(
        since="2026-11-03T11:00:00+00:00",
        until="2026-11-03T12:30:00+00:00",
        requests=30,
        rows=90,
        is_cut=False,
        rows_by_version={"1": 90},
        unscored_rows=2,
        problem="a value is required of temp",
        disagreements=11,
        share=0.125,
        mean_difference=0.0213,
        largest_difference=0.4,
        recomputed_rows=90,
        recomputed_differently=0,
        timed_requests=30,
        staging_ms=Latency(1.5, 2.5),
        production_ms=Latency(1.25, 2.25),
    )
    ruling = {"rule": "calibrated", "passed": True, "value": 0.01, "threshold": 0.05, "text": "It is."}
    evaluated = EvaluatedVersion(
        2, 1, 28_000, [ruling], True, "8bdf", "run", 7, "dagster run", replay.as_dict()
    )
    outcome = runs.Outcome("dagster run", True, [], "", False)
    output = io.StringIO()
    console = Console(file=output, width=100)
    runner = runs.Runner(console, instance, settings, load(settings.project))
    releases.report(runner, releases.Release(FLIGHT_DELAY.names, outcome, evaluated, 1, {}))
    text = output.getvalue()
    assert text.index("30 with 90 rows") < text.index("calibrated")
    assert "11 (12.50% of those scored)" in text
    assert "2 (a value is required of temp)" in text
    assert "1.50, 2.50 (p50, p99 of 30)" in text
