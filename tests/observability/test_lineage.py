"""The OpenLineage events of runs: of the weather in lineage_jobs.py, and of all recordings in conftest.py."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from openlineage.client.event_v2 import RunEvent, RunState
from openlineage.client.serde import Serde

from ledgerline.ledger import ids
from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import Attempt, Error, Materialisation, Outcome, Run, RunHistory, RunStatus
from ledgerline.ledger.reads import Basis, Read, Source
from ledgerline.lineage.events import PRODUCER, documents, run_events
from ledgerline.testing.recordings import Recording, Recordings
from tests.observability.lineage_jobs import DAYS, RANGE, break_down, observe_weather

NAMESPACE = "weather"
CREATED = 1_000_000_000.0  # 2001-09-09T01:46:40Z

START, COMPLETE, FAIL, ABORT = RunState.START, RunState.COMPLETE, RunState.FAIL, RunState.ABORT

STATIONS_FIELDS = [
    {"name": "station", "type": "string", "description": "Its code.", "ordinal_position": 1, "fields": []},
    {"name": "elevation", "type": "double", "ordinal_position": 2, "fields": []},
]
READINGS_FIELDS = [
    {
        "name": "station",
        "type": "string",
        "description": "Where it was read.",
        "ordinal_position": 1,
        "fields": [],
    },
    {
        "name": "celsius",
        "type": "double",
        "description": "What was read.",
        "ordinal_position": 2,
        "fields": [],
    },
]
STATIONS_INPUT = {
    "namespace": NAMESPACE,
    "name": "stations",
    "facets": {"version": {"datasetVersion": "stations-1"}, "schema": {"fields": STATIONS_FIELDS}},
    "inputFacets": {},
}


@pytest.fixture(scope="module")
def weather_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("weather"))) as instance:
        yield instance


@pytest.fixture(scope="module")
def weather(weather_instance: dg.DagsterInstance) -> RunHistory:
    """A run over three days, in which a check finds something and a step is retried."""
    run = observe_weather.execute_in_process(instance=weather_instance, tags=RANGE)
    return history_of(weather_instance, run.run_id)


@pytest.fixture(scope="module")
def breakdown(weather_instance: dg.DagsterInstance) -> RunHistory:
    """A run that fails."""
    run = break_down.execute_in_process(instance=weather_instance, raise_on_error=False)
    return history_of(weather_instance, run.run_id)


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


def told(events: Sequence[RunEvent]) -> list[tuple[str, RunState | None]]:
    return [(event.job.name, event.eventType) for event in events]


def event_of(history: RunHistory, job: str, *states: RunState) -> RunEvent:
    """The only event of a job that is in one of these states."""
    [event] = [
        event
        for event in run_events(history, NAMESPACE)
        if event.job.name == job and event.eventType in (states or (COMPLETE,))
    ]
    return event


def plain(value: Any) -> Any:
    """Return the document as it is sent, without the parts that all facets share."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in ("_producer", "_schemaURL")}
    return [plain(part) for part in value] if isinstance(value, list) else value


def as_sent(event: RunEvent) -> dict[str, Any]:
    return plain(json.loads(Serde.to_json(event)))


def facets_of(event: RunEvent) -> Iterator[tuple[str, dict[str, Any]]]:
    """All facets of an event as they are sent, with their names."""
    sent = json.loads(Serde.to_json(event))
    datasets = [*sent["inputs"], *sent["outputs"]]
    for part in (sent["run"], sent["job"], *datasets):
        yield from part["facets"].items()
    for dataset in datasets:
        yield from dataset.get("inputFacets", {}).items()
        yield from dataset.get("outputFacets", {}).items()


def timestamp(event: RunEvent) -> float:
    assert event.eventTime.endswith("Z")
    return datetime.fromisoformat(event.eventTime).timestamp()


# Runs and attempts


