"""How long a click takes until its run has ended: this project's executor, Dagster's own, and none.

Under each executor in turn, on a copy of the same state: `ledgerline run` as a whole (all 122 days read
again), and each of its jobs in a fresh run worker, as the Dagster UI would start it (one day, one
month). Prints a table and the ratios; nothing is asserted.

    .venv/bin/python -m benchmarks.step_startup [--repeats 3]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkout import PROJECT_ROOT

# What the table calls each value of LEDGERLINE_EXECUTOR.
EXECUTORS = {
    "multiprocess_spawn": "stock (spawn)",
    "multiprocess": "ours (preloaded forkserver)",
    "in_process": "in_process",
}
STOCK, OURS = "multiprocess_spawn", "multiprocess"
JOBS = [
    ("ingest_flights", "2013-07-31"),
    ("train_delay_model", "2013-07-01"),
    ("score_flights", "2013-07-31"),
]


def environment(home: Path, executor: str) -> dict[str, str]:
    """The environment of a run worker whose state is in `home`."""
    return os.environ | {
        "LEDGERLINE_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "LEDGERLINE_ARTIFACTS": str(home / "artifacts"),
        "LEDGERLINE_DATA": str(home / "data"),
        "LEDGERLINE_EXECUTOR": executor,
    }


def seconds_to_end(command: Sequence[str], env: dict[str, str]) -> float:
    """Wall-clock seconds from starting the command to its end."""
    started = time.perf_counter()
    done = subprocess.run(command, env=env, cwd=PROJECT_ROOT, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr.decode()[-3000:]}")
    return seconds


def commands() -> dict[str, list[str]]:
    """What is measured, by name."""
    ledgerline = str(Path(sys.executable).with_name("ledgerline"))
    worker = [sys.executable, "-m", "benchmarks.execute_job"]
    return {
        "ledgerline run --fresh": [ledgerline, "run", "--fresh"],
        **{f"{job} {partition}": [*worker, job, partition] for job, partition in JOBS},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="times each one is measured")
    repeats: int = parser.parse_args().repeats
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        template, home = Path(folder, "template"), Path(folder, "home")
        console.print("Preparing: the days that the model of 2013-07 needs …")
        ledgerline = Path(sys.executable).with_name("ledgerline")
        seconds_to_end([str(ledgerline), "run"], environment(template, OURS))
        times: dict[tuple[str, str], list[float]] = {}
        for repeat in range(repeats):
            for executor in EXECUTORS:
                # One folder for all, because paths are part of the state.
                shutil.rmtree(home, ignore_errors=True)
                shutil.copytree(template, home, symlinks=True)
                for name, command in commands().items():
                    seconds = seconds_to_end(command, environment(home, executor))
                    times.setdefault((executor, name), []).append(seconds)
                    console.print(f"{repeat + 1}/{repeats}  {executor:<20}{name:<32}{seconds:6.1f} s")
    console.print(table_of(times))


def table_of(times: dict[tuple[str, str], list[float]]) -> Table:
    """Medians by command and executor, with the ratio of stock to ours."""
    table = Table("command", title="Median seconds from click to end")
    for shown in EXECUTORS.values():
        table.add_column(shown, justify="right")
    table.add_column("stock / ours", justify="right")
    for name in commands():
        medians = {executor: statistics.median(times[executor, name]) for executor in EXECUTORS}
        ratio = medians[STOCK] / medians[OURS]
        table.add_row(name, *[f"{x:.1f}" for x in medians.values()], f"{ratio:.2f}x")
    return table


if __name__ == "__main__":
    main()
