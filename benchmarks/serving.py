"""What the service is like for its clients, beside `mlflow models serve` and scikit-learn alone.

Prints tables for each of: peers (requests with one row and with many), swaps (from the change of an alias to
the first answer), loaded (200 swaps under full load), shadow, restart (after kill -9, with the registry down)
and soak (half an hour at half of the rate). Nothing is asserted, but answers are recomputed. The models are
real ones, on an MLflow server with SQLite, on this machine.

    .venv/bin/python -m benchmarks.serving [--quick] [--only swaps] [--soak-minutes 30] [--json FILE]
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Never

import psutil
from rich.console import Console

from benchmarks import (
    processes,
    serving_peers,
    serving_restart,
    serving_shadow,
    serving_soak,
    serving_swaps,
    serving_swaps_loaded,
)
from benchmarks.processes import BenchmarkError
from benchmarks.results import Result
from benchmarks.serving_models import Models, registered
from benchmarks.serving_servers import Registry, mlflow_registry
from ledgerline.dagster.settings import set_library_defaults

WIDTH = 160  # where the output is no terminal
LIBRARIES = ("mlflow", "scikit-learn", "fastapi", "uvicorn")

Section = Callable[[Console, Path, Registry, Models], Sequence[Result]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: whether it works, not what it costs"
    )
    parser.add_argument("--only", action="append", help="this section alone; may be repeated")
    parser.add_argument("--soak-minutes", type=float, help="of the section soak; 30, or 0.3 with --quick")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()
    known = sections(quick=arguments.quick, soak_minutes=arguments.soak_minutes)
    wanted = arguments.only or list(known)
    if not known.keys() >= set(wanted):
        parser.error(f"--only takes one of: {', '.join(known)}")
    # Whoever ends this ends all that it started; also where a script started it in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    for name in filter(processes.is_setting, list(os.environ)):
        del os.environ[name]  # those of a person would be measured
    os.environ["PYTHON_DOTENV_DISABLED"] = "true"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"
    set_library_defaults()

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = machine()
    console.print(about)
    problems: list[str] = []
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ledgerline-benchmark-")))
        console.print("Starting an MLflow server …")
        registry = stack.enter_context(mlflow_registry(folder / "registry"))
        console.print("Training models …")
        models = registered(registry.client, folder, serving_swaps.versions_needed())
        for name in wanted:
            started = time.monotonic()
            console.rule(name)
            try:
                found = known[name](console, folder / name, registry, models)
            except BenchmarkError as error:
                problems.append(f"{name}: {error}")
                continue
            for result in found:
                result.show(console)
            results += found
            console.print(f"{name}: {time.monotonic() - started:.0f} s", highlight=False)
    if arguments.json is not None:
        told = {"machine": about, "results": [result.as_json() for result in results], "problems": problems}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")
    if problems:
        sys.exit("\n".join(problems))


def sections(*, quick: bool, soak_minutes: float | None) -> Mapping[str, Section]:
    """What can be measured, by name, in the order in which it is."""
    peers = serving_peers.QUICK if quick else serving_peers.FULL
    swaps = serving_swaps.QUICK if quick else serving_swaps.FULL
    loaded = serving_swaps_loaded.QUICK if quick else serving_swaps_loaded.FULL
    shadow = serving_shadow.QUICK if quick else serving_shadow.FULL
    restart = serving_restart.QUICK if quick else serving_restart.FULL
    minutes = soak_minutes or (serving_soak.QUICK_MINUTES if quick else serving_soak.MINUTES)
    return {
        "peers": partial(serving_peers.measure, size=peers),
        "swaps": partial(serving_swaps.measure, size=swaps),
        "loaded": partial(serving_swaps_loaded.measure, size=loaded),
        "shadow": partial(serving_shadow.measure, size=shadow),
        "restart": partial(serving_restart.measure, size=restart),
        "soak": partial(serving_soak.measure, minutes=minutes),
    }


def machine() -> dict[str, Any]:
    """Where this is measured."""
    return {
        "processors": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _stop(number: int, frame: object) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
