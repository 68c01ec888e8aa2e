"""The sensors on the model registry: what each change starts, and that it does so once, whatever breaks."""

import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType

from assets.delay_model import MODEL_NAME
from assets.delay_model_version import FLIGHT_DELAY
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.registry_notifications import notify
from ledgerline.dagster.released_models.production import metadata_of, production_asset
from ledgerline.registry import moves
from ledgerline.registry.history import PROMOTION, Approval, End, Move
from ledgerline.registry.promotion import Mode, Moved
from ledgerline.registry.stages import PRODUCTION, STAGING
from pipelines.definitions import defs
from tests.pipelines.ticking import (
    PRODUCTION_ASSET,
    REGISTRY_SENSORS,
    REPOSITORY,
    Daemon,
    production_changed,
    registry_drift,
    staging_changed,
)
from tests.resources.alert_address import AlertAddress

HOST = "127.0.0.1"


@pytest.fixture
def nobody() -> Iterator[str]:
    """Address of a port that nobody listens on: it is bound, so that nobody else can take it."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield f"http://{HOST}:{bound.getsockname()[1]}"


def versions_asked_for(requests: list[dg.RunRequest]) -> list[int]:
    return [request.run_config["ops"]["production_flight_delay"]["config"]["version"] for request in requests]


def entries_of(requests: list[dg.RunRequest]) -> list[int]:
    """Return the entries of the journal that started these runs, by their keys."""
    return [int((request.run_key or "").split("-")[1]) for request in requests]


def add_days(instance: dg.DagsterInstance, *days: str) -> None:
    for day in days:
        instance.report_runless_asset_event(dg.AssetMaterialization("delay_predictions", partition=day))


def begin(
    daemon: Daemon, alias: str, to: int, *, at: datetime | None = None
) -> tuple[moves.ReconciledModel, int]:
    """Somebody begins a move, as far as that the alias has moved."""
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


# All of them


def test_they_are_on_and_say_what_they_do() -> None:
    there = {sensor.name: sensor for sensor in REPOSITORY.sensor_defs}
    for sensor in REGISTRY_SENSORS:
        assert there[sensor.name].default_status is dg.DefaultSensorStatus.RUNNING
        # Less than the daemon's own 5 seconds: it would pass over them every other time.
        assert (sensor.minimum_interval_seconds or 30) < 5
        assert sensor.description


@pytest.mark.parametrize("sensor", REGISTRY_SENSORS, ids=lambda sensor: sensor.name)
def test_a_registry_without_the_model_is_no_error(sensor: dg.SensorDefinition, daemon: Daemon) -> None:
    daemon.stock.client.delete_registered_model(MODEL_NAME)
    data = daemon.tick(sensor)
    assert data.skip_message == "The model does not exist yet, or was polled a moment ago."
    assert not data.cursor


@pytest.mark.parametrize("sensor", REGISTRY_SENSORS, ids=lambda sensor: sensor.name)
def test_a_registry_that_cannot_be_reached_fails_the_tick_and_nothing_is_forgotten(
    sensor: dg.SensorDefinition, daemon: Daemon, nobody: str
) -> None:
    daemon.stock.version(MODEL_NAME)
    for _ in range(2):
        daemon.tick(sensor)
    before = dict(daemon.cursors)
    up, daemon.tracking_uri = daemon.tracking_uri, nobody
    with pytest.raises(PermanentFailure, match=f"The MLflow server at {nobody} does not answer"):
        daemon.tick(sensor)
    assert daemon.cursors == before
    daemon.tracking_uri = up
    daemon.tick(sensor)


@pytest.mark.parametrize("sensor", [staging_changed, production_changed], ids=lambda sensor: sensor.name)
def test_where_nothing_has_moved_the_journal_is_not_read(sensor: dg.SensorDefinition, daemon: Daemon) -> None:
    """Told by a journal that is not there any more: whoever reads it fails."""
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
def test_between_looks_nothing_is_read_until_a_wake_up(sensor: dg.SensorDefinition, daemon: Daemon) -> None:
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


def test_without_any_wake_up_a_change_is_seen_when_the_time_has_passed(daemon: Daemon) -> None:
    daemon.poll_seconds = 60
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 1)
    daemon.pass_time(production_changed, 50)
    daemon.tick(production_changed)
    assert daemon.shown == []
    daemon.pass_time(production_changed, 8)  # the tick nearest to the minute
    daemon.tick(production_changed)
    assert daemon.shown == [1]


def test_a_clock_that_was_set_back_keeps_nobody_from_looking(daemon: Daemon) -> None:
    daemon.poll_seconds = 60
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.pass_time(production_changed, -86400)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    (shown,) = daemon.materialisations
    assert shown.metadata["not_before"].value == "unknown"


@pytest.mark.parametrize("sensor", [staging_changed, production_changed], ids=lambda sensor: sensor.name)
def test_while_somebody_moves_an_alias_a_sensor_waits_and_loses_nothing(
    sensor: dg.SensorDefinition, daemon: Daemon
) -> None:
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
    assert (versions_asked_for(daemon.launched) or daemon.shown) == [2]


def test_a_move_whose_process_died_is_finished_and_shown(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    begin(daemon, PRODUCTION, 1, at=datetime.now(UTC) - timedelta(minutes=2))
    daemon.tick(production_changed)
    assert daemon.shown == [1]


# A version comes to staging


def test_a_version_in_staging_is_compared_and_promoted_once(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    number = daemon.stock.version(MODEL_NAME)
    daemon.stock.stage(MODEL_NAME, number)
    for _ in range(3):
        daemon.tick(staging_changed)
    (request,) = daemon.launched
    assert request.job_name == "release_flight_delay"
    assert re.fullmatch("flight_delay-1-[0-9a-f]{12}", request.run_key or "")
    assert request.run_config == {
        "ops": {
            "comparison_flight_delay": {"config": {"version": 1}},
            "production_flight_delay": {"config": {"version": 1}},
        }
    }
    assert dg.validate_run_config(defs.resolve_job_def("release_flight_delay"), request.run_config)


def test_a_version_that_somebody_put_there_by_hand_is_compared_as_well(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.set_alias(STAGING, daemon.stock.version(MODEL_NAME))
    daemon.tick(staging_changed)
    assert versions_asked_for(daemon.launched) == [1]


def test_at_the_first_look_the_version_that_is_there_is_compared_and_none_before_it(daemon: Daemon) -> None:
    for _ in range(3):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for _ in range(2):
        daemon.tick(staging_changed)
    assert versions_asked_for(daemon.launched) == [3]


def test_versions_that_came_and_were_replaced_between_looks_are_compared_one_after_the_other(
    daemon: Daemon,
) -> None:
    daemon.tick(staging_changed)
    for _ in range(3):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for expected in ([1], [1, 2], [1, 2, 3]):
        daemon.tick(staging_changed)
        assert versions_asked_for(daemon.launched) == expected
        run_id = daemon.start_launched()
        waiting = daemon.tick(staging_changed).skip_message
        assert versions_asked_for(daemon.launched) == expected
        assert waiting == {
            1: "After the run under way: version 2, 3.",
            2: "After the run under way: version 3.",
        }.get(expected[-1], "Nothing has changed.")
        daemon.end_run(run_id, DagsterEventType.RUN_FAILURE)
    daemon.tick(staging_changed)
    assert len(daemon.launched) == 3


def test_a_comparison_from_the_command_line_is_waited_for_and_not_repeated(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    run_id = daemon.start_run("release_flight_delay")
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    assert daemon.tick(staging_changed).skip_message == "After the run under way: version 1."
    daemon.stock.evaluate(MODEL_NAME, 1)
    daemon.end_run(run_id)
    for _ in range(2):
        daemon.tick(staging_changed)
    assert daemon.launched == []


def test_a_comparison_that_the_command_line_has_just_created_is_waited_for_too(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.instance.add_run(dg.DagsterRun("release_flight_delay"))  # it has not started yet
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    assert daemon.tick(staging_changed).skip_message == "After the run under way: version 1."


def test_a_run_that_still_says_it_goes_on_after_long_holds_no_version_up(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.start_run("release_flight_delay", minutes_ago=16)
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.tick(staging_changed)
    assert versions_asked_for(daemon.launched) == [1]


def test_a_version_that_was_judged_while_it_waited_is_not_compared_again(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    for _ in range(2):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.tick(staging_changed)
    daemon.stock.evaluate(MODEL_NAME, 2, broken=["better"])
    for _ in range(2):
        daemon.tick(staging_changed)
    assert versions_asked_for(daemon.launched) == [1]


@pytest.mark.parametrize("is_first_look", [True, False])
def test_a_version_that_whoever_registered_it_judged_is_not_compared_again(
    is_first_look: bool, daemon: Daemon
) -> None:
    if not is_first_look:
        daemon.tick(staging_changed)
    number = daemon.stock.version(MODEL_NAME)
    daemon.stock.stage(MODEL_NAME, number)
    daemon.stock.evaluate(MODEL_NAME, number)
    for _ in range(2):
        daemon.tick(staging_changed)
    assert daemon.launched == []


def test_a_version_that_comes_back_to_staging_is_compared_again(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.stock.stage(MODEL_NAME, 1)
    daemon.tick(staging_changed)
    daemon.stock.evaluate(MODEL_NAME, 1, broken=["better"])
    daemon.stock.stage(MODEL_NAME, 2)
    daemon.tick(staging_changed)
    daemon.stock.stage(MODEL_NAME, 1)
    daemon.tick(staging_changed)
    assert versions_asked_for(daemon.launched) == [1, 2, 1]
    assert len({request.run_key for request in daemon.launched}) == 3


def test_a_version_that_came_went_and_came_back_between_looks_is_compared_once(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    for number in (1, 2, 1):
        daemon.stock.stage(MODEL_NAME, number)
    for _ in range(3):
        daemon.tick(staging_changed)
    assert sorted(versions_asked_for(daemon.launched)) == [1, 2]


def test_a_version_that_is_in_production_already_is_not_compared_with_itself(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.stock.version(MODEL_NAME)
    daemon.set_alias(STAGING, 1)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(staging_changed)
    assert daemon.launched == []


def test_a_daemon_that_is_killed_before_it_keeps_the_cursor_asks_with_the_same_keys(daemon: Daemon) -> None:
    daemon.mode = Mode.approved
    daemon.tick(staging_changed)
    for _ in range(2):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.stock.evaluate(MODEL_NAME, 1)
    daemon.stock.registered(MODEL_NAME).approve(1, "ada", "looks good")
    killed, again = (daemon.tick(staging_changed, dies=dies).run_requests or [] for dies in (True, False))
    keys = [request.run_key for request in killed]
    assert keys == [request.run_key for request in again]
    assert {request.job_name for request in killed} == {"promote_flight_delay", "release_flight_delay"}
    assert not daemon.tick(staging_changed).run_requests


# A person approves


@pytest.fixture
def waiting(daemon: Daemon) -> Daemon:
    """Version 1 is in production; version 2 keeps every rule, and waits for a person."""
    daemon.mode = Mode.approved
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.stock.serve(MODEL_NAME, 1)
    daemon.stock.stage(MODEL_NAME, 2)
    daemon.stock.evaluate(MODEL_NAME, 2, against=1)
    for _ in range(2):
        assert not daemon.tick(staging_changed).run_requests
    return daemon


def tag(daemon: Daemon, version: int, person: str = "grace") -> None:
    """Approve as somebody does in MLflow's UI."""
    daemon.stock.client.set_model_version_tag(MODEL_NAME, str(version), "approved_by", person)


