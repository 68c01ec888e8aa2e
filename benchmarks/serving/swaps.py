"""Measures how fast a service follows a changed alias, and the effect on clients under full load."""

import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from benchmarks.context import BenchmarkError, Context, Result, Value
from benchmarks.processes import growth
from benchmarks.serving.load import Order, Responses, load, together
from benchmarks.serving.models import VERSIONS, Models, registered
from benchmarks.serving.servers import Server, notified, service
from ledgerline.serving.follower import WARM_VERSIONS

POLL_SECONDS = 1.0  # the default of the service
LOADED = " is loaded: "  # a message in its log about a version that was not in memory
MAX_SECONDS = 30.0
INTERVAL_SECONDS, MAX_LOADED_SECONDS = 0.3, 10.0  # between changes under load
CLIENTS = 8


def measure_swaps(context: Context) -> list[Result]:
    """Measure versions in memory, on disk and in the registry, with and without a webhook."""
    models, swaps = context.shared(registered), context.pick(20, 2)
    # The more versions alternate, the fewer of them are in the memory or in the cache of the service.
    kinds = {"in memory": 2, "on disk, not in memory": WARM_VERSIONS + 1, "in the registry only": VERSIONS}
    rows: list[Sequence[Value]] = []
    models.set_alias(models.numbers[0])
    with _service(context, models) as server:
        for by, goal in (("webhook", "< 1"), (f"poll every {POLL_SECONDS:g} s", "< 3")):
            with ExitStack() as until:
                if by == "webhook":
                    until.enter_context(notified(models, server))
                for kind, versions in kinds.items():
                    taken, loaded = _swapped(server, models, versions, swaps)
                    if loaded != (0 if versions == 2 else swaps):
                        raise BenchmarkError(
                            f"{loaded} of {swaps} versions were loaded that should be {kind}."
                        )
                    rows.append((kind, by, swaps, statistics.median(taken), max(taken), loaded, goal))
    notes = (
        "Counted from when the registry has confirmed the change, in seconds. There is no other load.",
        "A request is sent every 5 ms. Without a webhook, the alias changes at random times.",
    )
    title = "From the change of an alias to the first prediction of its version"
    columns = ("the version is", "noticed by", "swaps", "median", "longest", "loaded", "goal")
    return [Result(title, columns, rows, notes)]


@dataclass
class Kind:
    """A series of changes while clients send requests, and its effects.

    Attributes:
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
    kinds = [
        Kind("no changes", ()),
        Kind("alias set to the same version", models.numbers[:1]),
        Kind("2 versions in memory", models.numbers[:2]),
        Kind(f"{VERSIONS} versions, each loaded anew", models.numbers),
    ]
    with _service(context, models) as server, notified(models, server):
        for _ in range(rounds):
            for kind in kinds:
                _change_under_load(server, models, kind, changes)
    columns = ("meanwhile", "first fifth", "last fifth", "change", "highest", "slope per 100 changes")
    rows: list[Sequence[Value]] = []
    for kind in kinds:
        start, end, slope = growth(range(len(kind.memory)), kind.memory, 5)
        rows.append((kind.name, start, end, end - start, max(kind.memory), 100 * slope))
    note = "The kinds take turns, so each row holds what grew in the others. Goal: no growth."
    memory = Result("Memory of the service (RSS), in MB", columns, rows, (note,))
    return [_clients_notice(kinds, models), memory]


def _service(context: Context, models: Models) -> AbstractContextManager[Server]:
    return service(context.folder / "service", models, {"LEDGERLINE_WEBHOOK_SECRET": models.secret})


def _swapped(server: Server, models: Models, versions: int, swaps: int) -> tuple[list[float], int]:
    """Return the seconds of each swap, and how many versions were loaded."""
    body, taken, loaded = models.bodies[0], list[float](), 0
    # The first swap to each version is not counted. After it, each version is where the case requires it.
    for turn in range(versions + swaps):
        if turn == versions:
            loaded = server.log.read_text(errors="replace").count(LOADED)
        time.sleep(random.uniform(0, POLL_SECONDS))  # noqa: S311 (a time, not a secret)
        number = models.numbers[turn % versions]
        models.set_alias(number)
        seconds = server.seconds_until(number, body, MAX_SECONDS, 0.005)
        if seconds is None:
            raise BenchmarkError(f"Version {number} is not active after {MAX_SECONDS:.0f} s.")
        taken.append(seconds)
    return taken[versions:], server.log.read_text(errors="replace").count(LOADED) - loaded


def _change_under_load(server: Server, models: Models, kind: Kind, changes: int) -> None:
    """Change the alias while clients send requests."""
    bodies = models.bodies

    def seconds_to(number: int) -> float | None:
        models.set_alias(number)
        return server.seconds_until(number, bodies[0], MAX_LOADED_SECONDS, 0.02)

    seconds_to(models.numbers[0])  # Each kind begins with the same version in each round.
    order = Order(server.port, bodies, CLIENTS, 1.5, changes * (INTERVAL_SECONDS + MAX_LOADED_SECONDS))
    with load(order) as running:
        for change in range(1, changes + 1):
            begun = time.monotonic()
            if kind.numbers:
                seconds = seconds_to(kind.numbers[change % len(kind.numbers)])
                if seconds is None:
                    kind.late += 1
                else:
                    kind.taken.append(seconds)
            kind.memory.append(server.megabytes)
            time.sleep(max(0.0, INTERVAL_SECONDS - (time.monotonic() - begun)))
        kind.loads.append(running.stop())


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
