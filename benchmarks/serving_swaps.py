"""How long it takes from the change of an alias to the first answer of the version that carries it now."""

import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.processes import BenchmarkError
from benchmarks.results import Result, Value
from benchmarks.serving_models import Models
from benchmarks.serving_servers import Probe, Registry, Server, service, woken

WEBHOOK_GOAL, POLL_GOAL = 1.0, 3.0  # seconds
MAX_SECONDS = 30.0
PROBE_PAUSE = 0.005
POLL_SECONDS = 1.0  # of the service, if no variable says otherwise
# What the service says of a version that was not in memory.
LOADED = " is loaded: "


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        swaps: Of each kind.
    """

    swaps: int


FULL = Size(swaps=20)
QUICK = Size(swaps=2)


@dataclass(frozen=True)
class Kind:
    """Where a version is when its turn comes.

    Attributes:
        name: Of the row.
        versions: How many take turns.
        is_cold: Whether it must be loaded.
    """

    name: str
    versions: int
    is_cold: bool


def kinds() -> list[Kind]:
    """What is measured; the more versions take turns, the less of them the service has at hand."""
    from ledgerline.serving.cache import KEPT_VERSIONS
    from ledgerline.serving.follower import WARM_VERSIONS

    return [
        Kind("in memory", 2, is_cold=False),
        Kind("on disk, not in memory", WARM_VERSIONS + 1, is_cold=True),
        Kind("in the registry only", KEPT_VERSIONS + 1, is_cold=True),
    ]


def versions_needed() -> int:
    """How many versions there must be."""
    return max(kind.versions for kind in kinds())


def measure(console: Console, folder: Path, registry: Registry, models: Models, size: Size) -> list[Result]:
    """One table: each kind of version, with and without a webhook."""
    rows: list[Sequence[Value]] = []
    secret = {"LEDGERLINE_WEBHOOK_SECRET": registry.secret}
    console.print("Starting the service …")
    with service(folder, models.name, registry.url, secret) as server:
        for with_webhook in (True, False):
            with ExitStack() as stack:
                if with_webhook:
                    stack.enter_context(woken(registry, server))
                rows += [_row(server, models, kind, size, with_webhook=with_webhook) for kind in kinds()]
    return [
        Result(
            "swaps",
            "From the change of an alias to the first answer of the version that it names, in seconds",
            ("the version is", "how it is told", "swaps", "median", "longest", "loaded", "goal"),
            rows,
            (
                "Counted from when the registry has confirmed the change. The service does nothing else.",
                f"It is asked every {1000 * PROBE_PAUSE:.0f} ms who answers.",
                f"Without a webhook the registry is asked every {POLL_SECONDS:g} s; changes come at random.",
            ),
        )
    ]


def _row(server: Server, models: Models, kind: Kind, size: Size, *, with_webhook: bool) -> Sequence[Value]:
    from ledgerline.registry.stages import PRODUCTION

    numbers = models.numbers[: kind.versions]
    probe = Probe(server.port, models.bodies[0])
    # The first time round is not counted: then each is where it should be.
    taken: list[float] = []
    loaded = 0
    for turn in range(len(numbers) + size.swaps):
        if turn == len(numbers):
            loaded = server.times_said(LOADED)
        number = numbers[turn % len(numbers)]
        time.sleep(random.uniform(0, POLL_SECONDS))  # noqa: S311 (a moment, not a secret)
        models.let_answer(number, PRODUCTION)
        seconds = probe.wait_for(number, MAX_SECONDS, PROBE_PAUSE)
        if seconds is None:
            raise BenchmarkError(f"Version {number} did not take over in {MAX_SECONDS:.0f} s: {server.log}")
        if turn >= len(numbers):
            taken.append(seconds)
    probe.close()
    loaded = server.times_said(LOADED) - loaded
    if loaded != (len(taken) if kind.is_cold else 0):
        raise BenchmarkError(f"{loaded} of {len(taken)} versions were loaded that should be {kind.name}.")
    told = "webhook" if with_webhook else f"asks every {POLL_SECONDS:g} s"
    goal = f"< {WEBHOOK_GOAL if with_webhook else POLL_GOAL:g}"
    return kind.name, told, len(taken), statistics.median(taken), max(taken), loaded, goal