def test_what_was_approved_is_promoted_once(waiting: Daemon) -> None:
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "looks good")
    for _ in range(3):
        waiting.tick(staging_changed)
    (request,) = waiting.launched
    assert request.job_name == "promote_flight_delay"
    config = {"version": 2, "mode": "approved", "approver": "ada", "reason": "looks good"}
    assert request.run_config == {"ops": {"production_flight_delay": {"config": config}}}
    assert dg.validate_run_config(defs.resolve_job_def("promote_flight_delay"), request.run_config)
    waiting.stock.promote(MODEL_NAME, 2, mode=Mode.approved)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert len(waiting.launched) == 1


def test_a_tag_set_by_hand_is_an_approval(waiting: Daemon) -> None:
    tag(waiting, 2)
    for _ in range(3):
        waiting.tick(staging_changed)
    assert versions_asked_for(waiting.launched) == [2]
    assert waiting.launched[0].run_config["ops"]["production_flight_delay"]["config"]["approver"] == "grace"
    waiting.stock.promote(MODEL_NAME, 2, mode=Mode.approved)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert len(waiting.launched) == 1


def test_the_run_that_is_asked_for_promotes_and_shows_that_itself(waiting: Daemon) -> None:
    waiting.tick(production_changed)
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "looks good")
    waiting.tick(staging_changed)
    run = dg.materialize(
        [production_asset(FLIGHT_DELAY)],
        instance=waiting.instance,
        resources={"registry": ModelRegistryResource(tracking_uri=waiting.stock.uri)},
        run_config=waiting.launched[0].run_config,
    )
    assert run.success
    assert waiting.stock.aliases(MODEL_NAME) == {PRODUCTION: 2}
    for sensor in [*REGISTRY_SENSORS, *REGISTRY_SENSORS]:
        waiting.tick(sensor)
    assert waiting.shown == [1, 2]
    assert waiting.materialisations[-1].metadata["by"].value == "ada"
    assert len(waiting.launched) == 1


