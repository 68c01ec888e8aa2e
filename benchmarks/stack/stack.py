"""Runs the stack of docker/ on this machine without containers; tests stop and kill its parts."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import requests

from benchmarks.processes import kill_session, members
from benchmarks.stack.composed import Machine
from benchmarks.stack.files import DOCKER, written_secrets
from benchmarks.stack.traces import Jaeger
from ledgerline.ledger.dagster_internals import DagsterGrpcClient, DagsterUserCodeUnreachableError
from ledgerline.testing import postgresql
from ledgerline.testing.ports import HOST
from ledgerline.testing.waiting import wait_until

START_SECONDS = 180
END_SECONDS = 60


@dataclass
class Stack:
    """The running processes, with their addresses and PostgreSQL."""

    machine: Machine
    database: postgresql.Server
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _sessions: set[int] = field(default_factory=set)

    @property
    def mlflow_url(self) -> str:
        """Return the URL of MLflow."""
        return self.machine.url("mlflow", 5000)

    @property
    def jaeger(self) -> Jaeger:
        """Return a client of Jaeger."""
        return Jaeger(self.machine.url("jaeger", 16686))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open Dagster's instance as the container of the code server does."""
        described = self.machine.described("code")
        needed = {name: text for name, text in described.environment.items() if name.startswith("DAGSTER_")}
        home = needed["DAGSTER_HOME"]
        with patch.dict(os.environ, needed), dg.DagsterInstance.from_config(home) as instance:
            yield instance

    def start(self, *names: str, options: Sequence[Path] = (), **additions: str) -> None:
        """Start services, and wait until they are healthy.

        Args:
            names: Names in compose.yaml.
            options: Further compose files.
            additions: Additional variables.
        """
        for name in names:
            described = self.machine.described(name, additions, options)
            with self.log(name).open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    described.command,
                    env=described.environment,
                    cwd=described.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # by which its descendants are found, including orphans
                )
            self._sessions.add(self._processes[name].pid)
        for name in names:
            wait_until(lambda name=name: self.is_healthy(name), f"{name} is healthy", START_SECONDS)

    def is_healthy(self, name: str) -> bool:
        """Return the result of a service's health check.

        Raises:
            AssertionError: The service has ended.
        """
        ended = self._processes[name].poll()
        assert ended is None, f"{name} ended with {ended}:\n{self.output(name)[-3000:]}"
        page = self.machine.health(name)
        if page is not None:
            with suppress(requests.RequestException):
                return requests.get(page, timeout=4).status_code == 200
            return False
        if name == "observer":
            return "Following" in self.output(name)
        if name == "code":
            # Before it responds, it creates Dagster's tables, which only one process may do at a time.
            client = DagsterGrpcClient(host=HOST, port=self.machine.port("code", 4000))
            with suppress(DagsterUserCodeUnreachableError):
                return bool(client.ping("health")["echo"])
            return False
        return True

    def run_in(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the environment of a service, as `docker compose exec` does."""
        described = self.machine.described(name)
        return subprocess.run(
            command,
            env=described.environment,
            cwd=described.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def stop(self, *names: str, seconds: float = END_SECONDS) -> None:
        """Stop services as `docker compose stop` does, and wait for their end."""
        processes = [self._processes[name] for name in names]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(seconds)
            kill_session(process.pid)

    def kill(self, *names: str) -> None:
        """Kill services with their descendants."""
        for name in names:
            self._processes[name].kill()
            self._processes[name].wait(END_SECONDS)
            kill_session(self._processes[name].pid)

    def log(self, name: str) -> Path:
        """Return the path of the file with a service's output over all of its starts."""
        return self.machine.folder / f"{name}.log"

    def output(self, name: str) -> str:
        """Return the whole output of a service."""
        return self.log(name).read_text(errors="replace")

    def cpu_seconds(self, name: str) -> float:
        """Return the processor time of a service and of its descendants that are alive."""
        times = [process.cpu_times() for process in members(self._processes[name].pid)]
        return sum(time.user + time.system for time in times)

    def end(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        for session in self._sessions:
            kill_session(session)
        for process in self._processes.values():
            process.wait(END_SECONDS)


@contextmanager
def running(
    folder: Path, programs: Mapping[str, Path], database: Mapping[str, object] | None = None
) -> Iterator[Stack]:
    """Run all services except those of the profiles `agents` and `metrics`.

    Args:
        folder: Folder for files of the services.
        programs: Jaeger and the collector, by service.
        database: Further options of PostgreSQL's configuration.
    """
    with ExitStack() as until:
        options = {"password_encryption": "scram-sha-256", **(database or {})}
        server = until.enter_context(postgresql.server(**options))
        machine = Machine(folder, written_secrets(folder / ".env"), programs)
        machine.use_port("postgres", 5432, server.port)
        # The image of PostgreSQL does this when its folder is empty.
        result = postgresql.run_script(server.uri, DOCKER / "postgres" / "databases.sql", machine.variables)
        assert result.returncode == 0, result.stderr
        stack = Stack(machine, server)
        until.callback(stack.end)
        prepared = stack.run_in("mlflow-database", *machine.described("mlflow-database").command)
        assert prepared.returncode == 0, prepared.stdout + prepared.stderr
        # This order follows compose.yaml's depends_on.
        stack.start("mlflow", "jaeger", "otel-collector")
        stack.start("code")
        stack.start("dagster-webserver", "dagster-daemon", "observer", "serving")
        yield stack
