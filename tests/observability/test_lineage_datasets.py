"""Tests the datasets of OpenLineage events: inputs, outputs, versions, rows, partitions, checks."""

import dagster as dg
import pytest

from ledgerline.ledger import ids
from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.reads import Basis, Read, Source
from ledgerline.lineage.events import PRODUCER
from ledgerline.testing.recordings import Recordings
from tests.observability.lineage_events import (
    NAMESPACE,
    STATIONS_INPUT,
    as_sent,
    attempt,
    event_of,
    made_up,
    timestamp,
    written,
)

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


def test_a_step_has_its_inputs_and_outputs(weather: RunHistory) -> None:
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


def test_the_result_of_a_check_is_a_facet_of_the_asset_that_it_read(weather: RunHistory) -> None:
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


def test_an_observed_asset_is_an_input_at_its_version(recorded: Recordings) -> None:
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


def test_the_number_of_rows_is_known_only_if_every_partition_has_one() -> None:
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