@pytest.mark.parametrize("order", ["tag first", "tag last", "between looks"])
def test_a_tag_and_an_approval_are_one_run(order: str, waiting: Daemon) -> None:
    def approve() -> None:
        waiting.stock.registered(MODEL_NAME).approve(2, "ada", "looks good")

    acts = [lambda: tag(waiting, 2), approve] if order != "tag last" else [approve, lambda: tag(waiting, 2)]
    for act in acts:
        act()
        if order != "between looks":
            waiting.tick(staging_changed)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert versions_asked_for(waiting.launched) == [2]


def test_a_tag_approves_nothing_where_nobody_has_to(waiting: Daemon) -> None:
    waiting.mode = Mode.automatic
    waiting.tick(staging_changed)
    waiting.pass_time(staging_changed, 61)
    waiting.tick(staging_changed)
    tag(waiting, 2)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert waiting.launched == []


def test_an_approval_while_no_daemon_ran_is_carried_out_at_the_first_look(waiting: Daemon) -> None:
    waiting.forget(staging_changed)
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    waiting.tick(staging_changed)
    assert versions_asked_for(waiting.launched) == [2]


def test_after_a_rollback_a_lost_cursor_promotes_nothing_again(waiting: Daemon) -> None:
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    waiting.stock.promote(MODEL_NAME, 2, mode=Mode.approved)
    waiting.stock.rollback(MODEL_NAME)
    waiting.forget(staging_changed)
    for _ in range(3):
        waiting.tick(staging_changed)
    assert waiting.launched == []