def test_a_run_and_each_attempt_at_its_steps_start_and_end_in_order(weather: RunHistory) -> None:
    events = run_events(weather, NAMESPACE)
    assert told(events)[0] == ("observe_weather", START)
    assert told(events)[-1] == ("observe_weather", COMPLETE)
    assert sorted(told(events)[1:-1], key=lambda told: told[0]) == [
        ("observe_weather.forecast", START),
        ("observe_weather.forecast", FAIL),
        ("observe_weather.forecast", START),
        ("observe_weather.forecast", COMPLETE),
        ("observe_weather.hottest_and_report", START),
        ("observe_weather.hottest_and_report", COMPLETE),
        ("observe_weather.readings", START),
        ("observe_weather.readings", COMPLETE),
        ("observe_weather.stations", START),
        ("observe_weather.stations", COMPLETE),
        ("observe_weather.stations_stations_are_unique", START),
        ("observe_weather.stations_stations_are_unique", COMPLETE),
    ]
    times = [timestamp(event) for event in events]
    assert times == sorted(times)
    assert times[0] == pytest.approx(weather.started, abs=1e-5)
    assert times[-1] == pytest.approx(weather.ended, abs=1e-5)


def test_a_step_says_what_it_read_and_what_it_wrote(weather: RunHistory) -> None:
    [attempt] = [attempt for attempt in weather.attempts if attempt.step == "readings"]
    event = event_of(weather, "observe_weather.readings")
    run_id, trace_id = weather.run.run_id, weather.run.run_id.replace("-", "")
    assert as_sent(event) == {
        "eventType": "COMPLETE",
        "eventTime": event.eventTime,
        "producer": PRODUCER,
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "job": {
            "namespace": NAMESPACE,
            "name": "observe_weather.readings",
            "facets": {
                "jobType": {"processingType": "BATCH", "integration": "DAGSTER", "jobType": "STEP"},
            },
        },
        "run": {
            "runId": event.run.runId,
            "facets": {
                "ledgerline_run": {
                    "dagster_run_id": run_id,
                    "job": "observe_weather",
                    "trace_id": trace_id,
                    "span_id": f"{ids.attempt_span_id(run_id, 'readings', 1):016x}",
                    "partition": "2013-07-01...2013-07-03",
                    "step": "readings",
                    "attempt": 1,
                    "code_versions": [],
                },
                "nominalTime": {
                    "nominalStartTime": "2013-07-01T00:00:00Z",
                    "nominalEndTime": "2013-07-04T00:00:00Z",
                },
                "parent": {
                    "run": {"runId": run_id, "facets": {}},
                    "job": {"namespace": NAMESPACE, "name": "observe_weather", "facets": {}},
                    "root": {
                        "run": {"runId": run_id, "facets": {}},
                        "job": {"namespace": NAMESPACE, "name": "observe_weather", "facets": {}},
                    },
                },
                "processing_engine": {"name": "Dagster", "version": dg.__version__},
            },
        },
        "inputs": [
            # Never written, hence of no version.
            {"namespace": NAMESPACE, "name": "raw/thermometer", "facets": {}, "inputFacets": {}},
            STATIONS_INPUT,
        ],
        "outputs": [
            {
                "namespace": NAMESPACE,
                "name": "readings",
                "facets": {
                    "version": {"datasetVersion": "readings-1"},
                    "schema": {"fields": READINGS_FIELDS},
                    "columnLineage": {
                        "fields": {
                            "station": {
                                "inputFields": [
                                    {
                                        "namespace": NAMESPACE,
                                        "name": "stations",
                                        "field": "station",
                                        "transformations": [],
                                    }
                                ]
                            },
                            "celsius": {
                                "inputFields": [
                                    {
                                        "namespace": NAMESPACE,
                                        "name": "raw/thermometer",
                                        "field": "volts",
                                        "transformations": [],
                                    }
                                ]
                            },
                        },
                        "dataset": [],
                    },
                    "dataQualityAssertions": {
                        "assertions": [
                            {
                                "assertion": "plausible",
                                "name": "plausible",
                                "success": True,
                                "severity": "error",
                                "params": {},
                            }
                        ]
                    },
                },
                "outputFacets": {
                    "outputStatistics": {"rowCount": 71},
                    "ledgerline_partitions": {
                        "partitions": [
                            {"partition": "2013-07-01", "data_version": "sha-2013-07-01", "rows": 24},
                            {"partition": "2013-07-02", "data_version": "sha-2013-07-02", "rows": 23},
                            {"partition": "2013-07-03", "data_version": "sha-2013-07-03", "rows": 24},
                        ]
                    },
                },
            }
        ],
    }
    assert timestamp(event) == pytest.approx(attempt.ended, abs=1e-5)


