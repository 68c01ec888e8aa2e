"""What the registry costs: a look of the sensors, who was in production when, and a promotion.

    .venv/bin/python -m benchmarks.registry [--quick] [--json FILE]

An MLflow server on this machine is asked, with SQLite behind it; for the journal its database, too.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import requests
from rich.console import Console

from benchmarks import processes
from benchmarks.results import Result, Value
from ledgerline.dagster.settings import set_library_defaults

if TYPE_CHECKING:
    from mlflow import MlflowClient

WIDTH = 132  # where the output is no terminal
VERSIONS = 3  # of each model
MODEL = "of many promotions"

SERVER_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_MODEL_CATALOG_URI": ""}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        models: In the registry.
        looks: At all of them.
        rounds: Of looking at each of them, and of reading the journal.
        moves: In the journal.
        promotions: Done and timed.
    """

    models: int
    looks: int
    rounds: int
    moves: int
    promotions: int


FULL = Size(models=100, looks=50, rounds=9, moves=1000, promotions=20)
QUICK = Size(models=10, looks=5, rounds=2, moves=20, promotions=3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: whether it works, not what it costs"
    )
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()
    for name in filter(processes.is_setting, list(os.environ)):
        del os.environ[name]  # those of a person would be measured
    set_library_defaults()
    size = QUICK if arguments.quick else FULL

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = {
        "processors": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        "mlflow": version("mlflow"),
    }
    console.print(about)
    results = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ledgerline-benchmark-")))
        console.print("Starting an MLflow server …")
        server, database = stack.enter_context(mlflow_server(folder))
        for measure in (looks, journal, promotions):
            started = time.monotonic()
            result = measure(server, database, size)
            result.show(console)
            console.print(f"{result.section}: {time.monotonic() - started:.0f} s", highlight=False)
            results.append(result)
    if arguments.json is not None:
        told = {"machine": about, "results": [result.as_json() for result in results]}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[str, str]]:
    """URL of a server, and URI of its database."""
    from ledgerline.mlflow_store.store import connect

    url, database = f"http://{processes.HOST}:{processes.free_port()}", f"sqlite:///{folder}/mlflow.db"
    connect(database)  # creates its tables
    options = {
        "--backend-store-uri": database,
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": processes.HOST,
        "--port": url.rsplit(":", 1)[1],
        "--workers": "1",
    }
    given = [part for option in options.items() for part in option]
    command = [str(processes.SCRIPTS / "mlflow"), "server", *given]
    log = folder / "mlflow.log"
    with processes.started(command, processes.environment_of(SERVER_ENVIRONMENT), log) as process:
        processes.wait_until(lambda: _answers(f"{url}/health"), url, process, log)
        yield url, database


def looks(server: str, database: str, size: Size) -> Result:
    """One look of a sensor at every model."""
    from ledgerline.mlflow_store import store
    from ledgerline.registry import stages

    direct, client = store.connect(database), store.connect(server)
    for number in range(size.models):
        name = f"model {number}"
        _registered(direct, name)
        client.set_registered_model_alias(name, stages.PRODUCTION, "1")
        client.set_registered_model_alias(name, stages.STAGING, str(VERSIONS))
        client.set_registered_model_tag(name, stages.JOURNAL_TAG, "1")
    names = list(stages.alias_states(client))
    assert len(names) == size.models

    def one_by_one() -> None:
        for name in names:
            client.get_registered_model(name)

    rows = [
        ("alias_states(): one call", *_spread(_taken(lambda: stages.alias_states(client), size.looks))),
        ("get_registered_model for each", *_spread(_taken(one_by_one, size.rounds))),
        ("connect(), which a tick begins with", *_spread(_taken(lambda: store.connect(server), size.looks))),
    ]
    return Result(
        "looks",
        f"A look at {size.models} models of {VERSIONS} versions and 2 aliases, on a server",
        ("how", "times", "median, ms", "p95, ms"),
        rows,
        ("Goal: a tick of a sensor under 150 ms.",),
    )


