"""Tests connections to MLflow: databases that are new, shared or unusable, and redacted URIs."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledgerline.cleaning.passwords import without_password
from ledgerline.mlflow_store import store

OPEN_STORE = """
import sys
from ledgerline.dagster.settings import set_library_defaults
set_library_defaults()
import mlflow
from ledgerline.mlflow_store.store import connect, experiment_id

print("ready", flush=True)
sys.stdin.readline()
print(experiment_id(connect(sys.argv[1]), "flight_delay", None), flush=True)
"""


def test_two_processes_that_open_a_new_database_at_once_both_succeed(tmp_path: Path):
    uri = f"sqlite:///{tmp_path}/state/mlflow.db"
    command = [sys.executable, "-W", "ignore", "-c", OPEN_STORE, uri]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda process: process.communicate("go\n", timeout=120), processes))
    finally:
        for process in processes:
            process.kill()
            process.wait()

    assert [process.returncode for process in processes] == [0, 0], answers
    (first, _), (second, _) = answers
    assert first == second != ""


def test_a_new_database_gets_its_folder_and_tables(tmp_path: Path):
    client = store.connect(f"sqlite:///{tmp_path}/a/b/mlflow.db")

    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


def test_a_database_whose_folder_cannot_be_created_names_it(tmp_path: Path):
    (tmp_path / "state").write_bytes(b"a file where the folder should be")

    with pytest.raises(store.StoreUnreachableError, match=f"^{tmp_path}/state cannot be written: "):
        store.connect(f"sqlite:///{tmp_path}/state/mlflow.db")


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)

    with pytest.raises(store.StoreUnreachableError) as error:
        store.connect(f"sqlite:///{tmp_path}/mlflow.db")

    assert str(error.value).startswith(f"The MLflow database sqlite:///{tmp_path}/mlflow.db cannot be opened")


def test_a_database_without_its_driver_is_named_without_its_password():
    with pytest.raises(store.StoreUnreachableError) as error:
        store.connect("postgresql+pg8000://ledgerline:secret@127.0.0.1:1/mlflow")

    assert "postgresql+pg8000://ledgerline:***@127.0.0.1:1/mlflow" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://user@mlflow.example", "https://user@mlflow.example"),
        ("https://user:secret@mlflow.example:8443/x?y=1", "https://user:***@mlflow.example:8443/x?y=1"),
        ("postgresql+psycopg://u:p%40ss@db/mlflow", "postgresql+psycopg://u:***@db/mlflow"),
        ("https://user:@mlflow.example", "https://user:***@mlflow.example"),
    ],
)
def test_passwords_are_not_printed(uri: str, printed: str):
    assert without_password(uri) == printed


def test_an_experiment_is_created_once(mlflow_database: str, tmp_path: Path):
    client = store.connect(mlflow_database)

    first = store.experiment_id(client, "flight_delay", str(tmp_path / "artifacts"))

    assert store.experiment_id(client, "flight_delay", "/elsewhere") == first
    location = client.get_experiment(first).artifact_location
    assert location == (tmp_path / "artifacts" / "flight_delay").as_uri()


@pytest.mark.parametrize(
    ("artifacts", "location"),
    [
        ("s3://bucket/mlflow/", "s3://bucket/mlflow/flight_delay"),
        ("/srv/a b", "file:///srv/a%20b/flight_delay"),
    ],
)
def test_artifacts_of_a_new_experiment_go_to_the_given_folder(
    mlflow_database: str, artifacts: str, location: str
):
    client = store.connect(mlflow_database)

    created = store.experiment_id(client, "flight_delay", artifacts)

    assert client.get_experiment(created).artifact_location == location


def test_a_server_chooses_the_folder_of_artifacts(mlflow_server: str):
    client = store.connect(mlflow_server)

    created = store.experiment_id(client, "where artifacts go", None)

    assert client.get_experiment(created).artifact_location.startswith("mlflow-artifacts:/")


@pytest.mark.parametrize("rest", ["127.0.0.1", "127.0.0.1:1", "127.0.0.1:5000x", "no.such.host.invalid"])
def test_a_server_address_that_cannot_be_used_is_refused_without_its_password(rest: str):
    with pytest.raises(store.StoreUnreachableError) as refused:
        store.connect(f"http://somebody:s3cret@{rest}")

    assert "somebody:***@" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_an_address_of_no_known_kind_is_refused_without_its_password():
    with pytest.raises(store.StoreUnreachableError) as refused:
        store.connect("ftp://somebody:s3cret@127.0.0.1/mlflow")

    assert "s3cret" not in str(refused.value)


def test_a_server_is_reached_with_a_login_in_its_address(mlflow_server: str):
    client = store.connect(mlflow_server.replace("http://", "http://somebody:s3cret@"))

    assert client.search_experiments(max_results=1)


def test_a_downloaded_model_is_deleted_afterwards(
    mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # all processes share the usual one
    client = store.connect(mlflow_server)
    run = client.create_run(store.experiment_id(client, "downloads", None))
    client.log_text(run.info.run_id, "content", "file.txt")

    with store.downloaded(client, run.info.artifact_uri or "") as folder:
        assert folder.is_relative_to(tmp_path)
        assert (folder / "file.txt").read_text() == "content"

    assert list(tmp_path.iterdir()) == []
