"""`ledgerline observe --dagster-home`: the instances of others, however they are configured, and old ones."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from ledgerline.cli.main import app
from ledgerline.cli.observed_instances import telling_name
from ledgerline.dagster.settings import Settings
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.storages.instances import only_read_instance
from tests.project import EXPERIMENT, PROJECT_ROOT

# Homes that Dagster of earlier releases wrote; homes/make_home.py made them.
HOMES = sorted(Path(__file__).with_name("homes").glob("*.tar.gz"))

LEDGERLINE = Path(sys.executable).with_name("ledgerline")
SECRET = "s3cret-word"

# The launcher, the queue and everything else of an instance may be like this, where none of it can be used.
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

Ledgerline = Callable[..., Result]


@dg.asset
def flour() -> int:
    return 3


@dg.asset
def bread(flour: int) -> int:
    return flour


@pytest.fixture(autouse=True)
def mlflow_with_tables(settings: Settings, mlflow_template: Path) -> None:
    """Creating them takes seconds."""
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    return MlflowClient(settings.tracking_uri)


@pytest.fixture
def ledgerline(settings: Settings) -> Ledgerline:
    def invoke(*arguments: object, **variables: str) -> Result:
        environment = {"LEDGERLINE_HOME": str(settings.home), "COLUMNS": "120", **variables}
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)

    return invoke


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of an instance of another project, which has run once."""
    folder = tmp_path / "bakery" / "dagster_home"
    folder.mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        baked(instance)
    return folder


def baked(instance: dg.DagsterInstance) -> str:
    return dg.materialize([flour, bread], instance=instance).run_id


def run_ids(home: Path, scratch: Path) -> list[str]:
    with only_read_instance(home, scratch / "cursors") as observed:
        return [run.run_id for run in observed.instance.get_runs()]


