"""Tests runs with odd texts in MLflow on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from ledgerline.cleaning.texts import REDACTED, shortened
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import RunHistory, RunStatus
from ledgerline.ledger.observer import LINGER_SECONDS, Observer, Report
from ledgerline.ledger.projection import RefusedError
from ledgerline.lineage import events as lineage
from ledgerline.mlflow_runs.projection import MLflowRunProjection
from ledgerline.mlflow_runs.tags import LEFT_OUT, MAX_RUN_NAME_LENGTH
from ledgerline.mlflow_store import store
from ledgerline.testing.written_runs import Clock, clock_to_put_forward
from tests.observability import odd_texts
from tests.observability.mlflow_target import LINKS
from tests.observability.odd_texts import FORBIDDEN, SECRET, TEXTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BUDGET = 60.0
TICKS = 12

# A team's database may have custom rules: MLflow reports one as a bad request, and one as a database that
# is temporarily unavailable.
POSTGRESQL_RULE = """
CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN
    IF NEW::text LIKE '%forbidden%' THEN RAISE EXCEPTION 'not here' USING ERRCODE = '{code}'; END IF;
    RETURN NEW; END $$ LANGUAGE plpgsql;
"""
POSTGRESQL_TRIGGER = (
    "CREATE TRIGGER refuse_{table} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
)
SQLITE_TRIGGER = (
    "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} WHEN NEW.{column} LIKE '%forbidden%' "
    "BEGIN SELECT RAISE(ABORT, 'not here'); END"
)
COLUMNS = {"params": "value", "tags": "value", "metrics": "key", "latest_metrics": "key", "datasets": "name"}


@pytest.fixture(params=["database", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """URI of an MLflow database."""
    return request.getfixturevalue(f"mlflow_{request.param}")


@pytest.fixture
def clock() -> Iterator[Clock]:
    with clock_to_put_forward() as clock:
        yield clock


@pytest.fixture
def projection(database: str, tmp_path: Path) -> MLflowRunProjection:
    """Return a projection to an experiment of the test's own."""
    client = store.connect(database)
    experiment = store.experiment_id(client, f"odd {uuid4().hex[:8]}", str(tmp_path / "artifacts"))
    return MLflowRunProjection(
        database,
        lambda: (client, experiment),
        LINKS,
        lambda history, run_id: lineage.documents(history, "tests", run_id),
    )


@pytest.fixture(params=["bad request", "unavailable"])
def rule(request: pytest.FixtureRequest, database: str) -> Iterator[str]:
    """Rules of the database against a word; what MLflow makes of them differs."""
    engine = create_engine(database)
    if engine.dialect.name == "sqlite":
        if request.param == "unavailable":
            pytest.skip("SQLite knows no such errors")
        # Tags have no such rule: MLflow takes it for the work of another process, and tries again for 10 s.
        tables = COLUMNS.keys() - {"tags"}
        made = [SQLITE_TRIGGER.format(table=table, column=COLUMNS[table]) for table in tables]
        undone = [f"DROP TRIGGER refuse_{table}" for table in tables]
    else:
        code = "22023" if request.param == "bad request" else "53400"
        made = [POSTGRESQL_RULE.format(code=code)]
        made += [POSTGRESQL_TRIGGER.format(table=table) for table in COLUMNS]
        undone = ["DROP FUNCTION refuse CASCADE"]
    with engine.begin() as connection:
        for statement in made:
            connection.execute(text(statement))
    yield request.param
    with engine.begin() as connection:
        for statement in undone:
            connection.execute(text(statement))
    engine.dispose()


def followed_to_its_end(
    projection: MLflowRunProjection, instance: dg.DagsterInstance, clock: Clock
) -> list[Report]:
    """Return what an observer reports until it follows no run any more."""
    observer, reports = Observer(projection), []
    for _ in range(TICKS):
        reports.append(observer.tick(instance, BUDGET))
        clock.forward(LINGER_SECONDS + 1)
        if not reports[-1].waiting:
            return reports
    raise AssertionError(f"It still follows a run: {[str(report) for report in reports]}")


def client_of(projection: MLflowRunProjection) -> "MlflowClient":
    client, _ = projection.open_experiment()
    return client


def run_of(projection: MLflowRunProjection, run_id: str) -> "Run":
    client, experiment = projection.open_experiment()
    (run,) = client.search_runs([experiment], f"tags.`dagster.run_id` = '{run_id}'")
    return run


