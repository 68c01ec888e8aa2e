"""Measures latency and rate of predictions, also with a shadow, `mlflow models serve` and scikit-learn."""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import requests
from threadpoolctl import threadpool_limits

from benchmarks.context import BenchmarkError, Context, Result, Value
from benchmarks.processes import milliseconds
from benchmarks.serving.clients import Responses, responses_to
from benchmarks.serving.load import Order
from benchmarks.serving.models import Models, body_of, registered
from benchmarks.serving.servers import Server, mlflow_service, service
from ledgerline.testing.waiting import wait_until

SERVICE, PEER = "ledgerline serve", "mlflow models serve"
ALONE, ONE_THREAD = "predict_proba alone", "predict_proba, one thread"
CLIENTS = (1, 8)
REST_SECONDS = 0.3  # threads of scikit-learn run for a short time after a prediction
SHADOWED, SKIPPED = "ledgerline_shadow_rows_total", "ledgerline_shadow_skipped_total"

Loads = Mapping[tuple[str, int], Sequence[Responses]]


def measure_requests(context: Context) -> list[Result]:
    """Measure requests with one row from one client and from eight clients."""
    models, rounds = context.shared(registered), context.pick(7, 1)
    with _both_services(context, models) as servers:
        loads = _in_turns(context, servers, models, rounds)
    rows: list[Sequence[Value]] = []
    for clients in CLIENTS:
        ours, theirs = loads[SERVICE, clients], loads[PEER, clients]
        measured: list[tuple[str, Callable[[Responses], float], str]] = [
            ("requests/s", lambda load: load.per_second, "≥ 3"),
            ("p50, ms", lambda load: load.percentile(50), "≤ 0.5"),
            ("p99, ms", lambda load: load.percentile(99), "≤ 0.5"),
        ]
        for name, number, goal in measured:
            row = _beside([number(load) for load in ours], [number(load) for load in theirs])
            rows.append(
                (f"{name}, {clients} client{'s' * (clients > 1)}", *row, goal if clients > 1 else None)
            )
    notes = [f"The same requests and client for both, in turns; medians of {rounds} rounds."]
    for name in servers:
        parts = [load for clients in CLIENTS for load in loads[name, clients]]
        verdict = models.verdict([each for part in parts for each in part.different], models.numbers[0])
        notes.append(
            f"{name}: {verdict.checked:,} responses recomputed, {verdict.wrong} wrong, "
            f"{sum(part.failed for part in parts)} failed; the largest difference is {verdict.largest:g}."
        )
        notes += [f"{name}: {reason}" for part in parts for reason in part.reasons][:3]
    columns = ("one row", SERVICE, PEER, "ratio", "lowest of a round", "highest", "goal")
    return [Result("Requests with one row each", columns, rows, notes)]


def measure_rows(context: Context) -> list[Result]:
    """Measure requests with many rows from one client, and predictions in this process."""
    models, rounds, times = context.shared(registered), context.pick(9, 2), context.pick(20, 5)
    number, body = models.numbers[0], body_of(models.many)
    taken: dict[str, list[float]] = {ALONE: [], ONE_THREAD: [], SERVICE: [], PEER: []}

    def predict() -> None:
        models.models[number].answer(models.many)

    with _both_services(context, models) as servers:
        for turn in range(rounds + 1):
            seconds = {ALONE: milliseconds(predict, times)}
            time.sleep(REST_SECONDS)
            with threadpool_limits(1):
                seconds[ONE_THREAD] = milliseconds(predict, times)
            for name, server in servers.items():
                time.sleep(REST_SECONDS)
                # The time that this number of requests takes.
                duration = max(2.0, 2 * times * statistics.median(seconds[ALONE]) / 1000)
                load = responses_to(
                    context.folder / f"{name} {turn}", Order(server.port, [body], 1, 0.2, duration)
                )
                if load.failed or not load.different:
                    raise BenchmarkError(f"{name} fails on many rows: {load.reasons}.")
                models.require_prediction(number, load.different[0].body)
                seconds[name] = list(1000 * load.seconds)
            if turn:  # The first prediction is the warm-up.
                for name, each in seconds.items():
                    taken[name].append(statistics.median(each))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    fastest = min(medians[ALONE], medians[ONE_THREAD])
    rows = [
        (name, medians[name], min(each), max(each), medians[name] / fastest) for name, each in taken.items()
    ]
    notes = (
        f"Medians of {rounds} rounds, in turns. A request has {len(body) // 1000} kB of JSON.",
        "A response of each server was recomputed in each round. Goal: a ratio of 1.3.",
    )
    columns = ("predicted by", "median, ms", "lowest of a round", "highest", "ratio")
    return [Result(f"Requests with {len(models.many):,} rows each, one client", columns, rows, notes)]


