"""Measures how fast a service follows a changed alias, and the effect on clients under full load."""

import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.context import BenchmarkError, Context, Result, Value
from benchmarks.serving.clients import Responses, load, together
from benchmarks.serving.load import Order
from benchmarks.serving.models import Models, registered, versions_in_turns
from benchmarks.serving.servers import Probe, Server, notified, service

POLL_SECONDS = 1.0  # the default of the service
LOADED = " is loaded: "  # a message in its log about a version that was not in memory
MAX_SECONDS = 30.0
CLIENTS = 8
MEGABYTE = 1024 * 1024


def measure_swaps(context: Context) -> list[Result]:
    """Measure versions in memory, on disk and in the registry, with and without a webhook."""
    from ledgerline.registry.stages import PRODUCTION
    from ledgerline.serving.follower import WARM_VERSIONS

    models, swaps = context.shared(registered), context.pick(20, 2)
    # The more versions alternate, the fewer of them are in the memory or in the cache of the service.
    kinds = {
        "in memory": 2,
        "on disk, not in memory": WARM_VERSIONS + 1,
        "in the registry only": versions_in_turns(),
    }
    rows: list[Sequence[Value]] = []
    models.set_alias(models.numbers[0], PRODUCTION)
    with _service(context, models) as server:
        for webhook in (True, False):
            with ExitStack() as until:
                if webhook:
                    until.enter_context(notified(models.registry, server))
                for kind, versions in kinds.items():
                    taken, loaded = _swapped(server, models, versions, swaps)
                    if loaded != (0 if versions == 2 else swaps):
                        raise BenchmarkError(
                            f"{loaded} of {swaps} versions were loaded that should be {kind}."
                        )
                    by = "webhook" if webhook else f"poll every {POLL_SECONDS:g} s"
                    goal = "< 1" if webhook else "< 3"
                    rows.append((kind, by, swaps, statistics.median(taken), max(taken), loaded, goal))
    notes = (
        "Counted from when the registry has confirmed the change, in seconds. There is no other load.",
        "A request is sent every 5 ms. Without a webhook, the alias changes at random times.",
    )
    columns = ("the version is", "noticed by", "swaps", "median", "longest", "loaded", "goal")
    return [
        Result("From the change of an alias to the first prediction of its version", columns, rows, notes)
    ]


@dataclass
class Kind:
    """A series of changes while clients send requests, and its effects.

    Attributes:
        name: First column of its row.
        numbers: Versions that alternate; empty if the alias is not changed.
        loads: Responses of each round.
        taken: Duration of each swap in seconds.
        late: Number of swaps that took too long.
        memory: Memory of the service after each change, in MB.
    """

    name: str
    numbers: Sequence[int]
    loads: list[Responses] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    late: int = 0
    memory: list[float] = field(default_factory=list)


def measure_loaded(context: Context) -> list[Result]:
    """Measure under full load: without changes, with changes to the same version, and with swaps."""
    models, rounds, changes = context.shared(registered), context.pick(4, 1), context.pick(50, 6)
    numbers, count = models.numbers, versions_in_turns()
    kinds = [
        Kind("no changes", ()),
        Kind("alias set to the same version", numbers[:1]),
        Kind("2 versions in memory", numbers[:2]),
        Kind(f"{count} versions, each loaded anew", numbers[:count]),
    ]
    with _service(context, models) as server, notified(models.registry, server):
        for turn in range(rounds):
            for kind in kinds:
                _change_under_load(context.folder / f"{kind.name} {turn}", server, models, kind, changes)
    return [_clients_notice(kinds, models), _memory(kinds)]


def _service(context: Context, models: Models) -> AbstractContextManager[Server]:
    secret = {"LEDGERLINE_WEBHOOK_SECRET": models.registry.secret}
    return service(context.folder / "service", models.name, models.registry.url, secret)