def test_what_a_check_found_is_with_the_asset_that_it_read(weather: RunHistory) -> None:
    sent = as_sent(event_of(weather, "observe_weather.stations_stations_are_unique"))
    assert sent["outputs"] == []
    assert sent["inputs"] == [
        {
            **STATIONS_INPUT,
            "inputFacets": {
                "dataQualityAssertions": {
                    "assertions": [
                        {
                            "assertion": "stations_are_unique",
                            "name": "stations_are_unique",
                            "success": False,
                            "severity": "warn",
                            "description": "EWR twice.",
                            "params": {},
                        }
                    ]
                }
            },
        }
    ]


def test_a_step_that_writes_two_assets_did_not_read_the_one_it_made_the_other_from(
    weather: RunHistory,
) -> None:
    event = event_of(weather, "observe_weather.hottest_and_report")
    assert [dataset.name for dataset in event.inputs or []] == ["readings"]
    assert [dataset.name for dataset in event.outputs or []] == ["hottest", "reports/hottest"]


def test_a_retry_is_another_run_of_the_same_job(weather: RunHistory) -> None:
    failed = event_of(weather, "observe_weather.forecast", FAIL)
    succeeded = event_of(weather, "observe_weather.forecast", COMPLETE)
    assert failed.run.runId != succeeded.run.runId
    first, second = as_sent(failed), as_sent(succeeded)
    assert first["run"]["facets"]["errorMessage"]["message"] == (
        "ConnectionError: The weather service is busy."
    )
    assert first["run"]["facets"]["ledgerline_run"]["attempt"] == 1
    assert second["run"]["facets"]["ledgerline_run"]["attempt"] == 2
    assert first["outputs"] == []
    assert [dataset["name"] for dataset in second["outputs"]] == ["forecast"]
    assert second["inputs"] == [STATIONS_INPUT]


def test_a_failed_step_says_why_and_the_run_too(breakdown: RunHistory) -> None:
    for job in ("break_down.broken", "break_down"):
        error = as_sent(event_of(breakdown, job, FAIL))["run"]["facets"]["errorMessage"]
        assert error["message"] == "RuntimeError: Not a reading."
        assert error["programmingLanguage"] == "python"
        stack = error["stackTrace"]
        assert stack.count('raise RuntimeError("Not a reading.") from error') == 1
        assert stack.count("Caused by ValueError: invalid literal for int() with base 10: 'seven'") == 1
        assert stack.endswith('int("seven")')


def test_a_run_that_only_knows_which_steps_failed_has_the_reason_of_the_first(recorded: Recordings) -> None:
    history = recorded["errors"].history
    knows_little = replace(history, error=Error("dagster.RunFailure", "Steps failed: 4.", stack=""))
    error = as_sent(event_of(knows_little, "failing", FAIL))["run"]["facets"]["errorMessage"]
    assert error["message"] == "dagster.RunFailure: Steps failed: 4."
    causes = [line for line in error["stackTrace"].splitlines() if line.startswith("Caused by ")]
    assert [cause.split(":")[0] for cause in causes] == [
        "Caused by RuntimeError",
        "Caused by ValueError",
        "Caused by KeyError",
    ]


