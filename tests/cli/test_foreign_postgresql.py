"""Tests `ledgerline observe --dagster-home` with instances whose runs are in PostgreSQL."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from mlflow import MlflowClient
from psycopg import sql
from typer.testing import CliRunner, Result

from ledgerline.cli.main import app
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.testing import postgresql
from ledgerline.testing.ports import HOST, unused_port
from tests.lock_files import names as locked
from tests.project import PROJECT_ROOT

pytestmark = [
    pytest.mark.skipif(postgresql.program("initdb") is None, reason="PostgreSQL is not installed"),
    pytest.mark.usefixtures("mlflow_with_tables"),
]

PASSWORD = "s3cret/word"
TEMPLATE = "template_of_dagster"
READER, WRITER = "reader", "writer"

# Each form of the configuration that people have; the address is in variables, as in containers.
FORMS = {
    "an address": "storage: {postgres: {postgres_url: {env: BAKERY_URL}}}",
    "its parts": """
storage:
  postgres:
    postgres_db:
      username: {env: BAKERY_USER}
      password: {env: BAKERY_PASSWORD}
      hostname: 127.0.0.1
      db_name: {env: BAKERY_DATABASE}
      port: {env: BAKERY_PORT}
""",
    "a class of all storages": """
storage:
  custom:
    module: dagster_postgres
    class: DagsterPostgresStorage
    config: {postgres_url: {env: BAKERY_URL}}
""",
    "a class for each storage": """
run_storage:
  module: dagster_postgres.run_storage
  class: PostgresRunStorage
  config: {postgres_url: {env: BAKERY_URL}}
event_log_storage:
  module: dagster_postgres.event_log
  class: PostgresEventLogStorage
  config: {postgres_url: {env: BAKERY_URL}}
schedule_storage:
  module: dagster_postgres.schedule_storage
  class: PostgresScheduleStorage
  config: {postgres_url: {env: NOT_SET_HERE}}
""",
}
SCHEMES = ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"]


@dg.asset
def bread() -> int:
    return 3


@dataclass(frozen=True)
class Database:
    """A database of an instance that has run once."""

    home: Path
    name: str
    port: int
    run_id: str

    def address(self, scheme: str = "postgresql", user: str = WRITER, **changed: object) -> str:
        password = changed.get("password", "s3cret%2Fword")
        port, name = changed.get("port", self.port), changed.get("name", self.name)
        return f"{scheme}://{user}:{password}@{HOST}:{port}/{name}"

    def configure(self, text: str) -> None:
        (self.home / "dagster.yaml").write_text(text)

    def configure_address(self, address: str) -> None:
        self.configure(f"storage: {{postgres: {{postgres_url: '{address}'}}}}")

    def execute(self, *statements: str) -> None:
        with administrator(self.port, self.name) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self) -> Mapping[str, int]:
        """Return how many rows each table has."""
        with administrator(self.port, self.name) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            counts = {}
            for (table,) in tables:
                counting = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
                found = connection.execute(counting).fetchone()
                assert found is not None
                counts[table] = found[0]
        return counts

    def links_reported(self) -> bool:
        self.configure_address(self.address("postgresql+psycopg2"))
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            history = read_history(instance, self.run_id)
            assert history is not None
            return history.links_reported


def administrator(port: int, database: str) -> "psycopg.Connection[tuple[Any, ...]]":
    return psycopg.connect(host=HOST, port=port, user=postgresql.USER, dbname=database, autocommit=True)


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    """A server on which everyone but the administrator needs a password."""
    with postgresql.server() as running:
        rules = running.parent / "data" / "pg_hba.conf"
        trusted = rules.read_text()
        rules.write_text(f"host all {READER},{WRITER},nobody 127.0.0.1/32 scram-sha-256\n{trusted}")
        with administrator(running.port, postgresql.USER) as connection:
            for user in (READER, WRITER):
                made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(user), PASSWORD)
                connection.execute(made)
            connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER {WRITER}".encode())
            connection.execute("SELECT pg_reload_conf()")
        yield running


@pytest.fixture(scope="module")
def run_id(server: postgresql.Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run in the template."""
    template = Database(tmp_path_factory.mktemp("template"), TEMPLATE, server.port, "")
    template.configure_address(template.address("postgresql+psycopg2"))
    with dg.DagsterInstance.from_config(str(template.home)) as instance:
        made = dg.materialize([bread], instance=instance).run_id
    template.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")
    return made