def journal(server: str, database: str, size: Size) -> Result:
    """A journal of many promotions: who was in production when, and one entry more."""
    from ledgerline.mlflow_store import store
    from ledgerline.registry import moves
    from ledgerline.registry.history import PROMOTION, Approval, End, Move
    from ledgerline.registry.journal import Journal
    from ledgerline.registry.stages import PRODUCTION

    direct = store.connect(database)
    _registered(direct, MODEL)
    begun = datetime.now(UTC) - timedelta(days=size.moves)
    written = Journal.opened(direct, MODEL)
    before = None
    for number in range(size.moves):
        at = begun + timedelta(days=number)
        to = 1 + number % VERSIONS
        move = Move(at, PRODUCTION, before, to, PROMOTION, "a benchmark", evidence="e" * 64, request="r")
        written.append(number, move)
        written.end(number + 1, End(at + timedelta(seconds=1), moved=True))
        before = to
    direct.set_registered_model_alias(MODEL, PRODUCTION, str(before))
    moves.settled(direct, MODEL)
    middle = begun + timedelta(days=size.moves // 2, hours=1)

    def ask(uri: str) -> None:
        """What `ledgerline registry history --at` does once it has imported everything."""
        assert len(moves.settled(store.connect(uri), MODEL).history.holders_at(middle)) == 1

    said = Approval(begun, 1, "e" * 64, "a benchmark")
    rows: list[Sequence[Value]] = []
    for place, uri in (("server", server), ("database", database)):
        asked = _taken(partial(ask, uri), size.rounds)
        rows.append((f"who was in production then? ({place})", *_spread(asked)))
        client = store.connect(uri)

        def add(client: "MlflowClient" = client) -> None:
            Journal.opened(client, MODEL).add(said)

        rows.append((f"one entry more ({place})", *_spread(_taken(add, size.rounds))))
    return Result(
        "journal",
        f"A journal of {size.moves:,} promotions",
        ("what", "times", "median, ms", "p95, ms"),
        rows,
        ("With opening the client. Goal: 500 ms for an answer, after imports.",),
    )


def promotions(server: str, database: str, size: Size) -> Result:
    """Promotions from asking to the last tag, one after the other."""
    from ledgerline.mlflow_store import store
    from ledgerline.registry import evidence, promotion
    from ledgerline.registry.history import Evaluation
    from ledgerline.registry.promotion import Mode, Request

    client = store.connect(server)
    name = "promoted"
    client.create_registered_model(name)
    experiment = store.experiment_id(client, name, None)
    judging, promoting = [], []
    before = None
    for number in range(1, size.promotions + 1):
        sha256 = _version(client, name, experiment)
        document = {"version": number, "version_sha256": sha256, "decision": evidence.PASSED}
        sealed = evidence.seal(document)
        run_id = client.create_run(experiment).info.run_id
        client.log_text(run_id, sealed.content.decode(), evidence.FILE)
        evaluation = Evaluation(
            datetime.now(UTC), number, before, True, [], sealed.sha256, run_id, "a benchmark"
        )
        asked = Request("a benchmark", "for its numbers", "", str(uuid.uuid4()))
        judging += _taken(lambda: promotion.record_evaluation(client, name, evaluation), 1)  # noqa: B023
        promoting += _taken(lambda: promotion.promote(client, name, number, asked, Mode.automatic), 1)  # noqa: B023
        before = number
    return Result(
        "promotions",
        f"{size.promotions} promotions, each over the last, on a server",
        ("what", "times", "median, ms", "p95, ms"),
        [
            ("a judgement written down", *_spread(judging)),
            ("a promotion, with checking evidence and files", *_spread(promoting)),
        ],
        ("The files of a version are one of a few bytes: what a model's size adds is its download.",),
    )


def _registered(client: "MlflowClient", name: str) -> None:
    client.create_registered_model(name)
    for _ in range(VERSIONS):
        client.create_model_version(name, "mlflow-artifacts:/nowhere", await_creation_for=0)


def _version(client: "MlflowClient", name: str, experiment: str) -> str:
    """A version with a file; its hash."""
    from ledgerline.mlflow_store import model_files
    from ledgerline.mlflow_store.store import downloaded
    from ledgerline.registry.versions import SHA256_TAG

    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "weights", "model/weights.txt")
    location = f"{run.info.artifact_uri}/model"
    with downloaded(client, location) as files:
        sha256 = model_files.folder_sha256(files)
    client.create_model_version(name, location, run.info.run_id, tags={SHA256_TAG: sha256})
    return sha256


def _taken(ask: Callable[[], object], times: int) -> list[float]:
    """How long it took each time, in milliseconds."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        ask()
        found.append(1000 * (time.perf_counter() - started))
    return found


def _spread(milliseconds: Sequence[float]) -> tuple[int, float, float]:
    """How many, their median, and what 95 of 100 stay below."""
    ordered = sorted(milliseconds)
    return len(ordered), statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


if __name__ == "__main__":
    main()