def shown_in(client: MlflowClient, experiment: str) -> list[str]:
    """The Dagster runs that an experiment shows."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    return sorted(run.data.tags["dagster.run_id"] for run in client.search_runs([found.experiment_id]))


def links_reported(home: Path, run_id: str) -> bool:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        history = read_history(instance, run_id)
        assert history is not None
        return history.links_reported


def contents(folder: Path) -> dict[str, str]:
    """Each file, with the digest of its content and its times."""
    found = {}
    for file in sorted(folder.rglob("*")):
        digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "a folder"
        found[str(file)] = f"{digest} {file.stat().st_mtime_ns}"
    return found


def as_of_dagster_0_13(home: Path) -> None:
    """Make the databases what they were before there was a place for cursors."""
    tables = {
        "runs.db": ("kvs", "backfill_tags"),
        "runs/index.db": (
            "dynamic_partitions",
            "asset_event_tags",
            "asset_check_executions",
            "asset_daemon_asset_evaluations",
            "concurrency_limits",
            "concurrency_slots",
            "pending_steps",
        ),
    }
    for file, names in tables.items():
        with closing(sqlite3.connect(home / "history" / file)) as connection:
            for name in names:
                connection.execute(f"DROP TABLE IF EXISTS {name}")
            connection.execute("UPDATE alembic_version SET version_num = 'b37316bf5584'")
            connection.commit()


# Configuration of the instance


@pytest.mark.parametrize("others", NOT_OF_STORAGE.values(), ids=NOT_OF_STORAGE)
def test_what_is_not_a_storage_need_not_be_valid(
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


def test_an_instance_without_a_configuration_has_the_storage_that_dagster_takes_then(
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
def test_sqlite_is_found_in_each_form_of_the_configuration(
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
    assert shown_in(client, "mill") == [run_id]
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
def test_what_cannot_be_opened_is_told_in_a_sentence_and_nothing_is_made(
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


# Targets that show the runs


def test_its_runs_are_shown_apart_from_those_of_this_project(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    assert ledgerline("observe", run_id).exit_code == 2
    result = ledgerline("observe", run_id, "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert (
        f"The runs of {home} are exported to the MLflow experiment bakery and the lineage namespace bakery"
        in (result.stdout)
    )
    assert shown_in(client, "bakery") == [run_id]
    assert shown_in(client, EXPERIMENT) == []
    experiment = client.get_experiment_by_name("bakery")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    document = client.download_artifacts(run.info.run_id, "lineage/bread.json")
    assert '"namespace": "bakery"' in Path(document).read_text()
    assert '"namespace": "ledgerline"' not in Path(document).read_text()
    # The instance has a Dagster UI of its own, not that of this project.
    assert "dagster.url" not in run.data.tags


def test_experiment_namespace_and_pages_can_be_chosen(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    chosen = ("--experiment", "ovens", "--namespace", "berlin", "--dagster-url", "https://dagster.example/")
    result = ledgerline("observe", run_id, "--dagster-home", home, *chosen)
    assert result.exit_code == 0, result.output
    experiment = client.get_experiment_by_name("ovens")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["dagster.url"] == f"https://dagster.example/runs/{run_id}"
    document = client.download_artifacts(run.info.run_id, "lineage/bread.json")
    assert '"namespace": "berlin"' in Path(document).read_text()


@pytest.mark.parametrize(
    "option", [("--experiment", "x"), ("--namespace", "x"), ("--dagster-url", "http://x")], ids=lambda o: o[0]
)
def test_what_is_said_of_another_instance_needs_one(ledgerline: Ledgerline, option: tuple[str, str]) -> None:
    result = ledgerline("observe", "--all", *option)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "--experiment, --namespace and --dagster-url work only with --dagster-home."
    )


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/srv/bakery/dagster_home", "bakery"),
        ("/home/ana/.dagster", "ana"),
        ("/srv/bakery", "bakery"),
        ("/opt/dagster/dagster_home", "dagster"),
        ("/", "dagster"),
        ("/srv/.bakery/Dagster", "bakery"),
    ],
)
def test_an_instance_is_named_after_the_folder_that_says_whose_it_is(folder: str, name: str) -> None:
    assert telling_name(Path(folder)) == name


def test_an_instance_that_dagster_home_names_too_stays_without_a_configuration_of_this_project(
    ledgerline: Ledgerline, home: Path
) -> None:
    (home / "dagster.yaml").unlink(missing_ok=True)
    result = ledgerline("observe", "--all", "--dagster-home", home, "--read-only", DAGSTER_HOME=str(home))
    assert result.exit_code == 0, result.output
    assert not (home / "dagster.yaml").exists()


# Writing to the instance


def test_what_is_written_to_it_is_said_and_is_the_links_and_the_cursors(
    ledgerline: Ledgerline, home: Path, tmp_path: Path
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert (
        "Two things are written to that instance: an event in each run, which links to its trace"
        in result.stdout
    )
    assert "--read-only writes nothing to it." in result.stdout
    assert links_reported(home, run_id)


def test_read_only_changes_no_file_however_often(
    ledgerline: Ledgerline, home: Path, client: MlflowClient
) -> None:
    before = contents(home)
    for command in (["--all"], ["--all", "--since", "1h"]):
        result = ledgerline("observe", *command, "--dagster-home", home, "--read-only")
        assert result.exit_code == 0, result.output
        assert "Nothing is written to that instance: --read-only." in result.stdout
        assert contents(home) == before
    assert len(shown_in(client, "bakery")) == 1


def test_read_only_sees_what_is_written_meanwhile_also_what_only_the_write_ahead_log_has(
    home: Path, tmp_path: Path
) -> None:
    with (
        dg.DagsterInstance.from_config(str(home)) as theirs,
        only_read_instance(home, tmp_path / "cursors") as ours,
        closing(sqlite3.connect(home / "history" / "runs.db")) as kept_open,
    ):
        kept_open.execute("SELECT * FROM runs").fetchall()  # while one reads, the log stays
        before = {run.run_id for run in ours.instance.get_runs()}
        for _ in range(3):
            run_id = baked(theirs)
            assert {run.run_id for run in ours.instance.get_runs()} == before | {run_id}
            history = read_history(ours.instance, run_id)
            assert history is not None
            assert history.finished
            before.add(run_id)
        assert (home / "history" / "runs.db-wal").stat().st_size > 0


def test_what_is_only_read_is_followed_and_is_not_shown_again_by_the_next_process(
    settings: Settings, home: Path, client: MlflowClient
) -> None:
    from ledgerline.ledger.cursors import Cursors
    from ledgerline.ledger.observer import Observer
    from ledgerline.testing.written_runs import FakeTarget, clock_to_put_forward

    cursors = settings.home / "observed"
    first, second = FakeTarget(), FakeTarget()
    before = contents(home)
    with clock_to_put_forward() as clock, only_read_instance(home, cursors) as observed:
        observer = Observer(first, observed.cursor_store)
        observer.tick(observed.instance, 1.0)
        clock.forward(3600)
        observer.tick(observed.instance, 1.0)
        assert len(first.exports) == 1
    with only_read_instance(home, cursors) as observed:
        kept = Cursors.load(observed.cursor_store, first.name)
        assert kept is not None
        assert list(kept.active) == []
        Observer(second, observed.cursor_store).tick(observed.instance, 1.0)
    assert second.exports == []
    assert contents(home) == before


def test_a_copy_that_cannot_be_written_is_observed_and_it_is_said(
    settings: Settings, home: Path, client: MlflowClient
) -> None:
    before = contents(home)
    command = f'"{LEDGERLINE}" observe --all --dagster-home "{home}"'
    if os.geteuid() == 0:  # whom permissions do not keep from writing
        mounted = f'mount --bind "{home}" "{home}" && mount -o remount,ro,bind "{home}" && exec {command}'
        arguments = ["unshare", "--mount", "sh", "-c", mounted]
    else:
        for file in home.rglob("*"):
            file.chmod(file.stat().st_mode & ~0o222)
        arguments = ["sh", "-c", command]
    result = subprocess.run(
        arguments,
        env={**os.environ, "LEDGERLINE_HOME": str(settings.home)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if os.geteuid() == 0 and result.returncode == 1 and "permission denied" in result.stderr.lower():
        pytest.skip("nothing can be mounted here")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Nothing is written to that instance: {home}/history cannot be written." in result.stdout
    assert len(shown_in(client, "bakery")) == 1
    assert contents(home) == before


# Instances of older versions


@pytest.mark.parametrize("command", [["--all"], ["RUN"]], ids=" ".join)
def test_an_instance_without_a_place_for_cursors_is_shown_in_full_and_only_read(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient, command: list[str]
) -> None:
    (run_id,) = run_ids(home, tmp_path)
    as_of_dagster_0_13(home)
    before = contents(home)
    chosen = [run_id if part == "RUN" else part for part in command]
    result = ledgerline("observe", *chosen, "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert "Nothing is written to that instance:" in result.stdout
    assert "runs.db was created by an old Dagster and has no table kvs for cursors." in result.stdout
    assert shown_in(client, "bakery") == [run_id]
    assert contents(home) == before


def test_an_instance_with_another_schema_is_only_read(
    ledgerline: Ledgerline, home: Path, client: MlflowClient
) -> None:
    with closing(sqlite3.connect(home / "history" / "runs.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '5e139331e376'")
        connection.commit()
    before = contents(home)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 0, result.output
    assert "runs.db has the schema 5e139331e376, and Dagster" in result.stdout
    assert len(shown_in(client, "bakery")) == 1
    assert contents(home) == before


@pytest.mark.parametrize("archive", HOMES, ids=lambda archive: archive.name.removesuffix(".tar.gz"))
def test_a_home_of_an_earlier_dagster_is_shown(
    ledgerline: Ledgerline, client: MlflowClient, tmp_path: Path, archive: Path
) -> None:
    home = tmp_path / "earlier" / "dagster_home"
    home.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", archive, "-C", home], check=True)
    result = ledgerline("observe", "--all", "--dagster-home", home)
    assert result.exit_code == 0, result.output
    (run_id,) = shown_in(client, "earlier")
    traced = ledgerline("trace", run_id[:8], "--dagster-home", home)
    assert [name for name in ("numbers", "total") if f"─ {name}" in traced.stdout] == ["numbers", "total"]


@pytest.fixture
def folder_of_the_process() -> Iterator[None]:
    yield
    os.chdir(PROJECT_ROOT)


def test_a_home_may_be_named_from_where_one_is(
    ledgerline: Ledgerline,
    home: Path,
    client: MlflowClient,
    folder_of_the_process: None,
) -> None:
    os.chdir(home.parent)
    assert ledgerline("observe", "--all", "--dagster-home", "dagster_home").exit_code == 0
    assert len(shown_in(client, "bakery")) == 1


def test_without_a_project_commands_about_one_say_so_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("LEDGERLINE_PROJECT")
    monkeypatch.delenv("LEDGERLINE_HOME")
    for command in ("run", "dev"):
        result = CliRunner().invoke(app, [command])
        assert result.exit_code == 2, result.output
        assert f"There is no project in {elsewhere} or above it." in result.output
    assert not list(elsewhere.iterdir())


def test_without_a_project_the_instance_that_dagster_home_names_is_observed(
    ledgerline: Ledgerline, home: Path, tmp_path: Path, client: MlflowClient
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {"LEDGERLINE_PROJECT": str(elsewhere), "DAGSTER_HOME": str(home)}
    result = ledgerline("observe", "--all", "--experiment", "bread", **variables)
    assert result.exit_code == 0, result.output
    (run_id,) = run_ids(home, tmp_path)
    assert shown_in(client, "bread") == [run_id]
    assert links_reported(home, run_id)
    traced = ledgerline("trace", run_id, **variables)
    assert traced.exit_code == 0, traced.output
    assert "bread" in traced.output
    assert not list(elsewhere.iterdir())


def test_in_a_project_dagster_home_names_its_own_instance(ledgerline: Ledgerline, home: Path) -> None:
    result = ledgerline("observe", "--all", "--experiment", "bread", DAGSTER_HOME=str(home))
    assert result.exit_code == 2
    assert "--experiment, --namespace and --dagster-url work only with --dagster-home." in result.output


def test_without_a_project_and_an_instance_both_ways_to_name_one_are_said(
    ledgerline: Ledgerline, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = ledgerline("observe", "--all", LEDGERLINE_PROJECT=str(elsewhere))
    assert result.exit_code == 2
    assert "--dagster-home or DAGSTER_HOME names an instance." in " ".join(result.output.split())
