"""Reads OpenLineage events as they are sent, and makes histories of rare runs."""

import json
from datetime import datetime
from typing import Any

import dagster as dg
from openlineage.client.event_v2 import RunEvent, RunState
from openlineage.client.serde import Serde

from ledgerline.ledger.event_log import read_history
from ledgerline.ledger.history import Attempt, Materialisation, Outcome, Run, RunHistory, RunStatus
from ledgerline.lineage.events import run_events

NAMESPACE = "weather"
CREATED = 1_000_000_000.0  # 2001-09-09T01:46:40Z

START, COMPLETE, FAIL, ABORT = RunState.START, RunState.COMPLETE, RunState.FAIL, RunState.ABORT

STATIONS_FIELDS = [
    {"name": "station", "type": "string", "description": "Its code.", "ordinal_position": 1, "fields": []},
    {"name": "elevation", "type": "double", "ordinal_position": 2, "fields": []},
]
STATIONS_INPUT = {
    "namespace": NAMESPACE,
    "name": "stations",
    "facets": {"version": {"datasetVersion": "stations-1"}, "schema": {"fields": STATIONS_FIELDS}},
    "inputFacets": {},
}


def history_of(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    history = read_history(instance, run_id)
    assert history is not None
    return history


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


def timestamp(event: RunEvent) -> float:
    assert event.eventTime.endswith("Z")
    return datetime.fromisoformat(event.eventTime).timestamp()


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