def test_a_retry_that_helped_is_no_reason_why_the_run_failed(recorded: Recordings) -> None:
    history = recorded["retries"].history
    knows_little = replace(history, error=Error("dagster.RunFailure", "Steps failed: 1.", stack=""))
    error = as_sent(event_of(knows_little, "retrying", FAIL))["run"]["facets"]["errorMessage"]
    assert "in fail_always" in error["stackTrace"]
    assert "in ask_for_a_retry" not in error["stackTrace"]


def test_the_version_of_the_code_is_told_where_an_asset_declares_one(weather: RunHistory) -> None:
    facet = as_sent(event_of(weather, "observe_weather.stations"))["run"]["facets"]["ledgerline_run"]
    assert facet["code_versions"] == [{"asset": "stations", "code_version": "2"}]


def test_the_mlflow_run_is_named_where_it_is_known(weather: RunHistory) -> None:
    for event in run_events(weather, NAMESPACE, mlflow_run_id="abc"):
        assert as_sent(event)["run"]["facets"]["ledgerline_run"]["mlflow_run_id"] == "abc"


def test_a_run_executed_again_has_the_run_before_it_as_parent(
    weather_instance: dg.DagsterInstance, breakdown: RunHistory
) -> None:
    first = breakdown.run.run_id
    again = weather_instance.create_run_for_job(break_down, parent_run_id=first, root_run_id=first)
    execute_run(InMemoryJob(break_down), again, weather_instance)
    history = history_of(weather_instance, again.run_id)
    of_run = as_sent(event_of(history, "break_down", START))["run"]["facets"]["parent"]
    of_step = as_sent(event_of(history, "break_down.broken", START))["run"]["facets"]["parent"]
    assert of_run["run"]["runId"] == first
    assert of_step["run"]["runId"] == again.run_id
    for parent in (of_run, of_step):
        assert parent["job"]["name"] == "break_down"
        assert parent["root"]["run"]["runId"] == first
        assert parent["root"]["job"]["name"] == "break_down"


# Any run


def test_what_is_told_while_a_run_goes_on_is_what_is_told_afterwards(recording: Recording) -> None:
    """Record by record, each event once, and with the same words."""
    at_once = run_events(recording.history, NAMESPACE)
    by_and_by: list[RunEvent] = []
    before = None
    for read in range(1, len(recording.records) + 1):
        now = recording.history_of(recording.records[:read])
        by_and_by += run_events(now, NAMESPACE, before=before)
        before = now
    last_words = {(event.run.runId, event.eventType == START): event for event in by_and_by}
    assert sorted(last_words.values(), key=str) == sorted(at_once, key=str)
    assert by_and_by[0] == at_once[0]
    assert run_events(recording.history, NAMESPACE, before=recording.history) == []


def test_each_run_of_openlineage_starts_once_and_ends_once(recording: Recording) -> None:
    events = run_events(recording.history, NAMESPACE)
    starts = [event.run.runId for event in events if event.eventType == START]
    ends = [event.run.runId for event in events if event.eventType != START]
    assert len(set(starts)) == len(starts) == 1 + len(recording.history.attempts)
    assert sorted(starts) == sorted(ends)
    assert all(str(UUID(run_id)) == run_id for run_id in starts)


def test_the_same_history_is_told_in_the_same_words(recording: Recording) -> None:
    told, again = (
        [Serde.to_json(event) for event in run_events(recording.history, NAMESPACE)] for _ in range(2)
    )
    assert told == again


def test_every_event_and_facet_says_who_made_it_and_where_it_is_defined(recording: Recording) -> None:
    for event in run_events(recording.history, NAMESPACE):
        assert event.producer == PRODUCER
        for name, facet in facets_of(event):
            assert facet["_producer"] == PRODUCER
            kind = (
                "urn:ledgerline:facet:" if name.startswith("ledgerline_") else "https://openlineage.io/spec/"
            )
            assert facet["_schemaURL"].startswith(kind)
            assert not facet["_schemaURL"].endswith("BaseFacet")


