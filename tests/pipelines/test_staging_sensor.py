"""Tests the sensor of versions in staging: the comparisons and promotions that it starts, each once."""

import re
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster import DagsterEventType

from assets.delay_model import MODEL_NAME
from assets.delay_model_version import FLIGHT_DELAY
from ledgerline.dagster.registry import ModelRegistryResource
from ledgerline.dagster.released_models.production import production_asset
from ledgerline.registry.history import Approval
from ledgerline.registry.promotion import Mode
from ledgerline.registry.stages import PRODUCTION, STAGING
from pipelines.definitions import defs
from tests.pipelines.ticking import (
    REGISTRY_SENSORS,
    Daemon,
    production_changed,
    staging_changed,
    versions_of,
)

# A version is set to staging


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


def test_a_version_set_to_staging_by_hand_is_compared_as_well(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.set_alias(STAGING, daemon.stock.version(MODEL_NAME))
    daemon.tick(staging_changed)
    assert versions_of(daemon.launched) == [1]


def test_the_first_poll_compares_the_version_in_staging_and_no_earlier_one(daemon: Daemon) -> None:
    for _ in range(3):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for _ in range(2):
        daemon.tick(staging_changed)
    assert versions_of(daemon.launched) == [3]


def test_versions_that_were_replaced_between_polls_are_compared_one_after_the_other(
    daemon: Daemon,
) -> None:
    daemon.tick(staging_changed)
    for _ in range(3):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for expected in ([1], [1, 2], [1, 2, 3]):
        daemon.tick(staging_changed)
        assert versions_of(daemon.launched) == expected
        run_id = daemon.start_launched()
        waiting = daemon.tick(staging_changed).skip_message
        assert versions_of(daemon.launched) == expected
        assert waiting == {
            1: "Versions to release after the run in progress: 2, 3.",
            2: "Versions to release after the run in progress: 3.",
        }.get(expected[-1], "Nothing has changed.")
        daemon.end_run(run_id, DagsterEventType.RUN_FAILURE)
    daemon.tick(staging_changed)
    assert len(daemon.launched) == 3


def test_a_comparison_from_the_command_line_is_waited_for_and_not_repeated(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    run_id = daemon.start_run("release_flight_delay")
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    assert daemon.tick(staging_changed).skip_message == "Versions to release after the run in progress: 1."
    daemon.stock.evaluate(MODEL_NAME, 1)
    daemon.end_run(run_id)
    for _ in range(2):
        daemon.tick(staging_changed)
    assert daemon.launched == []


def test_a_comparison_that_the_command_line_has_just_created_is_waited_for_too(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.instance.add_run(dg.DagsterRun("release_flight_delay"))  # it has not started yet
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    assert daemon.tick(staging_changed).skip_message == "Versions to release after the run in progress: 1."


def test_a_run_that_is_still_in_progress_after_long_delays_no_version(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.start_run("release_flight_delay", minutes_ago=16)
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.tick(staging_changed)
    assert versions_of(daemon.launched) == [1]


def test_a_version_that_was_evaluated_while_it_waited_is_not_compared_again(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    for _ in range(2):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    daemon.tick(staging_changed)
    daemon.stock.evaluate(MODEL_NAME, 2, broken=["better"])
    for _ in range(2):
        daemon.tick(staging_changed)
    assert versions_of(daemon.launched) == [1]


@pytest.mark.parametrize("is_first_poll", [True, False])
def test_a_version_that_was_registered_with_an_evaluation_is_not_compared_again(
    is_first_poll: bool, daemon: Daemon
) -> None:
    if not is_first_poll:
        daemon.tick(staging_changed)
    number = daemon.stock.version(MODEL_NAME)
    daemon.stock.stage(MODEL_NAME, number)
    daemon.stock.evaluate(MODEL_NAME, number)
    for _ in range(2):
        daemon.tick(staging_changed)
    assert daemon.launched == []


def test_a_version_that_returns_to_staging_is_compared_again(daemon: Daemon) -> None:
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
    assert versions_of(daemon.launched) == [1, 2, 1]
    assert len({request.run_key for request in daemon.launched}) == 3


def test_a_version_that_returned_to_staging_between_polls_is_compared_once(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    for _ in range(2):
        daemon.stock.version(MODEL_NAME)
    for number in (1, 2, 1):
        daemon.stock.stage(MODEL_NAME, number)
    for _ in range(3):
        daemon.tick(staging_changed)
    assert sorted(versions_of(daemon.launched)) == [1, 2]


def test_a_version_that_is_in_production_already_is_not_compared_with_itself(daemon: Daemon) -> None:
    daemon.tick(staging_changed)
    daemon.stock.version(MODEL_NAME)
    daemon.set_alias(STAGING, 1)
    daemon.set_alias(PRODUCTION, 1)
    daemon.tick(staging_changed)
    assert daemon.launched == []


def test_a_daemon_killed_before_it_stores_the_cursor_requests_the_same_keys(daemon: Daemon) -> None:
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
    """Approve as a person does in MLflow's UI."""
    daemon.stock.client.set_model_version_tag(MODEL_NAME, str(version), "approved_by", person)


def test_an_approved_version_is_promoted_once(waiting: Daemon) -> None:
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
    assert versions_of(waiting.launched) == [2]
    assert waiting.launched[0].run_config["ops"]["production_flight_delay"]["config"]["approver"] == "grace"
    waiting.stock.promote(MODEL_NAME, 2, mode=Mode.approved)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert len(waiting.launched) == 1


def test_the_requested_run_promotes_and_materialises_the_move(waiting: Daemon) -> None:
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
    assert waiting.materialised == [1, 2]
    assert waiting.materialisations[-1].metadata["by"].value == "ada"
    assert len(waiting.launched) == 1


@pytest.mark.parametrize("order", ["tag first", "tag last", "between polls"])
def test_a_tag_and_an_approval_are_one_run(order: str, waiting: Daemon) -> None:
    def approve() -> None:
        waiting.stock.registered(MODEL_NAME).approve(2, "ada", "looks good")

    acts = [lambda: tag(waiting, 2), approve] if order != "tag last" else [approve, lambda: tag(waiting, 2)]
    for act in acts:
        act()
        if order != "between polls":
            waiting.tick(staging_changed)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert versions_of(waiting.launched) == [2]


def test_a_tag_approves_nothing_where_no_approval_is_needed(waiting: Daemon) -> None:
    waiting.mode = Mode.automatic
    waiting.tick(staging_changed)
    waiting.pass_time(staging_changed, 61)
    waiting.tick(staging_changed)
    tag(waiting, 2)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert waiting.launched == []


def test_an_approval_while_no_daemon_ran_is_carried_out_at_the_first_poll(waiting: Daemon) -> None:
    waiting.forget(staging_changed)
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    waiting.tick(staging_changed)
    assert versions_of(waiting.launched) == [2]


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
    assert versions_of(waiting.launched) == [2, 2]


def test_an_approval_of_an_earlier_evaluation_promotes_nothing(waiting: Daemon) -> None:
    waiting.stock.registered(MODEL_NAME).approve(2, "ada", "")
    waiting.stock.evaluate(MODEL_NAME, 2, against=1)
    for _ in range(2):
        waiting.tick(staging_changed)
    assert waiting.launched == []


def test_an_approval_recorded_by_a_process_that_died_is_read_within_a_minute(
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
    assert versions_of(waiting.launched) == [2]


def test_a_deleted_version_that_waited_is_not_an_error(waiting: Daemon) -> None:
    waiting.stock.client.delete_model_version(MODEL_NAME, "2")
    for _ in range(2):
        waiting.tick(staging_changed)
    assert waiting.launched == []
