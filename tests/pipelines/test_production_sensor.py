"""Tests the sensor of production: materialisations, runs and alerts that follow a move, each once."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType

from assets.delay_model import MODEL_NAME
from ledgerline.dagster.released_models.production import metadata_of
from ledgerline.registry.history import PROMOTION, End, Move
from ledgerline.registry.promotion import Moved
from ledgerline.registry.stages import PRODUCTION
from tests.pipelines.ticking import (
    PRODUCTION_ASSET,
    Daemon,
    production_changed,
)
from tests.resources.alert_address import AlertAddress


def entries_of(requests: list[dg.RunRequest]) -> list[int]:
    """Return the entries of the journal that started these runs, by their keys."""
    return [int((request.run_key or "").split("-")[1]) for request in requests]


def add_days(instance: dg.DagsterInstance, *days: str) -> None:
    for day in days:
        instance.report_runless_asset_event(dg.AssetMaterialization("delay_predictions", partition=day))


def register(daemon: Daemon, count: int) -> None:
    """Register versions, none of which has an alias, and evaluate the sensor."""
    for _ in range(count):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)


def test_a_change_outside_is_materialised_scored_and_alerted(daemon: Daemon, address: AlertAddress) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04", "2013-07-06", "2013-07-05")
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.stock.serve(MODEL_NAME, 1)
    daemon.tick(production_changed)
    before = time.time()
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 2)
    for _ in range(3):
        daemon.tick(production_changed)

    assert daemon.materialised == [1, 2]
    materialised = daemon.materialisations[-1]
    assert materialised.description == "changed outside, no evidence"
    text: dict[str, Any] = {name: value.value for name, value in materialised.metadata.items()}
    assert before <= text.pop("not_before") <= text.pop("moved_at") <= time.time()
    assert text == {
        "version": 2,
        "from_version": 1,
        "cause": "outside",
        "by": "unknown",
        "reason": "changed outside, no evidence",
        "evidence_sha256": "none",
        "journal_entry": 3,
    }
    assert dg.DataVersion("2") == _data_version(daemon.instance)
    (request,) = daemon.launched
    assert request.partition_key == "2013-07-06"
    assert entries_of(daemon.launched) == [3]
    (message,) = address.messages
    assert (message["from_version"], message["to_version"], message["journal_entry"]) == (1, 2, 3)


def _data_version(instance: dg.DagsterInstance) -> dg.DataVersion | None:
    from dagster._core.definitions.data_version import extract_data_version_from_entry

    record = instance.get_latest_materialization_event(PRODUCTION_ASSET)
    assert record is not None
    return extract_data_version_from_entry(record)


def test_the_first_poll_materialises_the_past_and_sends_no_alert(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    for _ in range(2):
        daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for _ in range(3):
        daemon.tick(production_changed)
    assert daemon.materialised == [1, 2]
    assert daemon.launched == []
    assert address.messages == []


def test_a_lost_cursor_materialises_nothing_twice(daemon: Daemon) -> None:
    for _ in range(3):
        daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
        daemon.tick(production_changed)
    daemon.forget(production_changed)
    daemon.tick(production_changed)
    assert daemon.materialised == [1, 2, 3]


def test_there_and_back_between_polls_is_two_moves_and_one_scoring(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.stock.serve(MODEL_NAME, 1)
    daemon.tick(production_changed)
    daemon.stock.serve(MODEL_NAME, 2)
    daemon.stock.rollback(MODEL_NAME)
    assert daemon.stock.aliases(MODEL_NAME)[PRODUCTION] == 1
    for _ in range(2):
        daemon.tick(production_changed)
    assert daemon.materialised == [1, 2, 1]
    assert [message["cause"] for message in address.messages] == ["promotion", "rollback"]
    assert len(daemon.launched) == 1


def test_external_moves_there_and_back_between_polls_are_not_recorded(daemon: Daemon) -> None:
    """MLflow keeps no history of aliases: this move is not in it."""
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.stock.serve(MODEL_NAME, 1)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 2)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    assert daemon.materialised == [1]


def test_a_removed_alias_is_materialised_and_alerted(daemon: Daemon, address: AlertAddress) -> None:
    daemon.alert_url = address.url
    daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.tick(production_changed)
    daemon.stock.client.delete_registered_model_alias(MODEL_NAME, PRODUCTION)
    daemon.tick(production_changed)
    assert daemon.materialisations[-1].metadata["from_version"].value == 1
    assert "version 1 -> no version" in address.messages[0]["text"]


def test_a_move_by_a_run_waits_for_the_run_and_is_materialised_by_it_alone(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    register(daemon, 2)
    during: list[str | None] = []

    @dg.asset(key=PRODUCTION_ASSET)
    def moving(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        number = daemon.move_production(1, context.run.run_id)
        daemon.set_alias(PRODUCTION, 2)  # and another process, after it
        during.extend(daemon.tick(production_changed).skip_message for _ in range(2))
        assert daemon.materialised == []
        entry, move, end = daemon.stock.history(MODEL_NAME).moves(PRODUCTION)[0]
        assert entry.number == number
        return dg.MaterializeResult(metadata=metadata_of(Moved(1, None, number, move, end.at)))

    dg.materialize([moving], instance=daemon.instance)
    assert during == ["A run in progress is about to materialise its move."] * 2
    assert daemon.launched == []
    assert address.messages == []
    for _ in range(2):
        daemon.tick(production_changed)
    assert daemon.materialised == [1, 2]
    assert [message["to_version"] for message in address.messages] == [1, 2]
    assert entries_of(daemon.launched) == [2]


def test_a_run_that_has_materialised_its_move_is_not_waited_for(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    register(daemon, 2)
    number = daemon.move_production(1, daemon.start_run("promote_flight_delay"))
    _, move, end = daemon.stock.history(MODEL_NAME).moves(PRODUCTION)[0]
    daemon.instance.report_runless_asset_event(
        dg.AssetMaterialization(PRODUCTION_ASSET, metadata=metadata_of(Moved(1, None, number, move, end.at)))
    )
    daemon.set_alias(PRODUCTION, 2)
    daemon.tick(production_changed)
    assert daemon.materialised == [1, 2]
    assert [message["to_version"] for message in address.messages] == [1, 2]


def test_days_are_scored_again_once_when_the_last_of_several_moves_is_there(daemon: Daemon) -> None:
    add_days(daemon.instance, "2013-07-04")
    register(daemon, 2)
    daemon.set_alias(PRODUCTION, 2)
    run_id = daemon.start_run("promote_flight_delay")
    last = daemon.move_production(1, run_id)
    daemon.tick(production_changed)
    assert daemon.materialised == [2]
    assert daemon.launched == []
    daemon.end_run(run_id, DagsterEventType.RUN_FAILURE)
    daemon.tick(production_changed)
    assert daemon.materialised == [2, 1]
    assert entries_of(daemon.launched) == [last]


@pytest.mark.parametrize(
    "kind", [DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED, DagsterEventType.RUN_SUCCESS]
)
def test_a_move_that_its_run_has_not_materialised_is_materialised(
    kind: DagsterEventType, daemon: Daemon
) -> None:
    register(daemon, 1)
    run_id = daemon.start_run("promote_flight_delay")
    daemon.move_production(1, run_id)
    daemon.tick(production_changed)
    assert daemon.materialised == []
    daemon.end_run(run_id, kind)
    for _ in range(2):
        daemon.tick(production_changed)
    assert daemon.materialised == [1]
    assert daemon.materialisations[0].description == "promotion by ada"


def test_a_run_of_another_instance_is_not_waited_for(daemon: Daemon) -> None:
    register(daemon, 1)
    daemon.move_production(1, "11111111-1111-1111-1111-111111111111")
    daemon.tick(production_changed)
    assert daemon.materialised == [1]


def test_a_run_that_is_still_in_progress_after_minutes_is_not_waited_for(daemon: Daemon) -> None:
    register(daemon, 1)
    run_id = daemon.start_run("promote_flight_delay")
    model = daemon.stock.registered(MODEL_NAME).reconcile()
    at = datetime.now(UTC) - timedelta(minutes=11)
    entry = model.journal.append(
        0,
        Move(
            at=at, alias=PRODUCTION, from_version=None, to_version=1, cause=PROMOTION, by="a", run_id=run_id
        ),
    )
    daemon.set_alias(PRODUCTION, 1)
    model.journal.end(entry.number, End(at, moved=True))
    daemon.tick(production_changed)
    assert daemon.materialised == [1]


def test_a_daemon_killed_before_it_stores_the_cursor_materialises_nothing_twice(daemon: Daemon) -> None:
    add_days(daemon.instance, "2013-07-04")
    register(daemon, 3)
    for number in (1, 2):
        daemon.stock.serve(MODEL_NAME, number)
    daemon.set_alias(PRODUCTION, 3)
    keys = [
        [request.run_key for request in daemon.tick(production_changed, dies=dies).run_requests or []]
        for dies in (True, True, False)
    ]
    assert keys[0] == keys[1] == keys[2] != []
    assert daemon.materialised == [1, 2, 3]
    assert not daemon.tick(production_changed).run_requests


def test_an_alert_address_that_is_down_gets_all_alerts_later_in_order(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    register(daemon, 2)
    address.stop()
    for number, keys in ((1, 1), (2, 2)):
        daemon.set_alias(PRODUCTION, number)
        data = daemon.tick(production_changed)
        assert daemon.materialised == list(range(1, number + 1))
        assert len(daemon.launched) == keys
        assert data.run_requests
        data = daemon.tick(production_changed)
        assert (
            data.skip_message
            == "The alert URL cannot be reached: ConnectionError. Check LEDGERLINE_ALERT_URL."
        )
    address.start()
    for _ in range(2):
        daemon.tick(production_changed)
    assert [message["to_version"] for message in address.messages] == [1, 2]
    assert daemon.materialised == [1, 2]
    assert len(daemon.launched) == 2


def test_moves_that_were_alerted_are_not_sent_again(daemon: Daemon, address: AlertAddress) -> None:
    daemon.alert_url = address.url
    register(daemon, 2)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    address.status = 503
    daemon.set_alias(PRODUCTION, 2)
    assert daemon.tick(production_changed).skip_message == (
        "The alert URL does not accept the message: it responds with status 503. Check LEDGERLINE_ALERT_URL."
    )
    address.status = 200
    for _ in range(2):
        daemon.tick(production_changed)
    assert [message["to_version"] for message in address.messages] == [1, 2]


def test_an_alert_sent_twice_by_a_killed_daemon_names_the_same_entry(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    register(daemon, 1)
    daemon.set_alias(PRODUCTION, 1)
    for dies in (True, False, False):
        daemon.tick(production_changed, dies=dies)
    assert [message["journal_entry"] for message in address.messages] == [1, 1]
    assert daemon.materialised == [1]


def test_without_scored_days_nothing_is_scored_again(daemon: Daemon) -> None:
    register(daemon, 1)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    assert daemon.materialised == [1]
    assert daemon.launched == []
