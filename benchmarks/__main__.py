"""Measures what README and docs/ state about speed, memory and error rates. Nothing is asserted.

    python -m benchmarks [AREA] [--scenario NAME] [--quick] [--json FILE]

Each area runs in a separate process. Times below are for two cores.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.context import Context
from benchmarks.processes import is_setting
from benchmarks.scenarios import SCENARIOS, Scenario
from ledgerline.errors import LedgerlineError

WIDTH = 150  # columns, if the output is not a terminal
LIBRARIES = ("dagster", "mlflow", "scikit-learn", "opentelemetry-sdk", "fastapi", "lancedb")
AREAS = tuple(dict.fromkeys(scenario.area for scenario in SCENARIOS))


def main() -> None:
    """Run scenarios, print their tables, and write the numbers to a file if an option names it."""
    lines = (f"  {each.area:<10}{each.name:<12}{each.minutes:>3} min  {each.measures}" for each in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(("scenarios:", *lines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("area", nargs="?", choices=AREAS, help="all areas, if none is named")
    parser.add_argument("--scenario", action="append", help="run only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which only show that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    options = parser.parse_args()
    if options.area is None and options.scenario:
        parser.error("--scenario needs an area.")
    chosen = [each for each in SCENARIOS if each.area == options.area]
    if options.scenario:
        unknown = set(options.scenario) - {each.name for each in chosen}
        if unknown:
            parser.error(f"{options.area} has no scenario {', '.join(sorted(unknown))}.")
        chosen = [each for each in chosen if each.name in options.scenario]
    numbers = _all_areas(options.quick) if options.area is None else _run(chosen, options.quick)
    if options.json is not None:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    if numbers["problems"]:
        sys.exit("\n".join(numbers["problems"]))


def _all_areas(quick: bool) -> dict[str, Any]:
    """Run each area in a separate process; return the numbers of all areas."""
    numbers: dict[str, Any] = {"results": [], "problems": []}
    with tempfile.TemporaryDirectory() as folder:
        for area in AREAS:
            file = Path(folder, f"{area}.json")
            command = [sys.executable, "-m", "benchmarks", area, "--json", file, *["--quick"] * quick]
            code = subprocess.run(command, check=False).returncode
            if not file.exists():
                numbers["problems"].append(f"{area}: the process ended with code {code}.")
                continue
            part = json.loads(file.read_text())
            numbers["machine"] = part["machine"]
            for name in ("results", "problems"):
                numbers[name] += part[name]
    return numbers


def _run(scenarios: Sequence[Scenario], quick: bool) -> dict[str, Any]:
    """Run the scenarios of one area in this process; return their numbers."""
    # After a signal, every process that a scenario has started is ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    _forget_settings()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    machine = {
        "processors": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }
    console.print(machine)
    results, problems = [], []
    with ExitStack() as until:
        parent = Path(until.enter_context(tempfile.TemporaryDirectory(prefix="ledgerline-benchmark-")))
        context = Context(parent, quick, console, until)
        for scenario in scenarios:
            console.rule(f"{scenario.area} {scenario.name}")
            context.folder = parent / scenario.name
            context.folder.mkdir()
            begun = time.monotonic()
            try:
                tables = scenario.measure(context)
            except (LedgerlineError, AssertionError) as error:
                problems.append(f"{scenario.area} {scenario.name}: {error}")
                context.report(problems[-1])
                continue
            for table in tables:
                table.show(console)
                results.append({"area": scenario.area, "scenario": scenario.name, **table.as_json()})
            context.report(f"{time.monotonic() - begun:.0f} s")
    return {"machine": machine, "results": results, "problems": problems}


def _forget_settings() -> None:
    """Remove the user's settings from the environment, so that the defaults are measured."""
    from ledgerline.dagster.settings import set_library_defaults

    for name in filter(is_setting, list(os.environ)):
        del os.environ[name]
    os.environ |= {"PYTHON_DOTENV_DISABLED": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    set_library_defaults()


if __name__ == "__main__":
    main()