def measure_shadow(context: Context) -> list[Result]:
    """Measure requests with one row, with a shadow that receives all of them and without a shadow."""
    from ledgerline.registry.stages import PRODUCTION, STAGING

    models, rounds = context.shared(registered), context.pick(5, 1)
    models.set_alias(models.numbers[0], PRODUCTION)
    models.set_alias(models.numbers[1], STAGING)
    registry = models.registry
    try:
        with (
            service(context.folder / "off", models.name, registry.url) as off,
            service(
                context.folder / "on", models.name, registry.url, {"LEDGERLINE_SERVING_SHADOW_SHARE": "1"}
            ) as on,
        ):
            for server in (off, on):
                wait_until(lambda server=server: _has_staging(server), "the version in staging is loaded")
            loads = _in_turns(context, {"off": off, "on": on}, models, rounds)
            shadowed, skipped = _counted(on, SHADOWED), _counted(on, SKIPPED)
    finally:
        registry.client.delete_registered_model_alias(models.name, STAGING)
    rows: list[Sequence[Value]] = []
    for clients in CLIENTS:
        for share in (50, 99):
            off_ms, on_ms = (
                statistics.median(load.percentile(share) for load in loads[name, clients])
                for name in ("off", "on")
            )
            rows.append(
                (f"p{share}, ms, {clients} client{'s' * (clients > 1)}", off_ms, on_ms, on_ms / off_ms)
            )
    failed = sum(load.failed for part in loads.values() for load in part)
    notes = (
        f"In turns, medians of {rounds} rounds; {failed} requests failed. Goal: a ratio of 1.",
        (
            f"The version in staging predicted {shadowed:,.0f} rows; {skipped:,.0f} were skipped for lack of "
            "time."
        ),
    )
    return [
        Result(
            "The version in staging predicts all rows, too", ("one row", "off", "on", "ratio"), rows, notes
        )
    ]


@contextmanager
def _both_services(context: Context, models: Models) -> Iterator[Mapping[str, Server]]:
    """Start both services with the first version."""
    from ledgerline.registry.registry import Registry
    from ledgerline.registry.stages import PRODUCTION

    number, client, files = models.numbers[0], models.registry.client, context.folder / "model"
    models.set_alias(number, PRODUCTION)
    model = Registry(client).model(models.name)
    with model.verified_files(model.version(number)) as verified:
        shutil.copytree(verified, files)
    context.report("Starting both services …")
    with (
        service(context.folder / "service", models.name, models.registry.url) as ours,
        mlflow_service(context.folder / "peer", files) as theirs,
    ):
        yield {SERVICE: ours, PEER: theirs}


def _in_turns(context: Context, servers: Mapping[str, Server], models: Models, rounds: int) -> Loads:
    """Return the responses of each server to each number of clients in each round; the servers alternate."""
    loads: dict[tuple[str, int], list[Responses]] = {}
    warm, seconds = context.pick((2.0, 6.0), (0.5, 1.5))
    for number in range(rounds):
        for clients in CLIENTS:
            for name, server in servers.items():
                order = Order(server.port, models.bodies, clients, warm, seconds)
                load = responses_to(context.folder / f"{clients} {name} {number}", order)
                loads.setdefault((name, clients), []).append(load)
    return loads


def _beside(ours: Sequence[float], theirs: Sequence[float]) -> Sequence[float]:
    """Return the medians, their ratio, and the lowest and highest ratio of a round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    medians = statistics.median(ours), statistics.median(theirs)
    return *medians, medians[0] / medians[1], min(ratios), max(ratios)


def _has_staging(server: Server) -> bool:
    return requests.get(f"{server.url}/model", timeout=5).json()["warm_in_staging"] is not None


def _counted(server: Server, name: str) -> float:
    """Return a counter of a service, summed over its labels."""
    lines = requests.get(f"{server.url}/metrics", timeout=5).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
