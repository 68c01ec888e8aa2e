"""Tests the databases of the stack, created by its scripts on a real PostgreSQL."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from benchmarks.stack.files import DOCKER
from ledgerline.testing import postgresql

PASSWORDS = {
    "POSTGRES_PASSWORD": "of-the-administrator",
    "DAGSTER_POSTGRES_PASSWORD": "of-dagster",
    "MLFLOW_POSTGRES_PASSWORD": "of-mlflow",
}

pytestmark = pytest.mark.skipif(
    postgresql.program("postgres") is None or postgresql.program("psql") is None,
    reason="PostgreSQL is not installed",
)


def make_databases(server: str, passwords: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script as the image does."""
    return postgresql.run_script(server, DOCKER / "postgres" / "databases.sql", passwords)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql.database() as uri:
        assert make_databases(uri, PASSWORDS).returncode == 0
        yield uri


def login(server: str, role: str, database: str) -> str:
    address = urlsplit(server)
    return f"postgresql://{role}:of-{role}@{address.hostname}:{address.port}/{database}"


def rows(uri: str, query: str) -> list[tuple[object, ...]]:
    import psycopg

    with psycopg.connect(uri) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize(("role", "other"), [("dagster", "mlflow"), ("mlflow", "dagster")])
def test_each_role_works_in_its_database_and_not_in_the_others(server: str, role: str, other: str) -> None:
    import psycopg

    own = login(server, role, role)
    with psycopg.connect(own) as connection:
        connection.execute("CREATE TABLE of_its_own (number int)")
        connection.execute("DROP TABLE of_its_own")
    for database in (other, "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(login(server, role, database))


@pytest.mark.parametrize("role", ["dagster", "mlflow"])
def test_every_role_has_the_necessary_privileges_only(server: str, role: str) -> None:
    flags = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin"
    query = f"SELECT {flags} FROM pg_roles WHERE rolname = '{role}'"  # noqa: S608 (of the test's own words)
    assert rows(server.replace("+psycopg", ""), query) == [(False, False, False, False, False, True)]


def test_passwords_are_kept_as_scram_hashes(server: str) -> None:
    plain = server.replace("+psycopg", "")
    query = "SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%' ORDER BY 1"
    assert rows(plain, query) == [("dagster",), ("mlflow",), ("postgres",)]


def test_the_same_again_changes_passwords_only(server: str) -> None:
    plain = server.replace("+psycopg", "")
    query = "SELECT rolpassword FROM pg_authid WHERE rolname = 'dagster'"
    before = rows(plain, query)
    made = make_databases(server, PASSWORDS | {"DAGSTER_POSTGRES_PASSWORD": "another"})
    assert made.returncode == 0, made.stderr
    assert rows(plain, query) != before
    assert rows(plain, "SELECT count(*) FROM pg_database WHERE datname IN ('dagster', 'mlflow')") == [(2,)]


@pytest.mark.parametrize("missing", PASSWORDS)
def test_without_a_password_no_role_is_created(server: str, missing: str) -> None:
    made = make_databases(server, {name: value for name, value in PASSWORDS.items() if name != missing})
    assert made.returncode != 0


def prepare(server: str, experiment_id: str) -> subprocess.CompletedProcess[str]:
    uri = login(server, "mlflow", "mlflow").replace("postgresql:", "postgresql+psycopg:")
    return subprocess.run(
        [sys.executable, DOCKER / "prepare_mlflow.py"],
        env=os.environ | {"MLFLOW_BACKEND_STORE_URI": uri, "OTELCOL_MLFLOW_EXPERIMENT_ID": experiment_id},
        capture_output=True,
        text=True,
        check=False,
    )


def test_mlflow_s_database_is_made_ready_with_the_experiment_of_the_collector(server: str) -> None:
    for _ in range(2):
        made = prepare(server, experiment_id="1")
        assert made.returncode == 0, made.stderr
    kept = rows(
        login(server, "mlflow", "mlflow"), "SELECT name, artifact_location FROM experiments ORDER BY 1"
    )
    assert kept[-1] == ("flight_delay", "mlflow-artifacts:/1")
    refused = prepare(server, experiment_id="7")
    assert refused.returncode != 0
    assert "Write OTELCOL_MLFLOW_EXPERIMENT_ID=1 into docker/.env" in refused.stderr


def test_dagster_stores_its_runs_there_as_configured(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = urlsplit(server)
    make_databases(server, PASSWORDS)
    for name, value in {
        "HOST": address.hostname,
        "PORT": address.port,
        "USER": "dagster",
        "PASSWORD": "of-dagster",
        "DATABASE": "dagster",
    }.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", str(value))
    monkeypatch.setenv("DAGSTER_COMPUTE_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("DAGSTER_ARTIFACTS", str(tmp_path / "artifacts"))
    shutil.copy(DOCKER / "dagster.yaml", tmp_path)
    monkeypatch.syspath_prepend(str(DOCKER))  # as PYTHONPATH of the image

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = create_run_for_test(instance, job_name="job", status=DagsterRunStatus.STARTED)
        instance.report_run_failed(run)  # writes an event and notifies listeners
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert type(instance.run_launcher).__module__ == "run_launcher"
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_user_code_failure_retries == 20
    kept = rows(login(server, "dagster", "dagster"), "SELECT status FROM runs")
    assert kept == [("FAILURE",)]