def _swapped(server: Server, models: Models, versions: int, swaps: int) -> tuple[list[float], int]:
    """Return the seconds of each swap, and how many versions were loaded."""
    from ledgerline.registry.stages import PRODUCTION

    numbers, probe = models.numbers[:versions], Probe(server.port, models.bodies[0])
    taken: list[float] = []
    loaded = 0
    # The first swap to each version is not counted. After it, each version is where the case requires it.
    for turn in range(versions + swaps):
        if turn == versions:
            loaded = server.log.read_text(errors="replace").count(LOADED)
        time.sleep(random.uniform(0, POLL_SECONDS))  # noqa: S311 (a time, not a secret)
        number = numbers[turn % versions]
        models.set_alias(number, PRODUCTION)
        seconds = probe.seconds_until(number, MAX_SECONDS, 0.005)
        if seconds is None:
            raise BenchmarkError(f"Version {number} is not active after {MAX_SECONDS:.0f} s.")
        if turn >= versions:
            taken.append(seconds)
    probe.close()
    return taken, server.log.read_text(errors="replace").count(LOADED) - loaded


def _change_under_load(folder: Path, server: Server, models: Models, kind: Kind, changes: int) -> None:
    """Change the alias while clients send requests."""
    from ledgerline.registry.stages import PRODUCTION

    interval, max_seconds = 0.3, 10.0
    # Each kind begins with the same version in each round.
    models.set_alias(models.numbers[0], PRODUCTION)
    probe = Probe(server.port, models.bodies[0])
    probe.seconds_until(models.numbers[0], max_seconds, 0.02)
    order = Order(server.port, models.bodies, CLIENTS, 1.5, changes * (interval + max_seconds))
    with load(folder, order) as running:
        for change in range(1, changes + 1):
            begun = time.monotonic()
            if kind.numbers:
                number = kind.numbers[change % len(kind.numbers)]
                models.set_alias(number, PRODUCTION)
                seconds = probe.seconds_until(number, max_seconds, 0.02)
                if seconds is None:
                    kind.late += 1
                else:
                    kind.taken.append(seconds)
            kind.memory.append(psutil.Process(server.process.pid).memory_info().rss / MEGABYTE)
            time.sleep(max(0.0, interval - (time.monotonic() - begun)))
        kind.loads.append(running.stop())
    probe.close()


def _clients_notice(kinds: Sequence[Kind], models: Models) -> Result:
    quiet = together(kinds[0].loads).percentile(99)
    rows: list[Sequence[Value]] = []
    notes = ["Goal: no failures, no wrong responses, and a p99 of at most 1.25 times that without changes."]
    for kind in kinds:
        responses = together(kind.loads)
        verdict = models.verdict(responses.different)
        swaps: Sequence[Value] = (0, None, None)
        if len(kind.numbers) > 1:
            swaps = (len(kind.taken), statistics.median(kind.taken), max(kind.taken))
        p50, p99 = responses.percentile(50), responses.percentile(99)
        counts = (len(responses.seconds), responses.failed, verdict.wrong, len(verdict.versions))
        rows.append((kind.name, *swaps, *counts, responses.per_second, p50, p99, p99 / quiet))
        notes.append(f"{kind.name}: {verdict.checked:,} recomputed, largest difference {verdict.largest:g}.")
        notes += [f"{kind.name}: {reason}" for reason in responses.reasons]
        if kind.late:
            notes.append(f"{kind.name}: {kind.late} versions were not active after 10 s.")
    columns = (
        *("meanwhile", "swaps", "median, s", "longest, s", "responses", "failed", "wrong", "versions"),
        *("per s", "p50, ms", "p99, ms", "ratio"),
    )
    return Result(f"Changes of an alias while {CLIENTS} clients send without a pause", columns, rows, notes)


def _memory(kinds: Sequence[Kind]) -> Result:
    rows: list[Sequence[Value]] = []
    for kind in kinds:
        part = max(1, len(kind.memory) // 5)
        start, end = statistics.median(kind.memory[:part]), statistics.median(kind.memory[-part:])
        slope = 100 * float(np.polyfit(range(len(kind.memory)), kind.memory, 1)[0])
        rows.append((kind.name, start, end, end - start, max(kind.memory), slope))
    columns = ("meanwhile", "first fifth", "last fifth", "change", "highest", "slope per 100 changes")
    note = "The kinds take turns, so each row holds what grew in the others. Goal: no growth."
    return Result("Memory of the service (RSS), in MB", columns, rows, (note,))
