"""Tests a comparison that replays logged requests with staging, as a job that people run."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.delay_model import MODEL_NAME, model_input, read_days
from assets.delay_model_version import FLIGHT_DELAY
from ledgerline.dagster.executors import executor_for
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.released_models.comparison import EvaluatedVersion
from ledgerline.dagster.released_models.registration import RegisteredVersion
from ledgerline.dagster.released_models.replayed_requests import lines_of, moment_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_records, open_tables
from ledgerline.mlflow_store.store import connect, downloaded
from pipelines.definitions import build_definitions
from tests.assets.requests import ask, hours_ago, in_requests, model_of

FEBRUARY_VERSION, MARCH_VERSION = 1, 2
ALWAYS_THERE = ["temp", "dewp", "humid", "pressure"]


@pytest.fixture
def judging(registrations: list[RegisteredVersion], ingested: Settings, settings: Settings) -> Settings:
    """A registry and records of this test's own, with tables that all share; version 1 is in production."""
    Path(settings.data).mkdir(parents=True)
    shutil.copyfile(ingested.home / "mlflow.db", settings.home / "mlflow.db")
    Path(settings.data, "features").symlink_to(Path(ingested.data, "features"))
    client = connect(settings.tracking_uri)
    client.set_registered_model_alias(MODEL_NAME, "production", str(FEBRUARY_VERSION))
    return settings


