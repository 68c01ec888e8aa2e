"""Measures latency and rate of predictions, also with a shadow, `mlflow models serve` and scikit-learn."""

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import requests
from threadpoolctl import threadpool_limits

from assets.delay_model import MODEL_NAME
from benchmarks.context import BenchmarkError, Context, Result, Value
from benchmarks.processes import milliseconds
from benchmarks.serving.load import Order, Responses, responses_to, together
from benchmarks.serving.models import Models, body_of, registered
from benchmarks.serving.servers import Server, mlflow_service, service
from ledgerline.registry.registry import Registry
from ledgerline.registry.stages import STAGING
from ledgerline.testing.waiting import wait_until

SERVICE, PEER = "ledgerline serve", "mlflow models serve"
ALONE, ONE_THREAD = "predict_proba alone", "predict_proba, one thread"
CLIENTS = {1: "1 client", 8: "8 clients"}
REST_SECONDS = 0.3  # threads of scikit-learn run for a short time after a prediction
SHADOWED, SKIPPED = "ledgerline_shadow_rows_total", "ledgerline_shadow_skipped_total"

Loads = dict[tuple[str, int], list[Responses]]


def measure_requests(context: Context) -> list[Result]:
    """Measure requests with one row from one client and from eight clients."""
    models, rounds = context.shared(registered), context.pick(7, 1)
    with _both_services(context, models) as servers:
        loads = _in_turns(context, servers, models, rounds)
    measured: Sequence[tuple[str, Callable[[Responses], float], str]] = (
        ("requests/s", lambda load: load.per_second, "≥ 3"),
        ("p50, ms", lambda load: load.percentile(50), "≤ 0.5"),
        ("p99, ms", lambda load: load.percentile(99), "≤ 0.5"),
    )
    rows: list[Sequence[Value]] = []
    for clients, of_clients in CLIENTS.items():
        for name, number, goal in measured:
            ours, theirs = ([number(load) for load in loads[server, clients]] for server in (SERVICE, PEER))
            medians = statistics.median(ours), statistics.median(theirs)
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            compared = (*medians, medians[0] / medians[1], min(ratios), max(ratios))
            rows.append((f"{name}, {of_clients}", *compared, goal if clients > 1 else None))
    notes = [f"The same requests and client for both, in turns; medians of {rounds} rounds."]
    for name in servers:
        responses = together([load for clients in CLIENTS for load in loads[name, clients]])
        verdict = models.verdict(responses.different, models.numbers[0])
        notes.append(
            f"{name}: {verdict.checked:,} responses recomputed, {verdict.wrong} wrong, "
            f"{responses.failed} failed; the largest difference is {verdict.largest:g}."
        )
        notes += [f"{name}: {reason}" for reason in responses.reasons]
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
            medians = {ALONE: statistics.median(milliseconds(predict, times))}
            time.sleep(REST_SECONDS)
            with threadpool_limits(1):
                medians[ONE_THREAD] = statistics.median(milliseconds(predict, times))
            for name, server in servers.items():
                time.sleep(REST_SECONDS)
                # The time that this number of requests takes.
                seconds = max(2.0, 2 * times * medians[ALONE] / 1000)
                load = responses_to(Order(server.port, [body], 1, 0.2, seconds))
                if load.failed or not load.different:
                    raise BenchmarkError(f"{name} fails on many rows: {load.reasons}.")
                models.require_prediction(number, next(iter(load.different)).body)
                medians[name] = load.percentile(50)
            if turn:  # The first prediction is the warm-up.
                for name, median in medians.items():
                    taken[name].append(median)
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
    models, rounds = context.shared(registered), context.pick(5, 1)
    models.set_alias(models.numbers[0])
    models.set_alias(models.numbers[1], STAGING)
    with ExitStack() as until:
        until.callback(models.client.delete_registered_model_alias, MODEL_NAME, STAGING)
        shares = {"off": {}, "on": {"LEDGERLINE_SERVING_SHADOW_SHARE": "1"}}
        servers = {
            name: until.enter_context(service(context.folder / name, models, share))
            for name, share in shares.items()
        }
        for server in servers.values():
            wait_until(lambda server=server: _has_staging(server), "the version in staging is loaded")
        loads = _in_turns(context, servers, models, rounds)
        shadowed, skipped = _counted(servers["on"], SHADOWED), _counted(servers["on"], SKIPPED)
    rows: list[Sequence[Value]] = []
    for clients, of_clients in CLIENTS.items():
        for share in (50, 99):
            off, on = (
                statistics.median(load.percentile(share) for load in loads[name, clients]) for name in shares
            )
            rows.append((f"p{share}, ms, {of_clients}", off, on, on / off))
    failed = sum(load.failed for part in loads.values() for load in part)
    notes = (
        f"In turns, medians of {rounds} rounds; {failed} requests failed. Goal: a ratio of 1.",
        f"The version in staging predicted {shadowed:,.0f} rows, and {skipped:,.0f} were skipped.",
    )
    title = "The version in staging predicts all rows, too"
    return [Result(title, ("one row", "off", "on", "ratio"), rows, notes)]


@contextmanager
def _both_services(context: Context, models: Models) -> Iterator[Mapping[str, Server]]:
    """Start both services with the first version."""
    number, files = models.numbers[0], context.folder / "model"
    models.set_alias(number)
    model = Registry(models.client).model(MODEL_NAME)
    with model.verified_files(model.version(number)) as verified:
        shutil.copytree(verified, files)
    context.report("Starting both services …")
    with (
        service(context.folder / "service", models) as ours,
        mlflow_service(context.folder / "peer", files) as theirs,
    ):
        yield {SERVICE: ours, PEER: theirs}


def _in_turns(context: Context, servers: Mapping[str, Server], models: Models, rounds: int) -> Loads:
    """Return the responses of each server to each number of clients in each round; the servers alternate."""
    loads: Loads = defaultdict(list)
    warm, seconds = context.pick((2.0, 6.0), (0.5, 1.5))
    for _ in range(rounds):
        for clients in CLIENTS:
            for name, server in servers.items():
                load = responses_to(Order(server.port, models.bodies, clients, warm, seconds))
                loads[name, clients].append(load)
    return loads


def _has_staging(server: Server) -> bool:
    return requests.get(f"{server.url}/model", timeout=5).json()["warm_in_staging"] is not None


def _counted(server: Server, name: str) -> float:
    """Return a counter of a service, summed over its labels."""
    lines = requests.get(f"{server.url}/metrics", timeout=5).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
