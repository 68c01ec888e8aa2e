"""Tests drift of requests to the service, for each kind of prediction."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ledgerline.dagster.released_models.drift_records import RequestsDrift
from ledgerline.dagster.released_models.watch import SCORES_STABLE
from ledgerline.dagster.resources import registry_of
from ledgerline.dagster.storage.io_managers import open_records
from ledgerline.mlflow_store.store import connect
from ledgerline.serving.request_logging import AnsweredRequest, RequestLogger
from ledgerline.serving.rows import Rows, output_rows
from tests.released_models.watched import (
    FEBRUARY,
    MARCH,
    NAME,
    Project,
    checks_of,
    copied,
    days_of,
    inputs,
    problem_of,
)


@pytest.fixture
def serving(of_kind: Project, tmp_path: Path) -> Project:
    """Version 1 is in production, and has had no request yet."""
    found = copied(of_kind, tmp_path / "home")
    connect(found.settings.tracking_uri).set_registered_model_alias(NAME, "production", "1")
    return found


def send(found: Project, rows: pd.DataFrame, redacted: tuple[str, ...] = ()) -> None:
    """Log a request for each row, with the response of version 1."""
    assert found.settings.request_log is not None
    registered = registry_of(found.settings).model(NAME)
    model = registered.load(registered.version(1))
    logger = RequestLogger(Path(found.settings.request_log), frozenset(redacted), 10**9)
    logger.start()
    since = datetime.now(UTC) - timedelta(hours=2)
    for number in range(0, len(rows), 2):
        sent = inputs(rows.iloc[number : number + 2])
        logger.log(
            AnsweredRequest(
                at=since.timestamp() + number / 1000,
                request_id=f"request {number}",
                model=NAME,
                version=1,
                trace_id=f"{number:032x}",
                seconds=0.01,
                inputs=Rows({str(name): sent[name].to_numpy() for name in sent}, len(sent)),
                outputs=output_rows(model.answer(sent), len(sent)),
            )
        )
    logger.stop()


def compare(found: Project) -> dg.ExecuteInProcessResult:
    return found.run(found.model.names.watch_requests_job)


def drift_in(found: Project) -> RequestsDrift:
    return open_records(found.settings.data).read(found.model.names.requests_drift, None, RequestsDrift)


def test_requests_like_the_training_rows_have_not_drifted_and_others_have(serving: Project) -> None:
    alike = serving.stored("rows", days_of(FEBRUARY))
    send(serving, alike)
    run = compare(serving)
    assert run.success
    found = drift_in(serving)
    assert (found.version, found.requests, found.rows) == (1, len(alike) // 2, len(alike))
    assert list(found.score_psi) == list(serving.model.kind.score_names)
    assert max(*found.score_psi.values(), *found.feature_psi.values()) < 0.05
    assert checks_of(run)[SCORES_STABLE].passed
    metadata = run.asset_materializations_for_node("requests_drift_demand")[0].metadata
    assert metadata["largest_score_psi"].value == max(found.score_psi.values())
    assert str(metadata["scores_plot"].value).startswith("![plot](data:image/png;base64,")

    send(serving, serving.stored("rows", days_of(MARCH)).iloc[:1000])
    check = checks_of(compare(serving))[SCORES_STABLE]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN


def test_few_requests_are_reported_and_columns_that_are_not_logged_named(serving: Project) -> None:
    send(serving, serving.stored("rows", days_of(MARCH)[:2]), redacted=("x",))
    check = checks_of(compare(serving))[SCORES_STABLE]
    assert check.passed
    assert check.description == "Not evaluated: 40 requests; at least 500 are needed"
    found = drift_in(serving)
    assert (found.not_logged, found.feature_psi) == (["x"], {})
    assert max(found.score_psi.values()) > 0.25


def test_without_a_version_in_production_the_job_that_promotes_one_is_named(serving: Project) -> None:
    connect(serving.settings.tracking_uri).delete_registered_model_alias(NAME, "production")
    problem = problem_of(compare(serving), "requests_drift_demand")
    assert "Promote one with the job release_demand" in problem