def test_after_a_rollback_a_new_approval_is_another_run(waiting: Daemon) -> None:
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    waiting.tick(staging_changed)
    waiting.stock.promote(MODEL_NAME, 2, mode=Mode.approved)
    waiting.stock.rollback(MODEL_NAME)
    waiting.tick(staging_changed)
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    for _ in range(2):
        waiting.tick(staging_changed)
    assert versions_asked_for(waiting.launched) == [2, 2]


def test_an_approval_of_an_earlier_judgement_promotes_nothing(waiting: Daemon) -> None:
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    waiting.stock.evaluate(MODEL_NAME, 2, against=1)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert waiting.launched == []


def test_an_approval_that_was_written_down_by_a_process_that_died_is_found_within_a_minute(
    waiting: Daemon,
) -> None:
    evaluation = waiting.stock.history(MODEL_NAME).evaluation(2)
    assert evaluation is not None
    approval = Approval(datetime.now(UTC), 2, evaluation.evidence, "ada")
    waiting.stock.journal(MODEL_NAME).add(approval)  # and neither tag is set
    waiting.tick(staging_changed)
    assert waiting.launched == []
    waiting.pass_time(staging_changed, 61)
    waiting.tick(staging_changed)
    assert versions_asked_for(waiting.launched) == [2]


