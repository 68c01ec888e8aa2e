"""How long a service that was killed takes to answer again while the registry is down."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.checkout import PROJECT_ROOT
from benchmarks.processes import HOST, BenchmarkError, environment_of, free_port
from benchmarks.results import Result, Value
from benchmarks.serving_models import Models
from benchmarks.serving_servers import Probe, Registry, service, starting_service

GOAL_SECONDS = 3.0
MAX_SECONDS = 120.0

# What the service has imported when it answers; what these import is most of it.
IMPORTED = (
    "ledgerline.cli.main",
    "ledgerline.serving.app",
    "ledgerline.serving.service",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
    "mlflow.artifacts",
    "mlflow.models",
    "mlflow.sklearn",
    "skops.io",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.pipeline",
    "pandas",
    "pyarrow.parquet",
)
DONE = "done"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: A start of the service, and one that only imports, in each.
    """

    rounds: int


FULL = Size(rounds=5)
QUICK = Size(rounds=1)


def measure(console: Console, folder: Path, registry: Registry, models: Models, size: Size) -> list[Result]:
    """One table: from the start of the process to its first answer, and how much of it are imports."""
    from ledgerline.registry.stages import PRODUCTION

    number = models.numbers[1]
    models.let_answer(number, PRODUCTION)
    console.print("Starting the service, and killing it …")
    with service(folder, models.name, registry.url) as server:
        _kill(server.process)
    imports, answers = [], []
    for _ in range(size.rounds):
        imports.append(_import_seconds())
        answers.append(_answer_seconds(folder, models, number))
    rest = [answer - importing for answer, importing in zip(answers, imports, strict=True)]
    rows: list[Sequence[Value]] = [
        ("from the start to the first answer", *_spread(answers), None),
        ("a process that only imports the same", *_spread(imports), None),
        ("the rest", *_spread(rest), f"< {GOAL_SECONDS:g}"),
    ]
    return [
        Result(
            "restart",
            "A start after kill -9, with the registry down, in seconds",
            ("what", "rounds", "median", "longest", "goal"),
            rows,
            (f"It answers with version {number}, which it served before. In turns with the imports.",),
        )
    ]


def _answer_seconds(folder: Path, models: Models, number: int) -> float:
    """How long a start takes; the process is killed then."""
    nobody = f"http://{HOST}:{free_port()}"
    started = time.perf_counter()
    with (
        starting_service(folder, models.name, nobody) as server,
        closing(Probe(server.port, models.bodies[0])) as probe,
    ):
        try:
            probe.wait_for_first(MAX_SECONDS)
        except TimeoutError as error:
            raise BenchmarkError(f"{error} {server.log.read_text(errors='replace')[-3000:]}") from None
        seconds = time.perf_counter() - started
        if probe.version() != str(number):
            raise BenchmarkError(f"Another version than {number} answers after a start without a registry.")
        _kill(server.process)
    return seconds


def _import_seconds() -> float:
    """How long a process takes to import what the service does, with its start."""
    code = f"import {', '.join(IMPORTED)}, os; print('{DONE}', flush=True); os._exit(0)"
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, env=environment_of({}), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().decode().strip() != DONE:
                raise BenchmarkError("What the service imports cannot be imported.")
            return time.perf_counter() - started
        finally:
            process.kill()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _spread(seconds: Sequence[float]) -> tuple[int, float, float]:
    return len(seconds), statistics.median(seconds), max(seconds)