def test_the_producer_of_others_in_the_same_process_stays_theirs(weather: RunHistory) -> None:
    from openlineage.client.facet_v2 import processing_engine_run

    run_events(weather, NAMESPACE)
    facet = processing_engine_run.ProcessingEngineRunFacet("1.0")
    assert facet._producer != PRODUCER


def test_an_asset_that_was_looked_at_is_an_input_at_its_version(recorded: Recordings) -> None:
    history = recorded["observed"].history
    [attempt] = history.attempts
    [seen] = attempt.observations
    event = as_sent(event_of(history, f"{history.run.job}.{attempt.step}"))
    [dataset] = event["inputs"]
    assert dataset["name"] == seen.asset
    assert dataset["facets"] == (
        {"version": {"datasetVersion": seen.data_version}} if seen.data_version else {}
    )
    assert event["outputs"] == []


def test_a_step_whose_run_was_killed_failed_and_one_whose_run_was_canceled_was_aborted(
    recorded: Recordings,
) -> None:
    history = recorded["killed"].history
    [attempt] = [attempt for attempt in history.attempts if attempt.outcome is Outcome.INTERRUPTED]
    for status, state in ((RunStatus.FAILURE, FAIL), (RunStatus.CANCELED, ABORT), (RunStatus.SUCCESS, ABORT)):
        ended = replace(history, status=status)
        event = event_of(ended, f"{history.run.job}.{attempt.step}", FAIL, ABORT)
        assert event.eventType == state
        error = as_sent(event)["run"]["facets"]["errorMessage"]
        assert error["message"].startswith("dagster.StepInterrupted: The run ended before this step did.")


@pytest.mark.parametrize("name", ["canceled", "canceled in a process"])
def test_a_step_that_was_stopped_with_its_run_was_aborted(recorded: Recordings, name: str) -> None:
    history = recorded[name].history
    ends = {event.job.name: event.eventType for event in run_events(history, NAMESPACE)}
    assert ends[history.run.job] == ABORT
    assert ends[f"{history.run.job}.cancel_the_run"] == ABORT


def test_a_run_that_was_canceled_in_the_queue_has_begun_when_it_was_created(recorded: Recordings) -> None:
    history = recorded["canceled in the queue"].history
    start, end = run_events(history, NAMESPACE)
    assert (start.eventType, end.eventType) == (START, ABORT)
    assert timestamp(start) == pytest.approx(history.run.created, abs=1e-5)
    assert timestamp(end) == pytest.approx(history.ended, abs=1e-5)


# Histories made up, for what is rare


def made_up(
    *attempts: Attempt, run_id: str = "0a6b7cb8-9a3f-4f0e-8f4b-3d8a5a1d2c11", **tags: str
) -> RunHistory:
    names = {"partition": "dagster/partition", "first": "dagster/asset_partition_range_start"}
    names["last"] = "dagster/asset_partition_range_end"
    run = Run(run_id, "train", CREATED, tags={names[name]: value for name, value in tags.items()})
    return RunHistory(run, RunStatus.SUCCESS, started=CREATED + 1, ended=CREATED + 9, attempts=attempts)


def written(asset: str, **what: Any) -> Materialisation:
    nothing = dict.fromkeys(
        ("partition", "data_version", "code_version", "rows", "content_sha256", "schema", "column_lineage")
    )
    return Materialisation(
        **{**nothing, "asset": asset, "reads": (), "description": None, "time": CREATED + 2, **what}
    )


def attempt(*materialisations: Materialisation, **what: Any) -> Attempt:
    times = {"number": 1, "started": CREATED + 1, "ended": CREATED + 3, "outcome": Outcome.SUCCESS}
    step = {"step": "features", "op": "features", "materialisations": materialisations}
    return Attempt(**{**step, **times, **what})


