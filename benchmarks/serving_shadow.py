"""What clients notice when the version in staging is asked everything, too: nothing, if it goes well."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from rich.console import Console

from benchmarks.processes import HOST, wait_until
from benchmarks.results import Result, Value
from benchmarks.serving_clients import Answers, asked
from benchmarks.serving_load import Order
from benchmarks.serving_models import Models
from benchmarks.serving_servers import Registry, Server, service

CLIENTS = (1, 8)
OFF, ON = "off", "on"
ASKED, SKIPPED = "ledgerline_shadow_rows_total", "ledgerline_shadow_skipped_total"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: Each asks both services once with each number of clients.
        seconds: Of asking.
        warm_seconds: Of asking before that.
    """

    rounds: int
    seconds: float
    warm_seconds: float


FULL = Size(rounds=5, seconds=6.0, warm_seconds=1.0)
QUICK = Size(rounds=1, seconds=1.5, warm_seconds=0.5)


def measure(console: Console, folder: Path, registry: Registry, models: Models, size: Size) -> list[Result]:
    """One table: without and with a shadow, in turns."""
    from ledgerline.registry.stages import PRODUCTION, STAGING

    models.let_answer(models.numbers[0], PRODUCTION)
    models.let_answer(models.numbers[1], STAGING)
    share = {"LEDGERLINE_SERVING_SHADOW_SHARE": "1"}
    console.print("Starting both services …")
    try:
        with (
            service(folder / OFF, models.name, registry.url) as without,
            service(folder / ON, models.name, registry.url, share) as with_shadow,
        ):
            for server in (without, with_shadow):
                wait_until(
                    lambda server=server: _has_staging(server), "the version in staging", log=server.log
                )
            return [_result(folder, {OFF: without, ON: with_shadow}, models, size)]
    finally:
        registry.client.delete_registered_model_alias(models.name, STAGING)


def _result(folder: Path, servers: dict[str, Server], models: Models, size: Size) -> Result:
    found: dict[tuple[str, int], list[Answers]] = {}
    for number in range(size.rounds):
        for clients in CLIENTS:
            for name, server in servers.items():
                order = Order(HOST, server.port, models.bodies, clients, size.warm_seconds, size.seconds)
                answers = asked(folder / f"{clients} {name} {number}", order)
                found.setdefault((name, clients), []).append(answers)
    rows: list[Sequence[Value]] = []
    for clients in CLIENTS:
        for share in (50, 99):
            off, on = (
                statistics.median(answers.percentile(share) for answers in found[name, clients])
                for name in (OFF, ON)
            )
            said = f"p{share} in ms, {clients} client{'s' if clients > 1 else ''}"
            rows.append((said, off, on, on / off, "1"))
    failed = sum(answers.failed for part in found.values() for answers in part)
    of = _metrics(servers[ON])
    return Result(
        "shadow",
        "The shadow: all requests are asked of the version in staging, too",
        ("one row", OFF, ON, "ratio", "goal"),
        rows,
        (
            f"In turns, medians of {size.rounds} rounds; {failed} requests failed.",
            f"Staging was asked {of.get(ASKED, 0):,.0f}; it had no time for {of.get(SKIPPED, 0):,.0f}.",
        ),
    )


def _has_staging(server: Server) -> bool:
    found = requests.get(f"http://{HOST}:{server.port}/model", timeout=5).json()
    return found["warm_in_staging"] is not None


def _metrics(server: Server) -> dict[str, float]:
    """What the service counts, by name: the sum over all labels."""
    found: dict[str, float] = {}
    text = requests.get(f"http://{HOST}:{server.port}/metrics", timeout=5).text
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found
