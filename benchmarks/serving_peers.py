"""How fast answers are, beside `mlflow models serve` and beside scikit-learn alone, with the same model."""

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.processes import HOST, BenchmarkError
from benchmarks.results import Result, Value
from benchmarks.serving_alone import Alone, alone, write_rows
from benchmarks.serving_clients import Answers, asked
from benchmarks.serving_load import Order
from benchmarks.serving_models import Models, body_of
from benchmarks.serving_servers import Registry, Server, peer, service

OURS, PEER = "ledgerline serve", "mlflow models serve"
# What is compared with, and the same with threads that wait as those of the service do.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
ALONE, ALONE_ONE_THREAD = "predict_proba alone", "predict_proba alone, one thread"
CLIENTS = (1, 8)
MAX_CLIENTS = max(CLIENTS)

RATE_GOAL, LATENCY_GOAL, MANY_ROWS_GOAL = 3.0, 0.5, 1.3
# Threads of scikit-learn go on for a moment after they have answered.
REST_SECONDS = 0.3
MIN_SECONDS = 0.5


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: Each asks every server once with each number of clients.
        seconds: Of asking.
        warm_seconds: Of asking before that.
        many_rounds: The same for many rows.
        many_times: Requests with many rows in each round.
    """

    rounds: int
    seconds: float
    warm_seconds: float
    many_rounds: int
    many_times: int


FULL = Size(rounds=7, seconds=6.0, warm_seconds=2.0, many_rounds=9, many_times=20)
QUICK = Size(rounds=1, seconds=1.5, warm_seconds=0.5, many_rounds=2, many_times=5)


def measure(console: Console, folder: Path, registry: Registry, models: Models, size: Size) -> list[Result]:
    """Two tables: requests with one row, and requests with many."""
    from ledgerline.registry import versions
    from ledgerline.registry.stages import PRODUCTION

    number = models.numbers[0]
    models.let_answer(number, PRODUCTION)
    files = folder / "model"
    with versions.verified_files(
        registry.client, versions.version(registry.client, models.name, number)
    ) as at:
        shutil.copytree(at, files)
    console.print("Starting both servers …")
    with (
        service(folder / "ours", models.name, registry.url) as ours,
        peer(folder / "peer", files) as theirs,
    ):
        servers = {OURS: ours, PEER: theirs}
        one = _one_row(folder, servers, models, size)
        rows = folder / "rows.parquet"
        write_rows(models.many, rows)
        with alone(files, rows, {}) as stock, alone(files, rows, ONE_THREAD) as one_thread:
            raw = {ALONE: stock, ALONE_ONE_THREAD: one_thread}
            return [one, _many_rows(folder, raw, servers, models, size)]


def _one_row(folder: Path, servers: Mapping[str, Server], models: Models, size: Size) -> Result:
    found: dict[tuple[str, int], list[Answers]] = {}
    for number in range(size.rounds):
        for clients in CLIENTS:
            for name, server in servers.items():
                order = Order(HOST, server.port, models.bodies, clients, size.warm_seconds, size.seconds)
                answers = asked(folder / f"{clients} {name} {number}", order)
                found.setdefault((name, clients), []).append(answers)
    rows: list[Sequence[Value]] = []
    for clients in CLIENTS:
        ours, theirs = found[OURS, clients], found[PEER, clients]
        of = f"{clients} client{'s' if clients > 1 else ''}"
        rates = [answers.per_second for answers in ours], [answers.per_second for answers in theirs]
        goal = f"≥ {RATE_GOAL:g}" if clients == MAX_CLIENTS else None
        rows.append((f"requests/s, {of}", *_beside(*rates), goal))
        for share in (50, 99):
            times = [[answers.percentile(share) for answers in part] for part in (ours, theirs)]
            goal = f"≤ {LATENCY_GOAL:g}" if clients == MAX_CLIENTS else None
            rows.append((f"p{share} in ms, {of}", *_beside(*times), goal))
    notes = [f"The same requests and client for both, in turns; medians of {size.rounds} rounds."]
    for name in servers:
        parts = [answers for clients in CLIENTS for answers in found[name, clients]]
        failed = sum(answers.failed for answers in parts)
        different = [answer for answers in parts for answer in answers.different]
        verdict = models.evaluated(different, models.numbers[0])
        notes.append(
            f"{name}: {verdict.checked:,} answers recomputed, {verdict.wrong} wrong, {failed} failed; "
            f"the largest difference is {verdict.largest:g}."
        )
        notes += [f"{name}: {text}" for answers in parts for text in answers.why_failed()][:3]
    columns = ("one row", OURS, PEER, "ratio", "of the rounds: lowest", "highest", "goal")
    return Result("peers", "Requests with one row each", columns, rows, notes)


def _many_rows(
    folder: Path, raw: Mapping[str, Alone], servers: Mapping[str, Server], models: Models, size: Size
) -> Result:
    number, frame = models.numbers[0], models.many
    body = body_of(frame)
    taken: dict[str, list[float]] = {name: [] for name in (*raw, *servers)}
    for turn in range(size.many_rounds + 1):
        found: dict[str, Sequence[float]] = {}
        for name, process in raw.items():
            found[name] = process.seconds(size.many_times)
            time.sleep(REST_SECONDS)
        for name, server in servers.items():
            time.sleep(REST_SECONDS)
            # One client, for as long as so many requests take.
            seconds = max(MIN_SECONDS, 2 * size.many_times * statistics.median(found[ALONE]))
            order = Order(HOST, server.port, [body], 1, 0.2, seconds)
            answers = asked(folder / f"many {name} {turn}", order)
            if answers.failed:
                raise BenchmarkError(f"{name} fails on many rows: {answers.why_failed()}")
            models.require_same(number, answers.different[0].body)
            found[name] = list(answers.seconds)
        if turn:  # the first is for warming up
            for name, seconds in found.items():
                taken[name].append(1000 * statistics.median(seconds))
    raw_median = min(statistics.median(taken[name]) for name in raw)
    rows: list[Sequence[Value]] = []
    for name, times in taken.items():
        median = statistics.median(times)
        goal = f"≤ {MANY_ROWS_GOAL:g}" if name == OURS else None
        rows.append((name, median, min(times), max(times), median / raw_median, goal))
    return Result(
        "peers",
        f"Requests with {len(frame):,} rows each, one client",
        ("who", "median, ms", "of the rounds: lowest", "highest", "ratio", "goal"),
        rows,
        (
            f"Medians of {size.many_rounds} rounds, in turns. A request has {len(body) // 1000} kB of JSON.",
            "An answer of each server in each round was recomputed. Ratio: to the faster row alone.",
        ),
    )


def _beside(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float, float, float]:
    """The medians, their ratio, and the least and greatest ratio of a round."""
    if min(theirs) == 0:
        raise BenchmarkError("There is nothing to compare with: a peer answers nothing.")
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    medians = statistics.median(ours), statistics.median(theirs)
    return *medians, medians[0] / medians[1], min(ratios), max(ratios)
