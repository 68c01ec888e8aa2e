"""Processes that do something with a registry at the same moment, or die in the middle of it.

They are forked from one process that has imported everything, and so start in milliseconds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self, TextIO

from ledgerline.registry.registry import Registry
from ledgerline.registry.versions import RegisteredModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIED = 42
END = "end"


@dataclass(frozen=True)
class Task:
    """A task of a process.

    Attributes:
        call: Of CALLS.
        uri: Where MLflow is.
        name: The registered model.
        number: The version, or the number of an entry.
        request: The id of the request.
        dies_before: Which of its calls to MLflow, counted from 1, it does not live to make; 0: all are made.
        writes_only: Whether only calls that change something are counted.
    """

    call: str
    uri: str
    name: str
    number: int = 0
    request: str = ""
    dies_before: int = 0
    writes_only: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task.

    Attributes:
        returned: What it returned; None if it did not.
        raised: The names of the error's class and those above; empty: none.
        message: The message of the error.
        died: Whether it died as requested.
    """

    returned: Any = None
    raised: list[str] = field(default_factory=list)
    message: str = ""
    died: bool = False


class Racers:
    """Starts processes that begin together."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.registry.racers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # MLflow would behave as in its own tests.
            env={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Do all of them at once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(task) for task in tasks]) + "\n")
        self._process.stdin.flush()
        return [Outcome(**outcome) for outcome in json.loads(self._process.stdout.readline())]


class Mortal:
    """An MLflow client whose process dies before one of its calls."""

    def __init__(self, client: "MlflowClient", task: Task) -> None:
        self._client = client
        self._task = task
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        reads = name.startswith(("get_", "search_", "download_"))
        if not callable(found) or (self._task.writes_only and reads):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls == self._task.dies_before:
                os._exit(DIED)
            return found(*args, **options)

        return call


def _promote(client: "MlflowClient", task: Task) -> Any:
    from ledgerline.registry.promotion import Mode, Request, promote

    asked = Request(by=f"racer {task.request}", reason="a race", run_id="", id=task.request)
    return promote(RegisteredModel(client, task.name), task.number, asked, Mode.automatic).entry


def _rollback(client: "MlflowClient", task: Task) -> Any:
    from ledgerline.registry.promotion import Request, rollback

    asked = Request(by=f"racer {task.request}", reason="a race", run_id="", id=task.request)
    return rollback(RegisteredModel(client, task.name), None, asked).version


def _append(client: "MlflowClient", task: Task) -> Any:
    from datetime import UTC, datetime

    from ledgerline.registry.history import Approval
    from ledgerline.registry.journal import Journal

    # The same text from each, and they still exclude each other.
    said = Approval(datetime(2026, 1, 1, tzinfo=UTC), 1, "e" * 64, "somebody")
    return Journal.opened(RegisteredModel(client, task.name)).append(task.number, said).number


def _add(client: "MlflowClient", task: Task) -> Any:
    from datetime import UTC, datetime

    from ledgerline.registry.history import Approval
    from ledgerline.registry.journal import Journal

    said = Approval(datetime(2026, 1, 1, tzinfo=UTC), task.number, "e" * 64, "somebody")
    Journal.opened(RegisteredModel(client, task.name)).add(said)
    return task.number


def _open(client: "MlflowClient", task: Task) -> Any:
    from ledgerline.registry.journal import Journal

    return Journal.opened(RegisteredModel(client, task.name)).run_id


def _settle(client: "MlflowClient", task: Task) -> Any:

    return Registry(client).model(task.name).reconcile().history.head


CALLS = {
    "promote": _promote,
    "rollback": _rollback,
    "append": _append,
    "add": _add,
    "open": _open,
    "settle": _settle,
}


class Worker:
    """A process that does one task after the other. It keeps stores open: opening one takes long."""

    def __init__(self) -> None:
        theirs, self._to = os.pipe()
        self._from, to = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._to)
            os.close(self._from)
            _work(os.fdopen(theirs), to)
        os.close(theirs)
        os.close(to)
        self._answers = os.fdopen(self._from)

    def say(self, line: str) -> None:
        os.write(self._to, f"{line}\n".encode())

    def hear(self) -> str:
        """A line; empty if it died."""
        return self._answers.readline()

    def end(self) -> int:
        """Wait until it has ended; its exit code."""
        with suppress(BrokenPipeError):
            self.say(END)  # closing is not enough: later workers hold this pipe open too
        os.close(self._to)
        self._answers.close()
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def _main() -> None:
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    from ledgerline.registry import promotion  # noqa: F401

    workers: list[Worker] = []
    for line in sys.stdin:
        tasks = json.loads(line)
        workers += [Worker() for _ in range(len(tasks) - len(workers))]
        for task, worker in zip(tasks, workers, strict=False):
            worker.say(json.dumps(task))
        racing = workers[: len(tasks)]
        for worker in racing:
            worker.hear()  # it is ready
        for worker in racing:
            worker.say("go")
        outcomes = []
        for worker in racing:
            said = worker.hear()
            if not said:
                workers.remove(worker)
                code = worker.end()
                said = json.dumps(asdict(Outcome(died=code == DIED, message=f"exit {code}")))
            outcomes.append(json.loads(said))
        print(json.dumps(outcomes), flush=True)  # noqa: T201
    for worker in workers:
        worker.end()


def _work(orders: TextIO, to: int) -> None:
    from ledgerline.mlflow_store.store import connect

    while (line := orders.readline().strip()) not in ("", END):
        task = Task(**json.loads(line))
        client: Any = connect(task.uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
        os.write(to, b"ready\n")
        orders.readline()
        said = _done(Mortal(client, task) if task.dies_before else client, task)
        os.write(to, json.dumps(asdict(said)).encode() + b"\n")
    os._exit(0)


def _done(client: Any, task: Task) -> Outcome:
    try:
        return Outcome(returned=CALLS[task.call](client, task))
    except Exception as error:  # noqa: BLE001 (returned to the process that started the race)
        return Outcome(raised=[type_.__name__ for type_ in type(error).__mro__], message=str(error))


if __name__ == "__main__":
    _main()
