"""Tests polls of the registry: their times, and ticks that cannot read it."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from assets.delay_model import MODEL_NAME
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry_notifications import notify
from ledgerline.dagster.released_models.polls import Seen
from ledgerline.dagster.released_models.production_sensor import SeenProduction
from ledgerline.dagster.released_models.registry_drift_sensor import SeenDrift
from ledgerline.dagster.released_models.staging_sensor import SeenStaging
from ledgerline.registry import moves
from ledgerline.registry.history import PROMOTION, End, Move
from ledgerline.registry.stages import PRODUCTION, STAGING
from tests.pipelines.ticking import (
    REGISTRY_SENSORS,
    REPOSITORY,
    Daemon,
    production_changed,
    staging_changed,
    versions_of,
)

HOST = "127.0.0.1"


@pytest.fixture
def unused_url() -> Iterator[str]:
    """Address of a port without a listener, which is bound so that no other process takes it."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield f"http://{HOST}:{bound.getsockname()[1]}"


def begin(
    daemon: Daemon, alias: str, to: int, *, at: datetime | None = None
) -> tuple[moves.ReconciledModel, int]:
    """Begin a move of another process, up to the move of the alias."""
    model = daemon.stock.registered(MODEL_NAME).reconcile()
    wanted = Move(
        at=at or datetime.now(UTC),
        alias=alias,
        from_version=model.history.version_with_alias(alias),
        to_version=to,
        cause=PROMOTION,
        by="ada",
        request="a request",
    )
    entry = model.journal.append(model.history.head, wanted)
    daemon.set_alias(alias, to)
    return model, entry.number


def test_they_are_on_and_have_descriptions() -> None:
    there = {sensor.name: sensor for sensor in REPOSITORY.sensor_defs}
    for sensor in REGISTRY_SENSORS:
        assert there[sensor.name].default_status is dg.DefaultSensorStatus.RUNNING
        # Less than the daemon's own 5 seconds: it would pass over them every other time.
        assert (sensor.minimum_interval_seconds or 30) < 5
        assert sensor.description


@pytest.mark.parametrize("sensor", REGISTRY_SENSORS, ids=lambda sensor: sensor.name)
def test_a_registry_without_the_model_is_not_an_error(sensor: dg.SensorDefinition, daemon: Daemon) -> None:
    daemon.stock.client.delete_registered_model(MODEL_NAME)
    data = daemon.tick(sensor)
    assert data.skip_message == "The model does not exist yet, or was polled a moment ago."
    assert not data.cursor


@pytest.mark.parametrize("sensor", REGISTRY_SENSORS, ids=lambda sensor: sensor.name)
def test_a_registry_that_cannot_be_reached_fails_the_tick_and_nothing_is_forgotten(
    sensor: dg.SensorDefinition, daemon: Daemon, unused_url: str
) -> None:
    daemon.stock.version(MODEL_NAME)
    for _ in range(2):
        daemon.tick(sensor)
    before = dict(daemon.cursors)
    up, daemon.tracking_uri = daemon.tracking_uri, unused_url
    with pytest.raises(PermanentFailure, match=f"The MLflow server at {unused_url} does not respond"):
        daemon.tick(sensor)
    assert daemon.cursors == before
    daemon.tracking_uri = up
    daemon.tick(sensor)


@pytest.mark.parametrize("sensor", [staging_changed, production_changed], ids=lambda sensor: sensor.name)
def test_the_journal_is_not_read_without_a_move(sensor: dg.SensorDefinition, daemon: Daemon) -> None:
    """Detected by a deleted journal: each read of it fails."""
    daemon.stock.version(MODEL_NAME)
    daemon.tick(sensor)
    client = daemon.stock.client
    experiment = client.get_experiment_by_name(f"{MODEL_NAME} journal")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    assert daemon.tick(sensor).skip_message == "Nothing has changed."
    daemon.set_alias(PRODUCTION, 1)
    with pytest.raises(PermanentFailure, match="The journal of flight_delay is missing"):
        daemon.tick(sensor)


@pytest.mark.parametrize("sensor", [staging_changed, production_changed], ids=lambda sensor: sensor.name)
def test_between_polls_nothing_is_read_until_a_notification(
    sensor: dg.SensorDefinition, daemon: Daemon
) -> None:
    daemon.poll_seconds = 3600
    daemon.stock.version(MODEL_NAME)
    daemon.tick(sensor)
    daemon.set_alias(STAGING, 1)
    daemon.set_alias(PRODUCTION, 1)
    assert "a moment ago" in (daemon.tick(sensor).skip_message or "")
    notify(daemon.instance)
    daemon.tick(sensor)
    written = daemon.stock.history(MODEL_NAME).moves(PRODUCTION)
    assert [move.cause for _, move, _ in written] == ["outside"]
    assert "a moment ago" in (daemon.tick(sensor).skip_message or "")  # each notify-up is followed once


def test_without_a_notification_a_change_is_noticed_when_the_time_has_passed(daemon: Daemon) -> None:
    daemon.poll_seconds = 60
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 1)
    daemon.pass_time(production_changed, 50)
    daemon.tick(production_changed)
    assert daemon.materialised == []
    daemon.pass_time(production_changed, 8)  # the tick nearest to the minute
    daemon.tick(production_changed)
    assert daemon.materialised == [1]


def test_a_clock_that_was_set_back_does_not_stop_polls(daemon: Daemon) -> None:
    daemon.poll_seconds = 60
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.pass_time(production_changed, -86400)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    (event,) = daemon.materialisations
    assert event.metadata["not_before"].value == "unknown"


@pytest.mark.parametrize("sensor", [staging_changed, production_changed], ids=lambda sensor: sensor.name)
def test_a_sensor_waits_during_a_move_and_loses_nothing(sensor: dg.SensorDefinition, daemon: Daemon) -> None:
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(sensor)
    before = dict(daemon.cursors)
    alias = {staging_changed: STAGING, production_changed: PRODUCTION}[sensor]
    model, number = begin(daemon, alias, 2)
    data = daemon.tick(sensor)
    assert (data.skip_message or "").startswith(f"ada is moving {alias} of flight_delay to version 2")
    assert daemon.cursors == before
    model.journal.end(number, End(datetime.now(UTC), moved=True))
    daemon.tick(sensor)
    assert (versions_of(daemon.launched) or daemon.materialised) == [2]


def test_a_move_whose_process_died_is_finished_and_materialised(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    begin(daemon, PRODUCTION, 1, at=datetime.now(UTC) - timedelta(minutes=2))
    daemon.tick(production_changed)
    assert daemon.materialised == [1]


@pytest.mark.parametrize(
    ("state", "cursor"),
    [
        (SeenProduction(1.5, notified_at=0.5, materialised=3, alerted=2), {"shown": 3, "told": 2}),
        (SeenStaging(1.5, notified_at=0.5, released=3, requested=["e"]), {"released": 3, "asked": ["e"]}),
        (
            SeenDrift(1.5, notified_at=0.5, inconsistencies=["a"], reported=[]),
            {"found": ["a"], "reported": []},
        ),
    ],
)
def test_cursors_of_earlier_versions_are_read_and_written(state: Seen, cursor: dict[str, object]) -> None:
    stored = {"looked_at": 1.5, "woken": 0.5, "read_at": 0} | cursor
    assert type(state).from_cursor(json.dumps(stored)) == state
    assert json.loads(state.cursor).items() >= {"looked_at": 1.5, "woken": 0.5}.items()
    assert {key: json.loads(state.cursor)[key] for key in cursor} == cursor
