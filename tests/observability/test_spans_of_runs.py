"""Tests the attributes of a run's root span: partitions, launcher, time in the queue."""

from dataclasses import replace

import pytest

from ledgerline.ledger.links import Links
from ledgerline.testing.recordings import Recordings
from ledgerline.traces import attributes as names
from tests.observability.exported_spans import (
    SECOND,
    dicts_of,
    named,
    root_of,
    spans_of,
    tagged,
    times_of,
    trace_of,
)


def test_the_root_names_the_launcher_and_the_code_location(recorded: Recordings) -> None:
    history = tagged(
        recorded["ops"],
        partition="2013-01-01",
        backfill="abcdefgh",
        schedule_name="daily",
        sensor_name="new_flights",
        code_location="ledgerline",
    )
    run = replace(history.run, parent_run_id="parent", root_run_id="root")
    links = Links(dagster="http://dagster.example")
    spans = spans_of(replace(history, run=run), links=links, mlflow_page="http://mlflow.example/run")
    run_id = history.run.run_id
    assert root_of(spans).name == "run counting 2013-01-01"
    assert root_of(spans).attributes == {
        "dagster.run.id": run_id,
        "dagster.run.status": "SUCCESS",
        "dagster.run.root_id": "root",
        "dagster.run.parent_id": "parent",
        "dagster.job.name": "counting",
        "dagster.partition": "2013-01-01",
        "dagster.backfill.id": "abcdefgh",
        "dagster.schedule.name": "daily",
        "dagster.sensor.name": "new_flights",
        "dagster.code_location": "ledgerline",
        "dagster.run.url": f"http://dagster.example/runs/{run_id}",
        "dagster.run.mlflow_url": "http://mlflow.example/run",
        "mlflow.spanType": "WORKFLOW",
        "mlflow.spanInputs": "counting 2013-01-01",
        "mlflow.spanOutputs": "SUCCESS: 2 steps, 0 materialisations",
    }


def test_a_range_of_partitions_is_named_by_its_ends(recorded: Recordings) -> None:
    tags = {"asset_partition_range_start": "2013-01-01", "asset_partition_range_end": "2013-01-31"}
    root = root_of(spans_of(tagged(recorded["ops"], **tags)))
    assert (root.attributes or {})[names.PARTITION] == "2013-01-01...2013-01-31"


def test_time_in_the_queue_and_until_the_launch_has_a_span(recorded: Recordings) -> None:
    history, trace = recorded["queued"].history, trace_of(recorded["queued"])
    waits = [named(trace, "queued"), named(trace, "launch")]
    assert [wait.parent for wait in waits] == [root_of(trace).context] * 2
    assert history.enqueued is not None
    assert history.dequeued is not None
    assert history.started is not None
    expected = [history.enqueued, history.dequeued, history.dequeued, history.started]
    times = [time / SECOND for wait in waits for time in times_of(wait)]
    assert times == pytest.approx(expected, abs=1e-6)
    assert times_of(root_of(trace))[0] <= times_of(waits[0])[0]


def test_a_run_canceled_in_the_queue_has_a_root_with_the_reason(recorded: Recordings) -> None:
    (root,) = dicts_of(recorded["canceled in the queue"])
    assert (root["status"], root["description"]) == ("ERROR", "Taken out of the queue.")
    assert root["attributes"]["dagster.run.status"] == "CANCELED"
    assert root["attributes"]["mlflow.spanOutputs"] == "CANCELED: Taken out of the queue."