def test_a_run_that_waits_is_not_told_of() -> None:
    waiting = RunHistory(Run("0a6b7cb8-9a3f-4f0e-8f4b-3d8a5a1d2c11", "train", CREATED), enqueued=CREATED + 1)
    assert run_events(waiting, NAMESPACE) == []
    started = replace(waiting, started=CREATED + 60)
    assert told(run_events(started, NAMESPACE, before=waiting)) == [("train", START)]


@pytest.mark.parametrize(
    ("tags", "partitions", "expected"),
    [
        pytest.param({"partition": "2013-07-01"}, ["2013-07-01"], ("2013-07-01T00:00:00Z", None), id="a day"),
        pytest.param(
            {"first": "2013-02-27", "last": "2013-02-28"},
            ["2013-02-27", "2013-02-28"],
            ("2013-02-27T00:00:00Z", "2013-03-01T00:00:00Z"),
            id="days",
        ),
        pytest.param(
            {"first": "2013-02-01", "last": "2013-04-01"},
            ["2013-02-01", "2013-03-01", "2013-04-01"],
            ("2013-02-01T00:00:00Z", None),
            id="months",
        ),
        pytest.param(
            {"partition": "2013-07-01-05:00"},
            ["2013-07-01-05:00"],
            ("2013-07-01T05:00:00Z", None),
            id="an hour",
        ),
        pytest.param(
            {"first": "2013-07-01-05:00", "last": "2013-07-01-07:00"},
            ["2013-07-01-05:00", "2013-07-01-06:00", "2013-07-01-07:00"],
            ("2013-07-01T05:00:00Z", "2013-07-01T08:00:00Z"),
            id="hours",
        ),
        pytest.param(
            {"first": "2013-07-01-05:00", "last": "2013-07-01-06:00"},
            [f"2013-07-01-05:{minute}" for minute in ("00", "15", "30", "45")],
            ("2013-07-01T05:00:00Z", None),
            id="quarters of an hour",
        ),
        pytest.param(
            {"partition": "2013-11-03-01:00-0500"},
            ["2013-11-03-01:00-0500"],
            ("2013-11-03T06:00:00Z", None),
            id="the second of two equal hours",
        ),
        pytest.param(
            {"partition": "2013-10-27-02:00+0100"},
            ["2013-10-27-02:00+0100"],
            ("2013-10-27T01:00:00Z", None),
            id="the second of two equal hours in Europe",
        ),
        pytest.param(
            {"first": "2013-11-03-00:00", "last": "2013-11-03-02:00"},
            ["2013-11-03-00:00", "2013-11-03-01:00", "2013-11-03-01:00-0500", "2013-11-03-02:00"],
            None,
            id="hours of which one tells that they are not UTC",
        ),
        pytest.param(
            {"first": "2013-07-01-05:00+0200", "last": "2013-07-01-06:00+0200"},
            ["2013-07-01-05:00+0200", "2013-07-01-06:00+0200"],
            ("2013-07-01T03:00:00Z", "2013-07-01T05:00:00Z"),
            id="hours with an offset each",
        ),
        pytest.param(
            {"partition": "2013-07-01T05:00:00+0200"},
            [None],
            ("2013-07-01T03:00:00Z", None),
            id="a time as ISO has it",
        ),
        pytest.param(
            {"first": "2013-07-07", "last": "2013-07-14"},
            ["2013-07-07", "2013-07-14"],
            ("2013-07-07T00:00:00Z", None),
            id="weeks",
        ),
        pytest.param({"partition": "2013"}, ["2013"], None, id="a number"),
        pytest.param({"partition": "20130701"}, ["20130701"], None, id="digits"),
        pytest.param(
            {"partition": "2013-07-01|2013-07-02"},
            ["2013-07-01|2013-07-02"],
            None,
            id="two dimensions of time",
        ),
        pytest.param({"partition": "2013-07"}, [None], ("2013-07-01T00:00:00Z", None), id="a named month"),
        pytest.param({"partition": "EWR"}, ["EWR"], None, id="an airport"),
        pytest.param(
            {"partition": "2013-07-01|EWR"},
            ["2013-07-01|EWR"],
            ("2013-07-01T00:00:00Z", None),
            id="two dimensions",
        ),
        pytest.param({"first": "2013-07-01", "last": "later"}, [], None, id="half a range"),
        pytest.param({}, ["2013-07-01", "2013-07-02"], None, id="no partition"),
    ],
)
def test_the_nominal_time_is_told_as_far_as_partition_keys_tell_it(
    tags: dict[str, str], partitions: list[str | None], expected: tuple[str, str | None] | None
) -> None:
    history = made_up(attempt(*(written("features", partition=key) for key in partitions)), **tags)
    facets = as_sent(event_of(history, "train.features"))["run"]["facets"]
    if expected is None:
        assert "nominalTime" not in facets
    else:
        assert (
            facets["nominalTime"]["nominalStartTime"],
            facets["nominalTime"].get("nominalEndTime"),
        ) == expected