def test_a_version_that_waited_and_was_deleted_is_no_error(waiting: Daemon) -> None:
    waiting.stock.client.delete_model_version(MODEL_NAME, "2")
    for _ in range(2):
        waiting.tick(staging_changed)
    assert waiting.launched == []


# Production moves


def test_a_change_outside_is_shown_scored_and_told(daemon: Daemon, address: AlertAddress) -> None:
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

    assert daemon.shown == [1, 2]
    shown = daemon.materialisations[-1]
    assert shown.description == "changed outside, no evidence"
    text: dict[str, Any] = {name: value.value for name, value in shown.metadata.items()}
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


def test_the_first_look_shows_the_past_and_tells_nobody(daemon: Daemon, address: AlertAddress) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    for _ in range(2):
        daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for _ in range(3):
        daemon.tick(production_changed)
    assert daemon.shown == [1, 2]
    assert daemon.launched == []
    assert address.messages == []


def test_a_lost_cursor_shows_nothing_twice(daemon: Daemon) -> None:
    for _ in range(3):
        daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
        daemon.tick(production_changed)
    daemon.forget(production_changed)
    daemon.tick(production_changed)
    assert daemon.shown == [1, 2, 3]


def test_there_and_back_between_looks_is_two_moves_and_one_scoring(
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
    assert daemon.shown == [1, 2, 1]
    assert [message["cause"] for message in address.messages] == ["promotion", "rollback"]
    assert len(daemon.launched) == 1


def test_what_moved_in_both_ways_outside_between_looks_left_no_trace(daemon: Daemon) -> None:
    """MLflow keeps no history of aliases: this is what it cannot tell."""
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.stock.serve(MODEL_NAME, 1)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 2)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    assert daemon.shown == [1]


def test_an_alias_that_somebody_took_away_is_shown_and_told(daemon: Daemon, address: AlertAddress) -> None:
    daemon.alert_url = address.url
    daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.tick(production_changed)
    daemon.stock.client.delete_registered_model_alias(MODEL_NAME, PRODUCTION)
    daemon.tick(production_changed)
    assert daemon.materialisations[-1].metadata["from_version"].value == 1
    assert "version 1 -> no version" in address.messages[0]["text"]


