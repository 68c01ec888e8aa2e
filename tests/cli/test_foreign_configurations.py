"""Tests `ledgerline observe --dagster-home` with each form of an instance's configuration, valid or not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from tests.cli.command_lines import Ledgerline
from tests.cli.foreign_homes import baked, contents, links_reported, run_ids, runs_in

pytestmark = pytest.mark.usefixtures("mlflow_with_tables")

SECRET = "s3cret-word"


# Everything but the storage of an instance may be unusable on this machine, as in these configurations.
NOT_OF_STORAGE = {
    "a launcher that is not installed": """
run_launcher: {module: not_installed_here, class: K8sRunLauncher, config: {service_account_name: x}}
""",
    "a launcher that asks its cluster, which monitoring builds": """
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config: {service_account_name: dagster, instance_config_map: x, job_image: x, dagster_home: /opt}
run_monitoring: {enabled: true, max_resume_run_attempts: 3}
""",
    "variables that are not set": """
run_launcher:
  module: dagster
  class: DefaultRunLauncher
  config: {}
compute_logs:
  module: dagster_aws.s3.compute_log_manager
  class: S3ComputeLogManager
  config: {bucket: {env: NOT_SET_HERE}}
""",
    "settings of another version": "from_another_version: {enabled: true}\nrun_retries: {not_known: 1}\n",
    "a queue, secrets and logs that are not valid": """
run_coordinator: {module: nowhere, class: Queue}
secrets: {custom: {module: nowhere, class: Loader}}
python_logs: {python_log_level: 17}
schedules: nonsense
concurrency: {pools: []}
scheduler: {module: nowhere, class: Scheduler}
local_artifact_storage: {module: nowhere, class: Storage}
""",
    "both of what excludes the other": """
run_queue: {max_concurrent_runs: 1}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
""",
}


@pytest.mark.parametrize("others", NOT_OF_STORAGE.values(), ids=NOT_OF_STORAGE)
def test_everything_but_the_storage_may_be_invalid(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, others: str
) -> None:
    (home / "dagster.yaml").write_text(others)
    (run_id,) = run_ids(home, tmp_path)
    result = ledgerline("trace", run_id, "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert "bread" in result.stdout


def test_links_are_written_to_an_instance_of_which_only_the_storage_is_valid(
    ledgerline: Ledgerline, home: Path, tmp_path: Path
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    (home / "dagster.yaml").write_text(
        "".join(NOT_OF_STORAGE.values()).replace("\nrun_coordinator", "\nx", 1)
    )
    result = ledgerline("observe", run_id, "--dagster-home", home, OTEL_SDK_DISABLED="true")
    assert result.exit_code == 0, result.output
    (home / "dagster.yaml").unlink()
    assert links_reported(home, run_id)


def test_an_instance_without_a_configuration_has_dagsters_default_storage(
    ledgerline: Ledgerline, home: Path, tmp_path: Path
) -> None:
    (home / "dagster.yaml").unlink(missing_ok=True)
    (run_id,) = run_ids(home, tmp_path)
    assert "bread" in ledgerline("trace", run_id, "--dagster-home", home).stdout


@pytest.mark.parametrize(
    "configuration",
    [
        "storage: {sqlite: {base_dir: {env: DAGSTER_HOME}}}",
        "storage: {sqlite: {base_dir: '%s'}}",
        """
storage:
  custom:
    module: dagster._core.storage.sqlite_storage
    class: DagsterSqliteStorage
    config: {base_dir: '%s'}
""",
        """
run_storage: {module: dagster._core.storage.runs, class: SqliteRunStorage, config: {base_dir: '%s/history'}}
""",
        """
event_log_storage:
  module: dagster._core.storage.event_log
  class: SqliteEventLogStorage
  config: {base_dir: '%s/history/runs'}
