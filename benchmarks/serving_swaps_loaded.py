"""What clients notice of many swaps under full load: errors, wrong answers, latency; and what memory does."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.processes import HOST
from benchmarks.results import Result, Value
from benchmarks.serving_clients import Answers, asking, together
from benchmarks.serving_load import Order
from benchmarks.serving_models import Models
from benchmarks.serving_servers import Probe, Registry, Server, service, woken
from benchmarks.serving_swaps import versions_needed

CLIENTS = 8
P99_GOAL = 1.25
MEGABYTE = 1024 * 1024
WARM_SECONDS = 1.5
# A swap that takes longer is not waited for, and counted.
MAX_SECONDS = 10.0
PROBE_PAUSE = 0.02

QUIET, SAME, WARM, COLD = "no changes", "alias set, to the same version", "2 in memory", "cold"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        swaps: Of each kind, in all rounds together.
        rounds: Each has its share of the swaps of each kind.
        interval: From one to the next, at least, in seconds.
    """

    swaps: int
    rounds: int
    interval: float


FULL = Size(swaps=200, rounds=4, interval=0.3)
QUICK = Size(swaps=6, rounds=1, interval=0.3)


@dataclass
class Kind:
    """What is done while clients ask, and what came of it.

    Attributes:
        name: Of the row.
        numbers: The versions that take turns; none: the alias is left alone.
    """

    name: str
    numbers: Sequence[int]
    answers: list[Answers] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    late: int = 0
    memory: list[float] = field(default_factory=list)  # in MB, after each change


def measure(console: Console, folder: Path, registry: Registry, models: Models, size: Size) -> list[Result]:
    """Two tables: what clients notice, and memory."""
    numbers = models.numbers
    count = versions_needed()
    measured = [
        Kind(QUIET, ()),
        Kind(SAME, numbers[:1]),
        Kind(WARM, numbers[:2]),
        Kind(f"{count} in turns, {COLD}", numbers[:count]),
    ]
    secret = {"LEDGERLINE_WEBHOOK_SECRET": registry.secret}
    console.print("Starting the service …")
    with service(folder / "ours", models.name, registry.url, secret) as server, woken(registry, server):
        for turn in range(size.rounds):
            for kind in measured:
                _ask(folder / f"{kind.name} {turn}", server, models, kind, size)
    return [_noticed(measured, models, size), _memory(measured)]


def _ask(folder: Path, server: Server, models: Models, kind: Kind, size: Size) -> None:
    """Let clients ask while the alias is moved."""
    from ledgerline.registry.stages import PRODUCTION

    moves = max(1, size.swaps // size.rounds)
    # Each kind begins with the same version in each round.
    models.let_answer(models.numbers[0], PRODUCTION)
    probe = Probe(server.port, models.bodies[0])
    probe.wait_for(models.numbers[0], MAX_SECONDS, PROBE_PAUSE)
    most = moves * (size.interval + MAX_SECONDS)
    order = Order(HOST, server.port, models.bodies, CLIENTS, WARM_SECONDS, most)
    with asking(folder, order) as load:
        for move in range(1, moves + 1):
            started = time.monotonic()
            if kind.numbers:
                number = kind.numbers[move % len(kind.numbers)]
                models.let_answer(number, PRODUCTION)
                seconds = probe.wait_for(number, MAX_SECONDS, PROBE_PAUSE)
                if seconds is None:
                    kind.late += 1
                else:
                    kind.taken.append(seconds)
            kind.memory.append(server.looked_at.memory_info().rss / MEGABYTE)
            time.sleep(max(0.0, size.interval - (time.monotonic() - started)))
        kind.answers.append(load.stop())
    probe.close()


def _noticed(measured: Sequence[Kind], models: Models, size: Size) -> Result:
    quiet = together(measured[0].answers)
    rows: list[Sequence[Value]] = []
    notes: list[str] = []
    for kind in measured:
        answers = together(kind.answers)
        verdict = models.evaluated(answers.different)
        is_swapping = len(kind.numbers) > 1
        rows.append(
            (
                kind.name,
                len(kind.taken) if is_swapping else 0,
                statistics.median(kind.taken) if is_swapping else None,
                max(kind.taken, default=None) if is_swapping else None,
                answers.count,
                answers.failed,
                verdict.wrong,
                len(verdict.versions),
                answers.per_second,
                answers.percentile(50),
                answers.percentile(99),
                answers.percentile(99) / quiet.percentile(99),
                f"≤ {P99_GOAL:g}" if is_swapping else None,
            )
        )
        notes += [f"{kind.name}: {text}" for text in answers.why_failed()]
        if kind.late:
            notes.append(f"{kind.name}: {kind.late} versions did not take over in {MAX_SECONDS:.0f} s.")
        notes.append(
            f"{kind.name}: {verdict.checked:,} answers recomputed with the version that their header names; "
            f"the largest difference is {verdict.largest:g}."
        )
    columns = (
        "meanwhile",
        "swaps",
        "median, s",
        "longest, s",
        "answers",
        "failed",
        "wrong",
        "versions",
        "per s",
        "p50, ms",
        "p99, ms",
        "ratio",
        "goal",
    )
    return Result(
        "loaded",
        f"{CLIENTS} clients that ask without pause, an alias that moves every {size.interval:g} s, a webhook",
        columns,
        rows,
        (
            f"In turns, {size.rounds} rounds. Goal: none failed, none wrong. Ratio: of p99 to no changes.",
            "Setting the alias to the same version shows what the registry itself takes of this machine.",
            *notes,
        ),
    )


def _memory(measured: Sequence[Kind]) -> Result:
    rows: list[Sequence[Value]] = []
    for kind in measured:
        memory = kind.memory
        part = max(1, len(memory) // 5)
        start, end = statistics.median(memory[:part]), statistics.median(memory[-part:])
        slope = 100 * float(np.polyfit(range(len(memory)), memory, 1)[0]) if len(memory) > 2 else None
        rows.append((kind.name, start, end, end - start, max(memory), slope, "flat"))
    return Result(
        "loaded",
        "Memory of the service meanwhile (RSS), in MB",
        ("meanwhile", "first fifth", "last fifth", "change", "most", "slope per 100 changes", "goal"),
        rows,
        (
            "The kinds take turns, so each row has what grew in the others, too.",
            "What waits for the request log, which is written every 10 s, is in it.",
        ),
    )
