"""Measures how long it takes to store tables: a range of days as a file each, and one day.

    .venv/bin/python -m benchmarks.storage [--rounds 5] [--beside CHECKOUT] [--folder FOLDER] [--json FILE]

Real flights are stored by a step, as `ingest_flights` does, and by pandas alone. With `--beside`, another
version of this project stores them too, in turns with this one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.results import Result, Value

ROOT = Path(__file__).parents[1]
COUNTS = (122, 1)
PEERS = "pandas;pandas, synced"
WIDTH = 132  # if the output is not a terminal

Measured = dict[tuple[str, int], list[tuple[float, float]]]


def main() -> None:
    """Measure in turns, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="checkout of another version")
    parser.add_argument("--folder", help="where to store; default: the folder of temporary files")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    result = measure(options.rounds, options.beside, options.folder or tempfile.gettempdir())
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    result.show(console)
    if options.json:
        options.json.write_text(json.dumps([result.as_json()], indent=2))


def measure(rounds: int, beside: Path | None, folder: str) -> Result:
    """Let every way store the same days, in turns, and compare medians with this version's."""
    measured: Measured = defaultdict(list)
    for _ in range(rounds):
        if beside is not None:
            record(measured, store(beside, "storage", folder), "other version")
        record(measured, store(ROOT, f"storage;{PEERS}", folder), "this version")
    rows = [row for count in COUNTS for row in compared(measured, count)]
    machine = f"{psutil.cpu_count()} processors, pyarrow {version('pyarrow')}"
    return Result(
        "storage",
        f"Storing days of flights: medians of {rounds} rounds in turns ({machine})",
        ("days as files", "by", "ms", "ms of processors", "times this version's", "of processors"),
        rows,
        [
            "This version checks, hashes and stages rows, and syncs each file; pandas does none of it.",
            "pandas, synced: each file is on the disk before the next is written.",
        ],
    )


def store(checkout: Path, ways: str, folder: str) -> list[dict[str, Any]]:
    """Run `store_days.py` with the packages of a checkout."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "store_days.py"), ways, folder]
    child = subprocess.run(
        [*command, *map(str, COUNTS)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(child.stdout)


def record(measured: Measured, times: list[dict[str, Any]], storage: str) -> None:
    """Add what one child measured."""
    for each in times:
        way = storage if each["way"] == "storage" else each["way"]
        measured[way, each["days"]].append((each["seconds"], each["cpu"]))


def compared(measured: Measured, count: int) -> list[tuple[Value, ...]]:
    """Return a row for each way to store so many days."""
    medians = {
        way: tuple(statistics.median(column) * 1000 for column in zip(*times, strict=True))
        for (way, days), times in measured.items()
        if days == count
    }
    own = medians["this version"]
    return [
        (str(count), way, wall, cpu, wall / own[0], cpu / own[1])
        for way, (wall, cpu) in sorted(medians.items(), key=lambda item: item[0] != "this version")
    ]


if __name__ == "__main__":
    main()
