"""What becomes of the service in half an hour at half of its rate: memory, threads, files, latency."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.processes import HOST
from benchmarks.results import Result, Value
from benchmarks.serving_clients import Answers, asked, asking, percentile
from benchmarks.serving_load import Order
from benchmarks.serving_models import Models
from benchmarks.serving_servers import Registry, Server, service

MINUTES, QUICK_MINUTES = 30.0, 0.3
MEGABYTE = 1024 * 1024

CLIENTS = 8  # that show how much the service can do
SHARE = 0.5  # of that
CONNECTIONS = 64  # on which requests come at random
CALIBRATION_SECONDS = 5.0
WARM_SHARE, MAX_WARM_SECONDS = 0.2, 60.0
SAMPLES = 360
PARTS = 3


@dataclass(frozen=True)
class Sample:
    """The process at a moment.

    Attributes:
        at: Seconds since the measuring began.
        memory: RSS, in MB.
        threads: How many.
        files: Open file descriptors, connections among them.
    """

    at: float
    memory: float
    threads: int
    files: int


def measure(
    console: Console, folder: Path, registry: Registry, models: Models, minutes: float
) -> list[Result]:
    """Two tables: the process, and what clients notice."""
    seconds = 60 * minutes
    console.print("Starting the service …")
    with service(folder / "ours", models.name, registry.url) as server:
        order = Order(HOST, server.port, models.bodies, CLIENTS, 1.0, min(CALIBRATION_SECONDS, seconds))
        most = asked(folder / "calibration", order).per_second
        warm = min(MAX_WARM_SECONDS, WARM_SHARE * seconds)
        order = Order(HOST, server.port, models.bodies, CONNECTIONS, warm, seconds, SHARE * most)
        console.print(f"{SHARE * most:.0f} requests/s for {minutes:g} minutes …")
        samples = []
        with asking(folder / "soak", order) as load:
            begun = time.monotonic()
            pause = max(0.2, seconds / SAMPLES)
            # The last is taken before connections are closed.
            while (at := time.monotonic() - begun) + pause < seconds and load.process.poll() is None:
                samples.append(_sample(server, at))
                time.sleep(pause)
            answers = load.wait()
    return [_process(samples, minutes), _noticed(answers, models, most)]


def _sample(server: Server, at: float) -> Sample:
    process = server.looked_at
    with process.oneshot():
        memory = process.memory_info().rss / MEGABYTE
        return Sample(at, memory, process.num_threads(), process.num_fds())


def _process(samples: Sequence[Sample], minutes: float) -> Result:
    part = max(1, len(samples) // 10)
    rows: list[Sequence[Value]] = []
    for name, values in (
        ("RSS, MB", [sample.memory for sample in samples]),
        ("threads", [float(sample.threads) for sample in samples]),
        ("file descriptors", [float(sample.files) for sample in samples]),
    ):
        start, end = statistics.median(values[:part]), statistics.median(values[-part:])
        slope = None
        if len(samples) > 2:
            slope = 3600 * float(np.polyfit([sample.at for sample in samples], values, 1)[0])
        rows.append((name, start, end, end - start, min(values), max(values), slope, "flat"))
    return Result(
        "soak",
        f"The service in {minutes:g} minutes at half of its rate",
        ("what", "first tenth", "last tenth", "change", "least", "most", "slope per hour", "goal"),
        rows,
        ("Medians of the first and of the last tenth, after warming up.",),
    )


def _noticed(answers: Answers, models: Models, most: float) -> Result:
    verdict = models.evaluated(answers.different)
    edges = np.linspace(0, answers.duration, PARTS + 1)
    parts = [
        answers.seconds[(answers.begun >= start) & (answers.begun < end)] for start, end in pairwise(edges)
    ]
    rows: list[Sequence[Value]] = []
    for number, seconds in enumerate(parts, 1):
        p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
        ratio = p99 / percentile(parts[0], 99)
        rows.append((f"third {number}", len(seconds), len(seconds) / edges[1], p50, p99, ratio))
    return Result(
        "soak",
        f"Requests with one row that come at random, {100 * SHARE:.0f} % of {most:.0f} a second",
        ("when", "answers", "per s", "p50, ms", "p99, ms", "p99, ratio to the first"),
        rows,
        (
            f"{answers.failed} failed, {verdict.wrong} wrong of {verdict.checked:,}. Goal: none.",
            f"Latency counts from when a request comes, also while all {CONNECTIONS} connections are taken.",
            *answers.why_failed(),
        ),
    )