def test_a_run_id_that_is_no_uuid_becomes_the_trace_id() -> None:
    history = made_up(run_id="nightly-7")
    event = event_of(history, "train")
    assert event.run.runId == str(UUID(int=ids.trace_id("nightly-7")))
    assert as_sent(event)["run"]["facets"]["ledgerline_run"]["dagster_run_id"] == "nightly-7"


def test_rows_are_told_only_if_all_partitions_say_how_many() -> None:
    parts = [written("features", partition="a", rows=2), written("features", partition="b")]
    [output] = as_sent(event_of(made_up(attempt(*parts)), "train.features"))["outputs"]
    assert output["outputFacets"] == {
        "ledgerline_partitions": {"partitions": [{"partition": "a", "rows": 2}, {"partition": "b"}]}
    }


def test_a_partition_written_twice_by_one_step_counts_once() -> None:
    parts = [written("features", partition="a", rows=rows, data_version=f"v{rows}") for rows in (2, 3)]
    [output] = as_sent(event_of(made_up(attempt(*parts)), "train.features"))["outputs"]
    assert output["facets"] == {"version": {"datasetVersion": "v3"}}
    assert output["outputFacets"] == {
        "outputStatistics": {"rowCount": 3},
        "ledgerline_partitions": {"partitions": [{"partition": "a", "data_version": "v3", "rows": 3}]},
    }


def test_partitions_of_different_versions_have_no_version_in_common() -> None:
    parts = [written("features", partition=key, data_version=f"v-{key}") for key in ("a", "b")]
    [output] = as_sent(event_of(made_up(attempt(*parts)), "train.features"))["outputs"]
    assert "version" not in output["facets"]


def test_an_asset_made_from_an_earlier_version_of_itself_was_read() -> None:
    before = Source(None, "v1", "another run", 7)
    part = written("features", data_version="v2", reads=(Read("features", "v1", 7, (before,), Basis.NAMED),))
    event = as_sent(event_of(made_up(attempt(part)), "train.features"))
    assert [dataset["facets"] for dataset in event["inputs"]] == [{"version": {"datasetVersion": "v1"}}]
    assert [dataset["facets"] for dataset in event["outputs"]] == [{"version": {"datasetVersion": "v2"}}]


# Documents


def test_there_is_one_document_for_each_asset_with_all_its_partitions(weather: RunHistory) -> None:
    found = documents(weather, NAMESPACE)
    assert sorted(found) == [
        "forecast.json",
        "hottest.json",
        "readings.json",
        "reports.hottest.json",
        "stations.json",
    ]
    event = event_of(weather, "observe_weather.readings")
    assert json.loads(found["readings.json"]) == json.loads(Serde.to_json(event))
    [output] = json.loads(found["readings.json"])["outputs"]
    partitions = output["outputFacets"]["ledgerline_partitions"]["partitions"]
    assert [part["partition"] for part in partitions] == list(DAYS)
    assert found["readings.json"].startswith(b'{\n  "eventTime"')


