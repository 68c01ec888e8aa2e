"""Starts `mlflow models serve` and MLServer, as their users do.

MLServer needs older versions of libraries than this project, and so has a separate environment, which
`make test` installs from requirements/mlserver.lock.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests

from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until

MLSERVER = Path(__file__).parents[2] / ".venv/mlserver/bin/mlserver"
START_SECONDS, STOP_SECONDS = 180.0, 20.0


@contextmanager
def mlflow_serving(models: Mapping[str, Path], folder: Path) -> Iterator[dict[str, str]]:
    """`mlflow models serve` for each of some models; yields where each takes bodies."""
    mlflow = Path(sys.executable).with_name("mlflow")
    # It starts others by their names.
    environment = {
        "PATH": f"{mlflow.parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    with ExitStack() as servers:
        urls: dict[str, str] = {}
        for name, model in models.items():
            port = unused_port()
            where = ["--model-uri", str(model), "--env-manager", "local", "--host", HOST, "--port", str(port)]
            servers.enter_context(
                _running([str(mlflow), "models", "serve", *where], environment, folder / f"{name}.log")
            )
            urls[name] = f"http://{HOST}:{port}"
        for name, url in urls.items():
            _wait_for(f"{url}/ping", folder / f"{name}.log")
        yield {name: f"{url}/invocations" for name, url in urls.items()}


@contextmanager
def mlserver_serving(models: Mapping[str, Path], folder: Path) -> Iterator[dict[str, str]]:
    """MLServer with some models; yields where each takes bodies of the Open Inference Protocol."""
    port = unused_port()
    settings = {
        "host": HOST,
        "http_port": port,
        "grpc_port": unused_port(),
        "metrics_port": unused_port(),
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, model in models.items():
        (folder / name).mkdir()
        described = {
            "name": name,
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(model)},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(described))
    with _running(
        [str(MLSERVER), "start", str(folder)], {"PATH": os.environ["PATH"]}, folder / "mlserver.log"
    ):
        _wait_for(f"http://{HOST}:{port}/v2/health/ready", folder / "mlserver.log")
        yield {name: f"http://{HOST}:{port}/v2/models/{name}/infer" for name in models}


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={
                "HOME": str(log.parent),
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with all that it starts itself
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(url: str, log: Path) -> None:
    def is_ready() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(url, timeout=STOP_SECONDS).ok
        return False

    wait_until(is_ready, f"{url} responds; see {log}", START_SECONDS)