@pytest.fixture
def database(server: postgresql.Server, run_id: str, tmp_path: Path) -> Database:
    home = tmp_path / "bakery" / "dagster_home"
    home.mkdir(parents=True)
    name = f"bakery_{uuid4().hex[:8]}"
    with administrator(server.port, postgresql.USER) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER {WRITER} TEMPLATE {TEMPLATE}".encode())
    return Database(home, name, server.port, run_id)


def ledgerline(settings: Settings, *arguments: object, **variables: str) -> Result:
    environment = {"LEDGERLINE_HOME": str(settings.home), "COLUMNS": "120", **variables}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def observed(settings: Settings, database: Database, *options: str, **variables: str) -> Result:
    return ledgerline(
        settings,
        "observe",
        "--all",
        "--dagster-home",
        database.home,
        *options,
        OTEL_SDK_DISABLED="true",
        **variables,
    )


def exported_runs(settings: Settings) -> list[str]:
    client = MlflowClient(settings.tracking_uri)
    found = client.get_experiment_by_name("bakery")
    if found is None:
        return []
    return [run.data.tags["dagster.run_id"] for run in client.search_runs([found.experiment_id])]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_of_the_configuration_is_read(settings: Settings, database: Database, form: str) -> None:
    database.configure(form)
    result = ledgerline(
        settings,
        "trace",
        database.run_id,
        "--dagster-home",
        database.home,
        BAKERY_URL=database.address(),
        BAKERY_USER=WRITER,
        BAKERY_PASSWORD=PASSWORD,
        BAKERY_PORT=str(database.port),
        BAKERY_DATABASE=database.name,
    )
    assert result.exit_code == 0, result.output
    assert "bread" in result.stdout


@pytest.mark.parametrize("scheme", SCHEMES)
def test_runs_are_exported_and_links_written_with_every_driver_in_the_address(
    settings: Settings, database: Database, scheme: str
) -> None:
    database.configure_address(database.address(scheme))
    result = observed(settings, database)
    assert result.exit_code == 0, result.output
    assert "Two things are written to that instance: an event in each run" in result.stdout
    assert exported_runs(settings) == [database.run_id]
    assert database.links_reported()


def test_read_only_leaves_every_row_as_it_is_and_so_does_a_repetition(
    settings: Settings, database: Database
) -> None:
    database.configure_address(database.address())
    before = database.rows()
    for _ in range(2):
        result = observed(settings, database, "--read-only")
        assert result.exit_code == 0, result.output
        assert database.rows() == before
    assert exported_runs(settings) == [database.run_id]


