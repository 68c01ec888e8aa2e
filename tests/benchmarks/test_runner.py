"""Tests that the runner of the benchmarks lists every scenario, and runs one."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks`."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_help_lists_every_scenario_with_what_it_measures_and_how_long_it_takes() -> None:
    result = benchmarks("--help")
    assert result.returncode == 0
    for scenario in SCENARIOS:
        (line,) = [line for line in result.stdout.splitlines() if scenario.measures in line]
        assert line.split()[:4] == [scenario.area, scenario.name, f"{scenario.minutes:.0f}", "min"]


def test_every_scenario_has_a_function() -> None:
    for scenario in SCENARIOS:
        assert callable(scenario.measure)


def test_a_scenario_prints_its_tables_and_writes_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    result = benchmarks("registry", "--scenario", "comparison", "--quick", "--json", file)
    assert result.returncode == 0, result.stderr
    numbers = json.loads(file.read_text())
    (table,) = numbers["results"]
    assert (table["area"], table["scenario"]) == ("registry", "comparison")
    assert table["title"] in result.stdout
    assert len(table["rows"]) == 4
    assert all(row["processor seconds"] > 0 for row in table["rows"])
    assert {"processors", "load", "python"} <= numbers["machine"].keys()
    assert numbers["problems"] == []


def test_a_scenario_of_another_area_is_refused() -> None:
    result = benchmarks("registry", "--scenario", "swaps")
    assert result.returncode == 2
    assert "registry has no scenario swaps." in result.stderr