def test_a_document_is_about_one_asset_even_if_its_step_wrote_several(weather: RunHistory) -> None:
    found = documents(weather, NAMESPACE, "abc")
    report = json.loads(found["reports.hottest.json"])
    assert [dataset["name"] for dataset in report["inputs"]] == ["hottest"]
    assert [dataset["name"] for dataset in report["outputs"]] == ["reports/hottest"]
    assert report["run"]["facets"]["ledgerline_run"]["mlflow_run_id"] == "abc"


def test_a_document_is_of_the_last_attempt_that_wrote_the_asset() -> None:
    attempts = [
        attempt(written("features", data_version="v1"), outcome=Outcome.RETRY),
        attempt(written("features", data_version="v2"), number=2, ended=CREATED + 4),
        attempt(written("features", data_version="v3"), number=3, ended=None, outcome=Outcome.RUNNING),
    ]
    [document] = documents(made_up(*attempts), NAMESPACE).values()
    event = json.loads(document)
    assert event["eventType"] == "COMPLETE"
    assert event["outputs"][0]["facets"]["version"]["datasetVersion"] == "v2"


def test_documents_of_different_assets_have_different_names_that_are_fit_for_files(tmp_path: Path) -> None:
    keys = ["a/b", "a.b", "a b", "a_b", "a", "../a", "..", "ä/b", "s3://a?b=c%2F", "a\\b", "", "a:b|c*"]
    found = documents(made_up(attempt(*(written(key) for key in keys))), NAMESPACE)
    assert len({name.lower() for name in found}) == len(keys)
    assert {json.loads(document)["outputs"][0]["name"] for document in found.values()} == set(keys)
    assert "a.b.json" in found
    for name, document in found.items():
        (tmp_path / name).write_bytes(document)
    assert {file.name for file in tmp_path.iterdir()} == set(found)


def test_the_partitions_that_a_run_set_out_to_write_tell_its_nominal_time_from_the_start() -> None:
    history = replace(
        made_up(first="2013-11-03-00:00", last="2013-11-03-02:00"),
        planned_partitions=(
            "2013-11-03-00:00",
            "2013-11-03-01:00",
            "2013-11-03-01:00-0500",
            "2013-11-03-02:00",
        ),
    )
    assert all(
        "nominalTime" not in as_sent(event)["run"]["facets"] for event in run_events(history, NAMESPACE)
    )
    in_summer = replace(
        made_up(first="2013-07-01-05:00", last="2013-07-01-06:00"),
        planned_partitions=("2013-07-01-05:00", "2013-07-01-06:00"),
    )
    assert {
        as_sent(event)["run"]["facets"]["nominalTime"]["nominalEndTime"]
        for event in run_events(in_summer, NAMESPACE)
    } == {"2013-07-01T07:00:00Z"}


@pytest.mark.parametrize(("key", "planned"), [("2013-11-03-01:00-0500", ("2013-11-03-01:00-0500",))])
def test_the_key_of_an_hour_that_dagster_names_with_an_offset_is_in_the_log(
    key: str, planned: tuple[str, ...]
) -> None:
    hours = dg.HourlyPartitionsDefinition("2013-01-01-00:00", timezone="America/New_York")

    @dg.asset(partitions_def=hours)
    def features() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([features], instance=instance, partition_key=key)
        history = read_history(instance, result.run_id)
    assert history is not None
    assert history.planned_partitions == planned
    facets = as_sent(event_of(history, history.run.job))["run"]["facets"]
    assert facets["nominalTime"]["nominalStartTime"] == "2013-11-03T06:00:00Z"