@pytest.fixture
def instance(stored_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    return stored_instance


@pytest.fixture
def flights(ingested: Settings) -> pd.DataFrame:
    """Flights of a day in March with weather: everything that any version requires."""
    rows = read_days(open_tables(ingested.data), ["2013-03-05"], "a test wants")
    return rows.dropna(subset=ALWAYS_THERE).head(90).reset_index(drop=True)


def compare(settings: Settings, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    job = build_definitions(settings, executor_for("in_process", 0, 1)).resolve_job_def(
        "compare_flight_delay"
    )
    config = {"version": MARCH_VERSION, **config}
    return job.execute_in_process(
        run_config={"ops": {"comparison_flight_delay": {"config": config}}},
        instance=instance,
        raise_on_error=False,
    )


def evaluated(settings: Settings) -> EvaluatedVersion:
    return open_records(settings.data).read(FLIGHT_DELAY.names.comparison, None, EvaluatedVersion)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry] == []
    failure = result.failure_data_for_node("comparison_flight_delay")
    assert failure is not None
    return str(failure.error).partition("Stack Trace")[0]


def test_replayed_predictions_of_staging_are_a_part_of_the_evidence(
    judging: Settings, instance: dg.DagsterInstance, flights: pd.DataFrame
) -> None:
    ask(judging, in_requests(flights, 3), version=FEBRUARY_VERSION, since=hours_ago(2))
    ask(judging, in_requests(flights.head(3), 3), version=FEBRUARY_VERSION, since=hours_ago(30))
    run = compare(judging, instance, replay_since=hours_ago(24).isoformat())

    found = evaluated(judging)
    replayed = found.replay
    assert replayed is not None
    inputs = model_input(flights)
    ours = model_of(judging, MARCH_VERSION).answer(inputs)
    theirs = model_of(judging, FEBRUARY_VERSION).answer(inputs)
    assert (replayed["requests"], replayed["rows"]) == (30, 90)
    assert replayed["rows_by_version"] == {"1": 90}
    assert replayed["disagreements"] == int((ours.argmax(1) != theirs.argmax(1)).sum())
    assert replayed["mean_difference"] == pytest.approx(np.abs(ours - theirs).mean())
    assert replayed["largest_difference"] == pytest.approx(np.abs(ours - theirs).max())
    assert (replayed["recomputed_rows"], replayed["recomputed_differently"]) == (90, 0)
    assert replayed["unscored_rows"] == 0
    assert 0 < replayed["staging_ms"]["p50_ms"] <= replayed["staging_ms"]["p99_ms"]

    client = connect(judging.tracking_uri)
    tracked = client.get_run(found.evidence_run_id)
    assert tracked.data.metrics["replay/rows"] == 90
    assert tracked.data.metrics["replay/share"] == pytest.approx(replayed["share"])
    assert tracked.data.metrics["replay/production_p99_ms"] > 0
    assert tracked.info.artifact_uri is not None
    with downloaded(client, tracked.info.artifact_uri) as folder:
        document = json.loads((folder / "evidence.json").read_bytes())
        report = (folder / "report.html").read_text()
    assert document["replay"] == replayed
    assert "<h2>Logged requests</h2>" in report
    assert "30 with 90 rows" in report
    (event,) = run.asset_materializations_for_node("comparison_flight_delay")
    assert "replay" in event.metadata


def test_requests_are_replayed_only_on_request_and_no_gate_depends_on_them(
    judging: Settings, instance: dg.DagsterInstance, flights: pd.DataFrame
) -> None:
    compare(judging, instance)
    without = evaluated(judging)
    assert without.replay is None
    ask(judging, [flights], version=FEBRUARY_VERSION, since=hours_ago(1))
    compare(judging, instance, replay_since=hours_ago(2).isoformat())
    asked = evaluated(judging)
    assert asked.replay is not None
    assert [ruling["rule"] for ruling in asked.rulings] == [ruling["rule"] for ruling in without.rulings]


def test_an_answer_that_production_does_not_give_again_is_counted(
    judging: Settings, instance: dg.DagsterInstance, flights: pd.DataFrame
) -> None:
    # Simulate that the files of version 1 were replaced: the log has predictions of version 2.
    ask(judging, [flights], version=MARCH_VERSION, since=hours_ago(1))
    assert judging.request_log is not None
    (file,) = Path(judging.request_log, MODEL_NAME).iterdir()
    rows = pd.read_parquet(file).assign(version=FEBRUARY_VERSION)
    rows.to_parquet(file)
    compare(judging, instance, replay_since=hours_ago(2).isoformat())
    replayed = evaluated(judging).replay
    assert replayed is not None
    assert replayed["recomputed_differently"] > 0
    assert replayed["disagreements"] == 0


@pytest.mark.parametrize("since", ["yesterday", "24h"])
def test_an_invalid_moment_is_quoted(since: str) -> None:
    with pytest.raises(PermanentFailure, match=f"replay_since is '{since}', which is not a time"):
        moment_of(since)


def test_a_moment_without_a_time_zone_is_utc() -> None:
    assert moment_of("2026-11-03T12:00") == datetime(2026, 11, 3, 12, tzinfo=UTC)
    assert moment_of("2026-11-03T12:00+02:00") == datetime(2026, 11, 3, 10, tzinfo=UTC)


def test_requests_that_cannot_be_replayed_have_a_reason_and_no_ruling(
    judging: Settings, instance: dg.DagsterInstance, flights: pd.DataFrame
) -> None:
    since = hours_ago(2)
    asked = {"replay_since": since.isoformat()}
    problem = failure_of(compare(judging, instance, **asked))
    assert (
        f"{judging.request_log} has no request to flight_delay from {since:%Y-%m-%d %H:%M:%S} UTC on"
        in problem
    )
    assert "Send requests to `ledgerline serve`" in problem

    off = judging.model_copy(update={"request_log_folder": "off"})
    assert "LEDGERLINE_REQUEST_LOG is off" in failure_of(compare(off, instance, **asked))

    assert judging.request_log is not None
    log = Path(judging.request_log)
    ask(judging, [flights], version=MARCH_VERSION, since=hours_ago(1))
    assert "was answered by version 2 itself" in failure_of(compare(judging, instance, **asked))

    ask(judging, [flights], version=FEBRUARY_VERSION, since=hours_ago(1), redacted=["carrier", "1"])
    problem = failure_of(compare(judging, instance, **asked))
    assert (
        "does not contain input.carrier, output.1, because LEDGERLINE_REQUEST_LOG_REDACTED redacts it"
        in problem
    )

    damaged = sorted((log / MODEL_NAME).iterdir())[-1]
    damaged.write_bytes(damaged.read_bytes()[:-10])
    assert f"{damaged} is not a whole Parquet file" in failure_of(compare(judging, instance, **asked))
    assert not open_records(judging.data).path_of(FLIGHT_DELAY.names.comparison).exists()


def test_a_replay_without_scored_requests_has_a_report() -> None:
    recorded = dict(
        lines_of(
            {
                "since": "2026-11-03T11:00:00+00:00",
                "until": "2026-11-03T12:30:00+00:00",
                "requests": 1200,
                "rows": 3400,
                "is_cut": True,
                "rows_by_version": {"3": 400, "4": 3000},
                "unscored_rows": 3400,
                "problem": "KeyError: 'seats'",
                "disagreements": 0,
                "share": None,
                "mean_difference": None,
                "largest_difference": None,
                "recomputed_rows": 400,
                "recomputed_differently": 7,
                "timed_requests": 200,
                "staging_ms": None,
                "production_ms": {"p50_ms": 1.5, "p99_ms": 2.25},
            }
        )
    )
    assert recorded == {
        "requests": "1,200 with 3,400 rows (the latest; there are more)",
        "from, to": "2026-11-03 11:00, 2026-11-03 12:30 UTC",
        "rows answered by": "version 3: 400, version 4: 3,000",
        "decided differently": "0",
        "mean, largest difference": "none, none",
        "rows staging cannot score": "3,400 (KeyError: 'seats')",
        "production predicts differently now": "7 of 400",
        "production, ms a request": "1.50, 2.25 (p50, p99 of 200)",
    }
