"""A Dagster deployment as it runs on a machine: code server, daemon and web server as separate processes."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psutil
from dagster import DagsterEventType

from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until
from tests.integration import observed_jobs
from tests.integration.pages import Pages, wait_for_the_end
from tests.project import PROJECT_ROOT

JOBS = "tests.integration.observed_jobs"
LOCATION = "bakery"
END_SECONDS = 20

# This deployment polls every second; by default Dagster polls every half a minute.
DAGSTER_YAML = """
telemetry: {enabled: false}
nux: {enabled: false}
run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
run_monitoring: {enabled: true, poll_interval_seconds: 1}
"""
WORKSPACE_YAML = """
load_from:
  - grpc_server: {{host: {host}, port: {port}, location_name: {location}}}
"""

START_SENSOR = """
mutation($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename } }
"""
RESET_SENSOR = """
mutation($sensor: SensorSelector!) { resetSensor(sensorSelector: $sensor) { __typename } }
"""


@dataclass
class Deployment:
    """The processes, and what people do with them.

    Attributes:
        home: DAGSTER_HOME.
        instance: The same instance, opened here.
    """

    home: Path
    instance: dg.DagsterInstance
    ports: Mapping[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _sessions: set[int] = field(default_factory=set)

    @property
    def pages(self) -> Pages:
        return Pages(f"http://{HOST}:{self.ports['pages']}", LOCATION)

    def start(self, name: str) -> None:
        """Start one of the processes, once more or for the first time."""
        port, workspace = str(self.ports[name]), str(self.home / "workspace.yaml")
        command = {
            "code server": ["dagster", "api", "grpc", "-m", JOBS, "-h", HOST, "-p", port],
            "daemon": ["dagster-daemon", "run", "-w", workspace],
            "pages": ["dagster-webserver", "-h", HOST, "-p", port, "-w", workspace],
        }[name]
        program = Path(sys.executable).with_name(command[0])
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(program), *command[1:]],
                env=os.environ | {"DAGSTER_HOME": str(self.home)},
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # by which its descendants are found, orphans included
            )
        self._sessions.add(self.processes[name].pid)

    def wait_until_ready(self) -> None:
        """Wait until the code server listens, and the web server has loaded its jobs."""

        def loaded() -> bool:
            for name, process in self.processes.items():
                assert process.poll() is None, (self.home / f"{name}.log").read_text()[-3000:]
            with suppress(OSError):
                socket.create_connection((HOST, self.ports["code server"]), timeout=1).close()
                return self.pages.have_jobs()
            return False

        wait_until(loaded, "the pages know the jobs")

    def launch(self, job: str, tags: Mapping[str, str] | None = None, **faults: str) -> str:
        """Launch a run as the UI does; returns its id. What happens in which step: `faults`."""
        of_steps = {observed_jobs.FAULT + step: fault for step, fault in faults.items()}
        return self.pages.launch(job, {**(tags or {}), **of_steps})

    def terminate(self, run_id: str, policy: str) -> None:
        """Terminate a run as the UI does."""
        self.pages.terminate(run_id, policy)

    @contextmanager
    def sensors_on(self, *names: str) -> Iterator[None]:
        """Turn sensors on as the UI does, and off in the end."""
        selectors = [{**self.pages.repository, "sensorName": name} for name in names]
        try:
            for sensor in selectors:
                answer = self.pages.query(START_SENSOR, sensor=sensor)["startSensor"]
                assert answer["__typename"] == "Sensor", answer
            yield
        finally:
            for sensor in selectors:
                self.pages.query(RESET_SENSOR, sensor=sensor)

    def restart(self, name: str) -> None:
        """End one of the processes without a warning, and start it again."""
        self.kill(name)
        self.start(name)
        self.wait_until_ready()

    def worker_of(self, run_id: str) -> psutil.Process:
        """The process of a run, once it has one."""

        def pid() -> str | None:
            for entry in self.instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
                started = re.match(r"Started process for run \(pid: (\d+)\)", entry.message)
                if started is not None:
                    return started[1]
            return None

        return psutil.Process(int(wait_until(pid, "the run has a process") or 0))

    def wait_for_the_end(self, run_id: str) -> dg.DagsterRunStatus:
        """Wait until the run has ended, and its processes have; returns how it ended."""
        found = wait_for_the_end(self.instance, run_id)
        wait_until(lambda: not self.processes_of_runs(), "the processes of the run have ended")
        return found

    def processes_of_runs(self) -> list[psutil.Process]:
        """Run workers and steps, those included that have lost their parent."""
        return [
            process
            for process in self._descendants()
            if process.pid not in self._sessions and "resource_tracker" not in _command(process)
        ]

    def kill(self, name: str) -> None:
        """End one of the processes without a warning; what it started goes on."""
        self.processes[name].kill()
        self.processes[name].wait()

    def end(self) -> None:
        """End everything that was started, whatever became of it."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        for process in self._descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self.processes.values():
            process.wait()
        wait_until(lambda: not self._descendants(), "all processes have ended")

    def _descendants(self) -> list[psutil.Process]:
        """All processes that were started and that those started, by their session."""
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) in self._sessions and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@contextmanager
def deployed(home: Path) -> Iterator[Deployment]:
    """A deployment that runs; all of its processes have ended afterwards."""
    ports = {"code server": unused_port(), "pages": unused_port(), "daemon": 0}
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    workspace = WORKSPACE_YAML.format(host=HOST, port=ports["code server"], location=LOCATION)
    (home / "workspace.yaml").write_text(workspace)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        deployment = Deployment(home, instance, ports)
        try:
            for name in ports:
                deployment.start(name)
            deployment.wait_until_ready()
            yield deployment
        finally:
            deployment.end()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
