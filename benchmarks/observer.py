"""What observing runs costs, how fast it is, and how late, beside the peers that do it from inside of steps.

Prints a table for each of: rate (events of a log a second), memory (over 10,000 runs), spans (one inside a
step), steps (what a step takes longer), latency (until a span is at the collector) and, with --dev, the same
for the sensors of `ledgerline dev`. Nothing is asserted. The peers are in requirements/bench.lock.

    .venv/bin/python -m benchmarks.observer [--quick] [--dev] [--only steps] [--rounds 5] [--json FILE]
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
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Never

import psutil
from rich.console import Console

from benchmarks import (
    observer_latency,
    observer_memory,
    observer_rate,
    observer_spans,
    observer_steps,
    processes,
)
from benchmarks.backends import Backends, live_backends
from benchmarks.processes import BenchmarkError
from benchmarks.results import Result
from ledgerline.dagster.settings import set_library_defaults

RUNS, QUICK_RUNS = 10_000, 500
WIDTH = 132  # where the output is no terminal
LIBRARIES = ("dagster", "mlflow", "opentelemetry-sdk")

Sections = Mapping[str, Callable[[], Sequence[Result]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: whether it works, not what it costs"
    )
    parser.add_argument("--dev", action="store_true", help="measure the sensors of `ledgerline dev`, too")
    parser.add_argument("--only", action="append", help="this section alone; may be repeated")
    parser.add_argument("--rounds", type=int, help="of the section steps; 3, or 1 with --quick")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()
    # Whoever ends this ends all that it started; also where a script started it in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    for name in filter(processes.is_setting, list(os.environ)):
        del os.environ[name]  # those of a person would be measured
    os.environ["PYTHON_DOTENV_DISABLED"] = "true"
    set_library_defaults()

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = machine()
    console.print(about)
    problems: list[str] = []
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ledgerline-benchmark-")))
        known = sections(console, folder, stack, quick=arguments.quick, rounds=arguments.rounds)
        wanted = arguments.only or [name for name in known if name != "dev" or arguments.dev]
        if not known.keys() >= set(wanted):
            parser.error(f"--only takes one of: {', '.join(known)}")
        for name in wanted:
            started = time.monotonic()
            console.rule(name)
            try:
                found = known[name]()
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


def sections(
    console: Console, folder: Path, stack: ExitStack, *, quick: bool, rounds: int | None
) -> Sections:
    """What can be measured, by name; the servers that some need are started when they do."""
    servers: list[Backends] = []

    def live() -> Backends:
        if not servers:
            console.print("Starting a collector and an MLflow server …")
            servers.append(stack.enter_context(live_backends()))
        return servers[0]

    steps = observer_steps.QUICK if quick else observer_steps.FULL
    if rounds is not None:
        steps = replace(steps, rounds=rounds)
    rate = observer_rate.QUICK if quick else observer_rate.FULL
    spans = observer_spans.QUICK if quick else observer_spans.FULL
    latency = observer_latency.QUICK if quick else observer_latency.FULL
    runs = QUICK_RUNS if quick else RUNS
    return {
        "rate": lambda: observer_rate.measure(console, folder, rate),
        "memory": lambda: observer_memory.measure(console, folder, runs),
        "spans": lambda: observer_spans.measure(folder, spans),
        "steps": lambda: observer_steps.measure(console, folder, live(), steps),
        "latency": lambda: observer_latency.measure(console, folder, live(), latency),
        "dev": lambda: observer_latency.measure_dev(console, folder, live(), latency),
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
