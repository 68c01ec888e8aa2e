"""The stack of docker/ on this machine without containers, to be started, stopped, broken and asked."""

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psutil

from benchmarks.stack.composed import Machine
from benchmarks.stack.files import DOCKER, written_secrets
from benchmarks.stack.jaeger_traces import Jaeger
from benchmarks.stack.pages import Pages
from ledgerline.ledger.dagster_internals import DagsterGrpcClient, DagsterUserCodeUnreachableError
from ledgerline.testing import postgresql
from ledgerline.testing.ports import HOST
from ledgerline.testing.waiting import wait_until

START_SECONDS = 180
END_SECONDS = 60
RUN_SECONDS = 240


@dataclass
class Stack:
    """The processes, and who asks them.

    Attributes:
        machine: Where they are.
        database: PostgreSQL, which is none of this project's programs.
    """

    machine: Machine
    database: postgresql.Server
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _sessions: set[int] = field(default_factory=set)

    @property
    def pages(self) -> Pages:
        """Dagster's."""
        return Pages(self.machine.url("dagster-webserver", 3000))

    @property
    def mlflow_url(self) -> str:
        """Return the address of MLflow."""
        return self.machine.url("mlflow", 5000)

    @property
    def serving_url(self) -> str:
        """Return the address of serving."""
        return self.machine.url("serving", 8080)

    @property
    def collector_url(self) -> str:
        """Return the address that takes OTLP."""
        return self.machine.url("otel-collector", 4318)

    @property
    def jaeger(self) -> Jaeger:
        """Return Jaeger's traces."""
        return Jaeger(self.machine.url("jaeger", 16686))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Dagster's, opened here as in the container of the code server."""
        described = self.machine.described("code")
        needed = {name: text for name, text in described.environment.items() if name.startswith("DAGSTER_")}
        before = {name: os.environ.get(name) for name in needed}
        os.environ.update(needed)
        try:
            with dg.DagsterInstance.from_config(needed["DAGSTER_HOME"]) as instance:
                yield instance
        finally:
            for name, text in before.items():
                if text is None:
                    del os.environ[name]
                else:
                    os.environ[name] = text

    def start(self, *names: str, options: Sequence[Path] = (), **additions: str) -> None:
        """Start services, once more or for the first time, and wait until they are well.

        Args:
            names: As compose.yaml calls them.
            options: Further compose files.
            additions: Variables that they have besides.
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
                    start_new_session=True,  # by which its descendants are found, orphans included
                )
            self._sessions.add(self._processes[name].pid)
        for name in names:
            wait_until(lambda name=name: self.is_well(name), f"{name} is well", START_SECONDS)

    def is_well(self, name: str) -> bool:
        """What the health check of a service would say.

        Raises:
            AssertionError: It has ended.
        """
        ended = self._processes[name].poll()
        assert ended is None, f"{name} ended with {ended}:\n{self.said(name)[-3000:]}"
        page = self.machine.health(name)
        if page is not None:
            with suppress(OSError), urllib.request.urlopen(page, timeout=4) as answer:
                return answer.status == 200
            return False
        if name == "observer":
            return "Following" in self.said(name)
        if name == "code":  # before it answers, it has made Dagster's tables, which only one process may do
            client = DagsterGrpcClient(host=HOST, port=self.machine.port("code", 4000))
            with suppress(DagsterUserCodeUnreachableError):
                return bool(client.ping("well")["echo"])
            return False
        return True

    def run_once(self, name: str) -> None:
        """Start a service that ends by itself, and wait for that."""
        done = self.run_in(name, *self.machine.described(name).command)
        assert done.returncode == 0, done.stdout + done.stderr

    def run_in(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """What `docker compose exec` does: a command with all that a service has."""
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

    def wait_for_the_end(self, instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
        """Wait until a run has ended; returns how."""

        def status() -> dg.DagsterRunStatus | None:
            run = instance.get_run_by_id(run_id)
            return run.status if run is not None and run.is_finished else None

        found = wait_until(status, "the run has ended", RUN_SECONDS)
        assert found is not None
        return found

    def stop(self, *names: str, seconds: float = END_SECONDS) -> None:
        """Stop services as `docker compose stop` does, and wait for so long."""
        for name in names:
            self._processes[name].terminate()
        for name in names:
            self._processes[name].wait(seconds)
            self._kill_session(self._processes[name].pid)

    def kill(self, *names: str) -> None:
        """End services as a power cut does, with all that they started."""
        for name in names:
            self._processes[name].kill()
            self._processes[name].wait(END_SECONDS)
            self._kill_session(self._processes[name].pid)

    def log(self, name: str) -> Path:
        """What a service says, over all of its starts."""
        return self.machine.folder / f"{name}.log"

    def said(self, name: str) -> str:
        """Return all that a service has printed."""
        return self.log(name).read_text(errors="replace")

    def cpu_seconds(self, name: str) -> float:
        """Processor time that a service took so far, with all that it started and that is alive."""
        times = [process.cpu_times() for process in self._of_session(self._processes[name].pid)]
        return sum(time.user + time.system for time in times)

    def end(self) -> None:
        """End everything, whatever became of it."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        for session in self._sessions:
            self._kill_session(session)
        for process in self._processes.values():
            process.wait(END_SECONDS)

    def _kill_session(self, session: int) -> None:
        def gone() -> bool:
            left = self._of_session(session)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            return not left

        wait_until(gone, "its processes have ended")

    def _of_session(self, session: int) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@contextmanager
def running(
    folder: Path, programs: Mapping[str, Path], database: Mapping[str, object] | None = None
) -> Iterator[Stack]:
    """The stack with all services that are neither of agents nor of metrics; ended afterwards.

    Args:
        folder: For all that it keeps.
        programs: Jaeger and the collector.
        database: Further options of PostgreSQL's configuration.
    """
    with ExitStack() as until:
        options = {"password_encryption": "scram-sha-256", **(database or {})}
        server = until.enter_context(postgresql.server(**options))
        machine = Machine(folder, written_secrets(folder / ".env"), programs)
        machine.use_port("postgres", 5432, server.port)
        # As the image of PostgreSQL does when its folder is empty.
        made = postgresql.run_script(server.uri, DOCKER / "postgres" / "databases.sql", machine.variables)
        assert made.returncode == 0, made.stderr
        stack = Stack(machine, server)
        until.callback(stack.end)
        stack.run_once("mlflow-database")
        # In the order of compose.yaml's depends_on.
        stack.start("mlflow", "jaeger", "otel-collector")
        stack.start("code")
        stack.start("dagster-webserver", "dagster-daemon", "observer", "serving")
        wait_until(stack.pages.know_the_jobs, "Dagster's pages know the jobs")
        yield stack
