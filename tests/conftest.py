"""Fixtures of all tests: a clean environment, MLflow on SQLite and as a server, real flights."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ledgerline.dagster.settings import set_library_defaults
from ledgerline.testing.ports import HOST, unused_port
from ledgerline.testing.waiting import wait_until
from tests.project import PROJECT_ROOT

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd
    from mlflow import MlflowClient

START_SECONDS = 120

SERVER_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
}

# Any two days do; these have late, early, cancelled and diverted flights.
DAYS = ("2013-02-08", "2013-02-09")

HOME = pytest.StashKey[Path]()

# Variables that name real servers, for tests with these markers; other tests use fakes.
SERVER_VARIABLES = {
    "ollama": ("OLLAMA_HOST", "LEDGERLINE_LLM_MODEL", "LEDGERLINE_SERVERS"),
    "searxng": ("LEDGERLINE_SEARCH_URL",),
    "stack": ("LEDGERLINE_SERVERS",),
}
REAL_SERVERS = pytest.StashKey[dict[str, dict[str, str]]]()

# Prefixes of variables that change what is tested.
PREFIXES = ("LEDGERLINE_", "DAGSTER_", "MLFLOW_", "AWS_", "OLLAMA_", "OPENAI_", "OTEL_", "OPENLINEAGE_")

MAX_WORKERS = 8  # each starts its MLflow server, and the longest file takes an eighth of the time


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests, and the processes they start, away from the state and settings of a person."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script's job in the background ignores it, and all that it starts. Dagster's processes then ignore
        # SIGTERM, too (dagster/_utils/interrupts.py), so that the servers of the tests would never end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Processes that share the tests have theirs in that of the one which started them, and which deletes it.
    parent = os.environ["LEDGERLINE_HOME"] if hasattr(config, "workerinput") else None
    values = {
        mark: {name: os.environ[name] for name in names if name in os.environ}
        for mark, names in SERVER_VARIABLES.items()
    }
    config.stash[REAL_SERVERS] = getattr(config, "workerinput", {}).get("real_servers", values)
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="ledgerline-tests-", dir=parent))
    config.stash[HOME] = home
    os.environ["LEDGERLINE_HOME"] = str(home)
    os.environ["LEDGERLINE_PROJECT"] = str(PROJECT_ROOT)  # processes work in folders of their own
    os.environ["PYTHON_DOTENV_DISABLED"] = "true"
    os.environ["MPLBACKEND"] = "agg"
    # Threads that wait for each other by spinning make a busy machine ten times slower.
    os.environ["OMP_NUM_THREADS"] = "1"
    set_library_defaults()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand on to a process what it can no longer find in the environment."""
    node.workerinput["real_servers"] = node.config.stash[REAL_SERVERS]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let tests of a real server, and their fixtures, find it."""
    values = {
        name: value
        for mark, variables in item.config.stash[REAL_SERVERS].items()
        if item.get_closest_marker(mark)
        for name, value in variables.items()
    }
    os.environ.update(values)
    try:
        return (yield)
    finally:
        for name in values:
            os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: much of the time, a test waits for a process to start or to end."""
    return min((os.cpu_count() or 1) + 1, MAX_WORKERS)


@pytest.fixture
def instance() -> "Iterator[dg.DagsterInstance]":
    """An empty Dagster instance in memory."""
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def stored_instance(tmp_path: Path) -> "Iterator[dg.DagsterInstance]":
    """An empty Dagster instance in a folder, for tests in which several processes use it."""
    import dagster as dg

    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


