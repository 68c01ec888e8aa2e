"""Projects that `ledgerline new` wrote, used as a person would, with the environment of these tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import requests
from mlflow import MlflowClient

from ledgerline.dagster.resources import registry_of
from ledgerline.dagster.settings import Settings
from ledgerline.new_project.kind import Kind
from ledgerline.registry.history import Entry
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

VENV = Path(sys.executable).parents[1]
LEDGERLINE = VENV / "bin" / "ledgerline"
# Settings of the machine are not those of a new project.
OF_ELSEWHERE = ("LEDGERLINE_", "DAGSTER_", "MLFLOW_TRACKING_URI", "PYTHONPATH", "VENV")
SECONDS = 300  # until a test is given up


@dataclass(frozen=True)
class NewProject:
    """A project in a folder.

    Attributes:
        folder: The folder.
        kind: The kind of prediction.
        serving: The address of the service that was started before there was a model.
    """

    folder: Path
    kind: Kind
    serving: str

    @property
    def model(self) -> str:
        return self.folder.name.replace("-", "_")

    @property
    def home(self) -> Path:
        return self.folder / ".ledgerline"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home}/mlflow.db")

    @property
    def entries(self) -> list[Entry]:
        """The journal of the model."""
        settings = Settings.from_environment({"LEDGERLINE_PROJECT": str(self.folder)})
        return list(registry_of(settings).model(self.model).history().entries)

    def run(self, *command: str | Path) -> str:
        """Run a command in the project to its end, and return what it printed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def make(self, target: str) -> str:
        return self.run("make", target, f"VENV={VENV}")

    def ledgerline(self, *arguments: str) -> str:
        return self.run(LEDGERLINE, *arguments)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            yield instance

    def in_production(self) -> int | None:
        """Return the version in production, from MLflow."""
        aliases = self.client.get_registered_model(self.model).aliases
        return int(aliases["production"]) if "production" in aliases else None

    def served(self) -> int | None:
        """The version that answers requests; None: not ready."""
        ready = requests.get(f"{self.serving}/v2/models/{self.model}/ready", timeout=30)
        if ready.status_code != 200:
            return None
        described = requests.get(f"{self.serving}/models/{self.model}", timeout=30).json()
        return int(described["version"])

    def wait_until_served(self, version: int) -> None:
        wait_until(lambda: self.served() == version, f"version {version} is active", SECONDS)

    def predict(self, rows: list[dict[str, Any]]) -> list[Any]:
        """Send a request to the service, as MLflow's clients do."""
        url = f"{self.serving}/models/{self.model}/invocations"
        answer = requests.post(url, json={"dataframe_records": rows}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"]


def environment() -> dict[str, str]:
    """Return the environment of a process that reads its project from the working folder."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_ELSEWHERE)}


@contextmanager
def new_project(parent: Path, kind: Kind) -> Iterator[NewProject]:
    """Write a project, and serve its model from before there is one."""
    folder = parent / f"shop-{kind}"
    command = [str(LEDGERLINE), "new", folder.name, "--kind", kind.value]
    subprocess.run(command, cwd=parent, env=environment(), check=True, capture_output=True, timeout=SECONDS)
    port = unused_port()
    with (folder / "serving.log").open("wb") as log:
        process = subprocess.Popen(
            [str(LEDGERLINE), "serve", "--port", str(port)],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield NewProject(folder, kind, f"http://{HOST}:{port}")
    finally:
        process.terminate()
        process.wait(60)


def step_config(**values: Any) -> str:
    """Return run configuration for the training step."""
    return json.dumps({"ops": {"model_version": {"config": values}}})