def unfinished(history: RunHistory) -> RunHistory:
    """The same run while it was going on."""
    return replace(history, ended=None, status=RunStatus.STARTED, error=None)


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


def everything_of(projection: MLflowRunProjection, run: "Run", folder: Path) -> str:
    """All texts that MLflow has of a run."""
    client = client_of(projection)
    client.download_artifacts(run.info.run_id, "lineage", str(folder))
    documents = "".join(file.read_text() for file in sorted(folder.rglob("*.json")))
    return f"{run.to_dictionary()}{documents}"


@pytest.mark.parametrize("name", TEXTS)
def test_a_run_with_odd_texts_everywhere_is_exported_and_ends_with_its_status(
    projection: MLflowRunProjection,
    instance: dg.DagsterInstance,
    clock: Clock,
    tmp_path: Path,
    name: str,
) -> None:
    run_id = odd_texts.execute(instance, TEXTS[name])
    reports = followed_to_its_end(projection, instance, clock)
    assert [(report.unavailable, report.failures, report.refused) for report in reports] == [
        (None, {}, {})
    ] * len(reports)
    run, history = run_of(projection, run_id), history_of(instance, run_id)
    assert (run.info.status, run.info.end_time) == ("FAILED", int((history.ended or 0) * 1000))
    assert run.info.run_name == shortened(history.title, MAX_RUN_NAME_LENGTH)
    assert run.data.tags["error"].startswith("oddly: KeyError: ")
    assert {"run_seconds", "step_seconds/oddly", "checks_failed"} <= run.data.metrics.keys()
    assert [value for key, value in run.data.metrics.items() if key.startswith("rows/")] == [3.0]
    assert run.data.params["ops.oddly.config.secrets.first"] == REDACTED
    assert run.inputs is not None
    (recorded,) = run.inputs.dataset_inputs
    assert recorded.dataset.name.startswith("odd/")
    assert LEFT_OUT not in run.data.tags
    exported = everything_of(projection, run, tmp_path)
    assert '"eventType": "FAIL"' in exported
    assert SECRET not in exported
    assert "\x00" not in exported


def test_a_run_is_exported_without_texts_that_the_database_refuses_and_this_is_reported_once(
    projection: MLflowRunProjection,
    instance: dg.DagsterInstance,
    clock: Clock,
    database: str,
    rule: str,
) -> None:
    run_id = odd_texts.execute(instance, FORBIDDEN)
    reports = followed_to_its_end(projection, instance, clock)
    assert [(report.unavailable, report.failures) for report in reports] == [(None, {})] * len(reports)
    (refused,) = [error for report in reports for error in report.refused.values()]
    run = run_of(projection, run_id)
    assert run.info.status == "FAILED"
    assert run.info.end_time is not None
    assert {"run_seconds", "step_seconds/oddly", "checks_failed"} <= run.data.metrics.keys()
    assert run.data.params["ops.oddly.config.secrets.first"] == REDACTED
    assert run.data.tags["dagster.job_name"] == "odd"
    assert run.inputs is None or not run.inputs.dataset_inputs
    missing = refused.left_out.keys()
    named = run.data.tags[LEFT_OUT].split("\n")
    assert len(named) == len(missing)
    # If the database refuses the names, too, there are hashes of them.
    assert set(named) == missing or all(name.startswith("sha256 ") for name in named)
    kinds = {what.partition(" ")[0] for what in missing}
    assert kinds >= {"param", "metric", "dataset"}
    assert "param ops.oddly.config.text" in missing
    assert ("tag dagster.partition" in missing) == database.startswith("postgresql")
    assert "refuses these parts, and the run is exported without them: " in str(refused)
    files = {file.path for file in client_of(projection).list_artifacts(run.info.run_id)}
    assert files == {"lineage", "timeline.png"}


def test_a_run_in_progress_is_not_written_again_for_refused_texts(
    projection: MLflowRunProjection, instance: dg.DagsterInstance, rule: str
) -> None:
    run_id = odd_texts.execute(instance, FORBIDDEN)
    ended = history_of(instance, run_id)
    early = unfinished(ended)
    with pytest.raises(RefusedError):
        projection.export(instance, early, None)
    before = run_of(projection, run_id)
    assert before.info.status == "RUNNING"
    assert before.data.tags[LEFT_OUT]
    projection.export(instance, early, early)
    assert run_of(projection, run_id).data.tags == before.data.tags