def test_a_move_by_a_run_waits_for_the_run_and_is_shown_by_it_alone(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    during: list[str | None] = []

    @dg.asset(key=PRODUCTION_ASSET)
    def moving(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        number = daemon.move_production(1, context.run.run_id)
        daemon.set_alias(PRODUCTION, 2)  # and somebody else, who comes after it
        during.extend(daemon.tick(production_changed).skip_message for _ in range(2))
        assert daemon.shown == []
        entry, move, end = daemon.stock.history(MODEL_NAME).moves(PRODUCTION)[0]
        assert entry.number == number
        return dg.MaterializeResult(metadata=metadata_of(Moved(1, None, number, move, end.at)))

    dg.materialize([moving], instance=daemon.instance)
    assert during == ["A run under way is about to show its move."] * 2
    assert daemon.launched == []
    assert address.messages == []
    for _ in range(2):
        daemon.tick(production_changed)
    assert daemon.shown == [1, 2]
    assert [message["to_version"] for message in address.messages] == [1, 2]
    assert entries_of(daemon.launched) == [2]


def test_a_run_that_has_shown_its_move_is_not_waited_for(daemon: Daemon, address: AlertAddress) -> None:
    daemon.alert_url = address.url
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    number = daemon.move_production(1, daemon.start_run("promote_flight_delay"))
    _, move, end = daemon.stock.history(MODEL_NAME).moves(PRODUCTION)[0]
    daemon.instance.report_runless_asset_event(
        dg.AssetMaterialization(PRODUCTION_ASSET, metadata=metadata_of(Moved(1, None, number, move, end.at)))
    )
    daemon.set_alias(PRODUCTION, 2)
    daemon.tick(production_changed)
    assert daemon.shown == [1, 2]
    assert [message["to_version"] for message in address.messages] == [1, 2]


def test_days_are_scored_again_once_when_the_last_of_several_moves_is_there(daemon: Daemon) -> None:
    add_days(daemon.instance, "2013-07-04")
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 2)
    run_id = daemon.start_run("promote_flight_delay")
    last = daemon.move_production(1, run_id)
    daemon.tick(production_changed)
    assert daemon.shown == [2]
    assert daemon.launched == []
    daemon.end_run(run_id, DagsterEventType.RUN_FAILURE)
    daemon.tick(production_changed)
    assert daemon.shown == [2, 1]
    assert entries_of(daemon.launched) == [last]


@pytest.mark.parametrize(
    "kind", [DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED, DagsterEventType.RUN_SUCCESS]
)
def test_a_move_that_a_run_did_not_live_to_show_is_shown(kind: DagsterEventType, daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    run_id = daemon.start_run("promote_flight_delay")
    daemon.move_production(1, run_id)
    daemon.tick(production_changed)
    assert daemon.shown == []
    daemon.end_run(run_id, kind)
    for _ in range(2):
        daemon.tick(production_changed)
    assert daemon.shown == [1]
    assert daemon.materialisations[0].description == "promotion by ada"


def test_a_run_of_another_instance_is_not_waited_for(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.move_production(1, "11111111-1111-1111-1111-111111111111")
    daemon.tick(production_changed)
    assert daemon.shown == [1]


def test_a_run_that_still_says_it_goes_on_after_minutes_is_not_waited_for(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
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
    assert daemon.shown == [1]


def test_a_daemon_that_is_killed_before_it_keeps_the_cursor_shows_nothing_twice(daemon: Daemon) -> None:
    add_days(daemon.instance, "2013-07-04")
    for _ in range(3):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    for number in (1, 2):
        daemon.stock.serve(MODEL_NAME, number)
    daemon.set_alias(PRODUCTION, 3)
    keys = [
        [request.run_key for request in daemon.tick(production_changed, dies=dies).run_requests or []]
        for dies in (True, True, False)
    ]
    assert keys[0] == keys[1] == keys[2] != []
    assert daemon.shown == [1, 2, 3]
    assert not daemon.tick(production_changed).run_requests


def test_an_alert_address_that_is_down_is_told_later_of_everything_in_order(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    add_days(daemon.instance, "2013-07-04")
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    address.stop()
    for number, keys in ((1, 1), (2, 2)):
        daemon.set_alias(PRODUCTION, number)
        data = daemon.tick(production_changed)
        assert daemon.shown == list(range(1, number + 1))
        assert len(daemon.launched) == keys
        assert data.run_requests
        data = daemon.tick(production_changed)
        assert data.skip_message == "The alert address cannot be reached: ConnectionError."
    address.start()
    for _ in range(2):
        daemon.tick(production_changed)
    assert [message["to_version"] for message in address.messages] == [1, 2]
    assert daemon.shown == [1, 2]
    assert len(daemon.launched) == 2


def test_of_several_moves_those_that_were_told_are_not_told_again(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    address.status = 503
    daemon.set_alias(PRODUCTION, 2)
    assert daemon.tick(production_changed).skip_message == (
        "The alert address does not take messages: it answers 503."
    )
    address.status = 200
    for _ in range(2):
        daemon.tick(production_changed)
    assert [message["to_version"] for message in address.messages] == [1, 2]


def test_who_is_told_twice_because_a_daemon_was_killed_is_told_of_the_same_entry(
    daemon: Daemon, address: AlertAddress
) -> None:
    daemon.alert_url = address.url
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 1)
    for dies in (True, False, False):
        daemon.tick(production_changed, dies=dies)
    assert [message["journal_entry"] for message in address.messages] == [1, 1]
    assert daemon.shown == [1]


def test_without_scored_days_nothing_is_scored_again(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(production_changed)
    assert daemon.shown == [1]
    assert daemon.launched == []


# The registry contradicts its journal


def test_the_check_is_evaluated_when_its_verdict_changes(daemon: Daemon) -> None:
    daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for _ in range(4):
        daemon.tick(registry_drift)
    fine = (True, "Aliases and tags are as the journal says.")
    assert daemon.verdicts == [fine]

    daemon.stock.client.set_model_version_tag(MODEL_NAME, "1", "stage", "archived")
    daemon.tick(registry_drift)
    daemon.pass_time(registry_drift, 31)  # tags do not show in a look
    daemon.tick(registry_drift)
    assert daemon.verdicts == [fine]
    for _ in range(3):
        daemon.tick(registry_drift)
    wrong = (False, "version 1 has the tag stage=archived, the journal says production")
    assert daemon.verdicts == [fine, wrong]

    daemon.stock.client.set_model_version_tag(MODEL_NAME, "1", "stage", "production")
    notify(daemon.instance)  # as MLflow does after a tag was changed, where it has a webhook
    for _ in range(4):
        daemon.tick(registry_drift)
    assert daemon.verdicts == [fine, wrong, fine]


def test_what_waits_is_done_at_the_next_tick_however_seldom_it_looks(daemon: Daemon) -> None:
    daemon.poll_seconds = 3600
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    daemon.tick(production_changed)
    daemon.tick(staging_changed)
    run_id = daemon.start_run("promote_flight_delay")
    daemon.move_production(1, run_id)
    for number in (1, 2):
        daemon.stock.stage(MODEL_NAME, number)
    notify(daemon.instance)
    daemon.tick(production_changed)
    daemon.tick(staging_changed)
    assert (daemon.shown, versions_asked_for(daemon.launched)) == ([], [2])
    daemon.end_run(run_id, DagsterEventType.RUN_FAILURE)
    daemon.tick(production_changed)
    assert daemon.shown == [1]


def test_a_verdict_is_confirmed_at_the_next_tick_however_seldom_it_looks(daemon: Daemon) -> None:
    daemon.poll_seconds = 3600
    daemon.stock.version(MODEL_NAME)
    for _ in range(2):
        daemon.tick(registry_drift)
    assert [passed for passed, _ in daemon.verdicts] == [True]
    assert "a moment ago" in (daemon.tick(registry_drift).skip_message or "")


def test_a_change_outside_that_is_noticed_meanwhile_is_no_contradiction(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    for sensor in [*REGISTRY_SENSORS, *REGISTRY_SENSORS]:
        daemon.tick(sensor)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(registry_drift)
    for sensor in [*REGISTRY_SENSORS, *REGISTRY_SENSORS]:
        daemon.tick(sensor)
    assert [passed for passed, _ in daemon.verdicts] == [True]


def test_a_daemon_that_is_killed_before_it_keeps_the_cursor_reports_the_same(daemon: Daemon) -> None:
    daemon.stock.version(MODEL_NAME)
    daemon.tick(registry_drift)
    for dies in (True, False, False):
        daemon.tick(registry_drift, dies=dies)
    assert [passed for passed, _ in daemon.verdicts] == [True, True]
