"""What the project costs: time and memory of its commands, and the time to load its definitions.

Memory is the highest sum, over all processes of a command, of what each holds alone and its part of
what they share (PSS), sampled four times a second. Prints a table; nothing is asserted.

    .venv/bin/python -m benchmarks.cost [--skip-year]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.checkout import PROJECT_ROOT
from ledgerline.dagster.settings import environment_with

LEDGERLINE = str(Path(sys.executable).with_name("ledgerline"))
SAMPLE_SECONDS = 0.25
IMPORT_REPEATS = 15
DEFINITIONS = "pipelines.definitions"


def measure(command: Sequence[str], home: Path) -> tuple[float, float]:
    """Run a command on the state in `home`.

    Returns:
        Seconds, and megabytes at the highest.
    """
    started = time.perf_counter()
    highest = 0.0
    with subprocess.Popen(
        command,
        env=environment_with({"LEDGERLINE_HOME": str(home)}),
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
    ) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            highest = max(highest, proportional_megabytes(root))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with code {process.returncode}; see {home}/run.log")
    return time.perf_counter() - started, highest


def proportional_megabytes(root: psutil.Process) -> float:
    """PSS of a process and all its descendants."""
    total = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 1e6


def import_seconds(modules: Sequence[str]) -> dict[str, float]:
    """Median seconds to import each module in a fresh interpreter, taken in turns."""
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(IMPORT_REPEATS):
        for module in modules:
            script = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, check=True)
            times[module].append(float(done.stdout))
    return {module: statistics.median(values) for module, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-year", action="store_true", help="leave out the backfill of 365 days")
    skip_year: bool = parser.parse_args().skip_year
    console = Console()
    table = Table("command", title="Time and memory")
    table.add_column("seconds", justify="right")
    table.add_column("MB", justify="right")
    year = ["backfill", "ingest_flights", "--from", "2013-01-01", "--to", "2013-12-31"]
    months = ["backfill", "train_delay_model", "--from", "2013-02", "--to", "2013-12"]
    commands = [["run"], ["run"], *([] if skip_year else [year, months])]
    with tempfile.TemporaryDirectory() as folder:
        for arguments in commands:
            seconds, megabytes = measure([LEDGERLINE, *arguments], Path(folder))
            table.add_row(f"ledgerline {' '.join(arguments)}", f"{seconds:.1f}", f"{megabytes:,.0f}")
            console.print(f"ledgerline {' '.join(arguments)}: {seconds:.1f} s, {megabytes:,.0f} MB")
    console.print(table)

    seconds_of = import_seconds(["dagster", DEFINITIONS])
    for module, seconds in seconds_of.items():
        console.print(f"import {module}: {seconds:.2f} s (median of {IMPORT_REPEATS})")
    console.print(f"ratio: {seconds_of[DEFINITIONS] / seconds_of['dagster']:.2f}x")


if __name__ == "__main__":
    main()
