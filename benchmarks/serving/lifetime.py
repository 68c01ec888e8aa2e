"""Measures a start after a kill while the registry is down, and half an hour at half of the maximum rate."""

import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import psutil

from benchmarks.context import BenchmarkError, Context, Result, Value
from benchmarks.processes import HOST, PROJECT_ROOT, environment_of, growth, spread, tail, unused_port
from benchmarks.serving.load import Order, Responses, load, percentile, responses_to
from benchmarks.serving.models import Models, registered
from benchmarks.serving.servers import service

# The modules that take most of the time until a service can respond.
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


def measure_restart(context: Context) -> list[Result]:
    """Measure the time from the start of the process to its first prediction, and the share of imports."""
    models, rounds, folder = context.shared(registered), context.pick(5, 1), context.folder / "service"
    number, body = models.numbers[1], models.bodies[0]
    models.set_alias(number)
    with service(folder, models) as server:
        server.process.kill()
    command = [sys.executable, "-c", f"import {', '.join(IMPORTED)}, os; os._exit(0)"]
    imports, starts = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(command, cwd=PROJECT_ROOT, env=environment_of({}), check=True)
        imports.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        nothing_listens = {"MLFLOW_TRACKING_URI": f"http://{HOST}:{unused_port()}"}
        with service(folder, models, nothing_listens, ready="") as server:
            if server.seconds_until(number, body, 120.0, 0.005) is None:
                raise BenchmarkError(f"Version {number} is not active: {tail(server.log)}")
            starts.append(time.perf_counter() - begun)
            server.process.kill()
    measured = {
        "to the first prediction": starts,
        "a process that only imports": imports,
        "the rest": [start - importing for start, importing in zip(starts, imports, strict=True)],
    }
    rows = [(name, *spread(seconds)[:2], max(seconds)) for name, seconds in measured.items()]
    note = f"The service has version {number} on disk, which was active before. Goal: a rest under 3 s."
    columns = ("seconds", "rounds", "median", "longest")
    return [Result("A start after kill -9 while the registry is down", columns, rows, (note,))]


def measure_soak(context: Context) -> list[Result]:
    """Measure the process and the latency during half an hour of requests at random times."""
    models, minutes = context.shared(registered), context.pick(30.0, 0.3)
    seconds, samples = 60 * minutes, list[tuple[float, ...]]()
    with service(context.folder / "service", models) as server:
        order = Order(server.port, models.bodies, 8, 1.0, min(5.0, seconds))
        rate = responses_to(order).per_second / 2
        order = Order(server.port, models.bodies, 64, min(60.0, seconds / 5), seconds, rate)
        context.report(f"{rate:.0f} requests/s for {minutes:g} minutes …")
        with load(order) as running:
            begun, process = time.monotonic(), psutil.Process(server.process.pid)
            pause = max(0.2, seconds / 360)
            # The last sample is taken before the connections are closed.
            while (at := time.monotonic() - begun) + pause < seconds and running.process.is_alive():
                samples.append((at, server.megabytes, process.num_threads(), process.num_fds()))
                time.sleep(pause)
            responses = running.wait()
    at, *columns = (list(column) for column in zip(*samples, strict=True))
    rows: list[Sequence[Value]] = []
    for name, values in zip(("RSS, MB", "threads", "file descriptors"), columns, strict=True):
        start, end, slope = growth(at, values, 10)
        rows.append((name, start, end, end - start, min(values), max(values), 3600 * slope))
    process_of_service = Result(
        f"The process of the service in {minutes:g} minutes at half of its highest rate",
        ("number", "first tenth", "last tenth", "change", "lowest", "highest", "slope per hour"),
        rows,
        ("Medians of the first and last tenth, after warming up. Goal: no growth.",),
    )
    return [process_of_service, _latency(responses, models, rate)]


def _latency(responses: Responses, models: Models, rate: float) -> Result:
    verdict = models.verdict(responses.different)
    edges = np.linspace(0, responses.duration, 4)
    rows: list[Sequence[Value]] = []
    first = 0.0
    for number, (start, end) in enumerate(pairwise(edges), 1):
        seconds = responses.seconds[(responses.begun >= start) & (responses.begun < end)]
        p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
        first = first or p99
        rows.append((f"third {number}", len(seconds), len(seconds) / edges[1], p50, p99, p99 / first))
    return Result(
        f"Requests with one row at random times, {rate:.0f} a second",
        ("when", "responses", "per s", "p50, ms", "p99, ms", "p99, ratio to the first"),
        rows,
        (
            f"{responses.failed} failed, {verdict.wrong} wrong of {verdict.checked:,}. Goal: none.",
            "Latency begins when a request arrives, even if no connection is free.",
            *responses.reasons,
        ),
    )