def test_read_only_is_kept_by_the_server_itself(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    from ledgerline.ledger.storages.instances import only_read_instance

    database.configure_address(f"{database.address()}?options=-c%20search_path%3Dpublic")
    with only_read_instance(database.home, tmp_path) as opened:
        assert opened.instance.get_runs_count() == 1
        with pytest.raises(SQLAlchemyError, match="read-only transaction"):
            opened.instance.run_storage.set_cursor_values({"a": "b"})


@pytest.mark.parametrize(
    ("statements", "user", "reason"),
    [
        ([], READER, f"{READER} may not write to kvs in "),
        (
            [f"ALTER ROLE {WRITER} IN DATABASE %s SET default_transaction_read_only = on"],
            WRITER,
            "accepts no writes",
        ),
        (["DROP TABLE kvs"], WRITER, "was created by an old Dagster and has no table kvs"),
        (
            ["UPDATE alembic_version SET version_num = 'b37316bf5584'"],
            WRITER,
            "has the schema b37316bf5584, and",
        ),
    ],
    ids=["may only read", "a replica", "no place for cursors", "another schema"],
)
def test_an_instance_that_cannot_be_written_is_only_read(
    settings: Settings, database: Database, statements: list[str], user: str, reason: str
) -> None:
    database.execute(*(statement.replace("%s", database.name) for statement in statements))
    database.configure_address(database.address(user=user))
    before = database.rows()
    result = observed(settings, database)
    assert result.exit_code == 0, result.output
    assert f"Nothing is written to that instance: {'' if user == READER else HOST}" in result.stdout
    assert reason in result.stdout
    assert exported_runs(settings) == [database.run_id]
    assert database.rows() == before


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"password": "wr0ng-word"}, f'FATAL: password authentication failed for user "{WRITER}"'),
        ({"name": "bakrey"}, 'FATAL: database "bakrey" does not exist'),
        ({"port": 0}, "Connection refused"),
        ({"user": "nobody"}, 'FATAL: password authentication failed for user "nobody"'),
    ],
    ids=["wrong password", "wrong database", "dead server", "wrong user"],
)
def test_an_unreachable_database_is_reported_in_a_sentence_without_the_password(
    settings: Settings, database: Database, changed: dict[str, object], sentence: str
) -> None:
    if "port" in changed:
        changed["port"] = unused_port()
    database.configure_address(database.address(**changed))  # type: ignore[arg-type]
    result = observed(settings, database)
    assert result.exit_code == 2, result.output
    assert f"The database {HOST}:" in result.stderr
    assert "(storage.postgres) cannot be reached: " in result.stderr
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    for secret in ("wr0ng-word", PASSWORD, "s3cret%2Fword"):
        assert secret not in result.output


def test_a_database_without_tables_of_dagster_is_named_and_stays_without(
    settings: Settings, server: postgresql.Server, database: Database
) -> None:
    with administrator(server.port, postgresql.USER) as connection:
        connection.execute(f"CREATE DATABASE empty_{database.name} OWNER {WRITER}".encode())
    empty = Database(database.home, f"empty_{database.name}", database.port, "")
    empty.configure_address(empty.address())
    result = observed(settings, empty)
    assert result.exit_code == 2
    assert f"/{empty.name} (storage.postgres) has no table runs: it is not a database of" in result.stderr
    assert empty.rows() == {}


def test_a_missing_column_is_reported_in_a_sentence(settings: Settings, database: Database) -> None:
    database.execute("ALTER TABLE runs DROP COLUMN run_body")
    database.configure_address(database.address())
    result = observed(settings, database)
    assert result.exit_code == 2
    assert f"The runs of {database.home} cannot be read: column runs.run_body does not exist" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_missing_extra_is_named(
    settings: Settings, database: Database, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [name for name in sys.modules if name.partition(".")[0] == "dagster_postgres"]
    for name in {*loaded, "dagster_postgres"}:
        monkeypatch.setitem(sys.modules, name, None)
    database.configure(form)
    result = observed(settings, database, BAKERY_URL=database.address())
    assert result.exit_code == 2
    assert (
        "dagster_postgres is not installed. Install it: pip install 'ledgerline-mlops[postgres]'"
        in result.stderr
    )
    assert result.stderr.count("\n") == 1


def test_the_extra_has_the_packages_of_the_image() -> None:
    import tomllib

    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    extra = set(project["project"]["optional-dependencies"]["postgres"])
    names = {requirement.partition("=")[0].partition("[")[0].rstrip(">") for requirement in extra}
    assert names == {"dagster-postgres", "psycopg"}
    for lock in ("pipelines", "dev"):
        assert {name.partition("[")[0] for name in locked(lock)} >= names