@pytest.fixture(params=["instance", "stored_instance"], ids=["in memory", "in a folder"])
def any_instance(request: pytest.FixtureRequest) -> "dg.DagsterInstance":
    """An empty Dagster instance, in memory and in a folder: the event log has another shape in each."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database; creating its tables takes seconds, so they are created once."""
    from ledgerline.mlflow_store.store import connect

    file = tmp_path_factory.mktemp("mlflow-template") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def mlflow_database(mlflow_template: Path, tmp_path: Path) -> str:
    """URI of an MLflow database that only this test uses."""
    file = tmp_path / "mlflow.db"
    shutil.copyfile(mlflow_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def mlflow_server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the MLflow server's database and of its files, in `artifacts`."""
    return tmp_path_factory.mktemp("mlflow-server")


@pytest.fixture(scope="session")
def mlflow_server(mlflow_template: Path, mlflow_server_folder: Path) -> Iterator[str]:
    """URL of a real MLflow server with a separate store. All tests share it: use unique names."""
    folder = mlflow_server_folder
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    url = f"http://{HOST}:{unused_port()}"
    options = {
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination": f"{folder}/artifacts",
        "--host": HOST,
        "--port": url.rsplit(":", 1)[1],
        "--workers": "1",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "mlflow"),
                "server",
                *(part for option in options.items() for part in option),
            ],
            cwd=folder,
            env=os.environ | SERVER_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to be ended as a whole
        )
    try:
        _wait_until_healthy(url, server, log)
        yield url
    finally:
        _end_group(server)


@pytest.fixture(scope="session")
def mlflow_postgresql() -> Iterator[str]:
    """URI of an MLflow database on a real PostgreSQL. All tests share it: use unique names."""
    from ledgerline.mlflow_store.store import connect
    from ledgerline.testing import postgresql

    if postgresql.program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (on Debian: apt-get install postgresql)")
    with postgresql.database() as uri:
        connect(uri)
        yield uri


@pytest.fixture(params=["database", "server"])
def tracking_uri(request: pytest.FixtureRequest) -> str:
    """MLflow both ways: a database without a server, and a server."""
    return request.getfixturevalue(f"mlflow_{request.param}")


@pytest.fixture
def artifacts(tracking_uri: str, tmp_path: Path) -> str | None:
    """Return the folder of artifacts; None with a server, which has its own."""
    return None if tracking_uri.startswith("http") else str(tmp_path / "artifacts")


@pytest.fixture
def client(tracking_uri: str) -> "MlflowClient":
    """A client that reads what was recorded."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


@pytest.fixture(scope="session")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of DAYS and all they refer to, ingested by the real assets; to be read only."""
    import dagster as dg

    from assets import features, flights, reference
    from ledgerline.dagster.storage.io_managers import TableStorage

    folder = tmp_path_factory.mktemp("two-days")
    tables = {"tables": TableStorage(base=str(folder))}
    refers_to = [reference.airports, reference.airlines, reference.planes, reference.weather]
    tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    dg.materialize(refers_to, resources=tables)
    days = dg.materialize(
        [*refers_to, flights.flights, features.features],
        selection=[flights.flights, features.features],
        resources=tables,
        tags=tags,
    )
    assert days.success
    return folder


@pytest.fixture(scope="session")
def feature_rows(two_days: Path) -> "pd.DataFrame":
    """The features of all flights of two days, as they are stored."""
    import dagster as dg

    from assets.features import FEATURES_SCHEMA
    from ledgerline.dagster.storage.io_managers import open_tables

    return open_tables(str(two_days)).read(dg.AssetKey("features"), DAYS, FEATURES_SCHEMA)


@pytest.fixture(scope="session")
def inputs(feature_rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows as the model of the example takes them."""
    from assets.delay_model import model_input, with_outcome

    return model_input(with_outcome(feature_rows))


@pytest.fixture(scope="session")
def model(feature_rows: "pd.DataFrame") -> Any:
    """The pipeline of the example, trained on two days."""
    from assets.delay_model import TrainingConfig, train, with_outcome

    return train(with_outcome(feature_rows), TrainingConfig(max_iter=5))


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """URL of a port that refuses connections: it is bound, so that no other process can take it."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield f"http://{HOST}:{bound.getsockname()[1]}"


@pytest.fixture
def free_port() -> int:
    """A port of this machine with nothing behind it."""
    return unused_port()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    def is_healthy() -> bool:
        assert server.poll() is None, f"The server has ended:\n{log.read_text(errors='replace')[-3000:]}"
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
        return False

    wait_until(is_healthy, "the MLflow server is healthy", START_SECONDS)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its descendants: with SIGTERM, then with SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=15)