schedule_storage: {module: nowhere, class: Schedules}
""",
    ],
)
def test_sqlite_is_opened_from_each_form_of_the_configuration(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, configuration: str
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    (home / "dagster.yaml").write_text(configuration.replace("%s", str(home)))
    assert "bread" in ledgerline("trace", run_id, "--dagster-home", home).stdout


@pytest.mark.parametrize("read_only", [(), ("--read-only",)], ids=["written", "only read"])
def test_event_logs_in_one_database_are_read(
    ledgerline: Ledgerline, tmp_path: Path, read_only: tuple[str, ...], client: MlflowClient
) -> None:
    home = tmp_path / "mill"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "event_log_storage:\n  module: dagster._core.storage.event_log\n"
        f"  class: ConsolidatedSqliteEventLogStorage\n  config: {{base_dir: '{home}/events'}}\n"
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run_id = baked(instance)
    before = contents(home)
    result = ledgerline("observe", "--all", "--dagster-home", home, *read_only)
    assert result.exit_code == 0, result.output
    assert runs_in(client, "mill") == [run_id]
    assert (contents(home) == before) is bool(read_only)


UNSET = "storage.postgres takes its values from environment variables that are not set"

MISTAKES = {
    "bad YAML": (
        f"storage: {{postgres: {{password: {SECRET}}}\n",
        "dagster.yaml is not valid YAML in line 2: ",
    ),
    "not a mapping": (
        "- storage\n",
        "dagster.yaml is not a valid dagster.yaml: it is not a mapping of settings.",
    ),
    "not text": ("\udcff", "dagster.yaml is not valid YAML: it is not text in UTF-8."),
    "an unset variable": (
        "storage: {postgres: {postgres_url: {env: NOT_SET_HERE}}}",
        f"{UNSET}: NOT_SET_HERE.",
    ),
    "unset variables": (
        "storage:\n postgres: {postgres_db: {username: {env: U},password: {env: P},hostname: h, db_name: d}}",
        f"{UNSET}: U, P.",
    ),
    "an unknown key": (
        f"storage: {{postgres: {{postgres_url: 'postgresql://u:{SECRET}@h/d', sharded: true}}}}",
        f"cannot be used: Dagster {dg.__version__} does not know sharded below storage.postgres.",
    ),
    "a key that is missing": (
        f"storage: {{postgres: {{postgres_db: {{username: u, password: {SECRET}, hostname: h}}}}}}",
        "dagster.yaml cannot be used: storage.postgres.postgres_db lacks db_name.",
    ),
    "a value of another type": (
        f"storage: {{postgres: {{postgres_db: {{username: u, hostname: h, db_name: d, port: {SECRET}}}}}}}",
        "dagster.yaml cannot be used: the value of storage.postgres.postgres_db.port is not valid for",
    ),
    "neither address nor parts": (
        "storage: {postgres: {}}",
        "storage.postgres has no address. Set either postgres_url or postgres_db.",
    ),
    "no address": (
        f"storage: {{postgres: {{postgres_url: 'database-{SECRET}'}}}}",
        "storage.postgres has an address that is not the address of a database. Use an address like",
    ),
    "another storage": (
        "storage: {spanner: {}}",
        f"dagster.yaml has storage.spanner, which Dagster {dg.__version__} does not know. Use one of sqlite,",
    ),
    "two storages": ("storage: {sqlite: {}, postgres: {}}", "dagster.yaml must have one of sqlite, postgres"),
    "storages of both forms": (
        "storage: {sqlite: {base_dir: /x}}\nrun_storage: {module: x, class: X}",
        "dagster.yaml has both storage and run_storage. Remove one of them.",
    ),
    "a package that is not installed": (
        "storage: {mysql: {mysql_url: 'mysql://u:p@h/d'}}",
        "needs dagster_mysql, and dagster_mysql is not installed. Install it: pip install",
    ),
    "a class that does not exist": (
        "run_storage: {module: dagster._core.storage.runs, class: Gone}",
        "dagster.yaml stores runs in run_storage, but dagster._core.storage.runs.Gone cannot be imported: ",
    ),
    "a class that is no storage": (
        "run_storage: {module: dagster, class: AssetKey}",
        "dagster.yaml stores runs in run_storage, but dagster.AssetKey is not a storage class.",
    ),
    "a storage without a class": (
        "event_log_storage: {module: x}",
        "dagster.yaml must name a module and a class below event_log_storage.",
    ),
    "a folder that is not there": (
        "storage: {sqlite: {base_dir: '%s/not/there'}}",
        "/not/there/history contains no runs of Dagster (storage.sqlite): runs.db does not exist.",
    ),
    "a home that never ran": (
        "",
        "/history contains no runs of Dagster (the default storage): runs.db does not exist.",
    ),
    "an agent's instance": (
        "instance_class: {module: dagster_cloud, class: DagsterCloudAgentInstance}",
        "dagster.yaml has a custom instance class and configures no storage, so its runs cannot be read.",
    ),
}


@pytest.mark.parametrize(("configuration", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_an_instance_that_cannot_be_opened_is_reported_in_a_sentence_and_no_file_is_created(
    ledgerline: Ledgerline, tmp_path: Path, configuration: str, sentence: str
) -> None:
    home = tmp_path / "bakery"
    home.mkdir()
    content = configuration.replace("%s", str(home)).encode(errors="surrogateescape")
    (home / "dagster.yaml").write_bytes(content)
    for command in (["observe", "--all"], ["observe", "--follow", "--read-only"], ["trace", "a-run"]):
        result = ledgerline(*command, "--dagster-home", home)
        assert result.exit_code == 2, result.output
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
        assert SECRET not in result.output
    assert [file.name for file in home.rglob("*")] == ["dagster.yaml"]


def test_a_database_that_is_damaged_or_of_something_else_is_named(ledgerline: Ledgerline, home: Path) -> None:
    database = home / "history" / "runs.db"
    database.write_bytes(b"not a database of SQLite" * 100)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 2
    assert result.stderr == f"{database} cannot be read as a SQLite database: file is not a database.\n"

    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 2
    assert result.stderr == f"{database} is not a database of Dagster: it has no table runs.\n"


def test_a_database_that_is_damaged_further_inside_is_named(ledgerline: Ledgerline, home: Path) -> None:
    database = home / "history" / "runs.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE runs RENAME COLUMN run_body TO body")
        connection.commit()
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"The runs of {home} cannot be read: no such column: runs.run_body")
