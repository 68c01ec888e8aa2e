"""Tests the sensor that compares the registry with its journal: reports of changes, each once."""

from dagster import DagsterEventType

from assets.delay_model import MODEL_NAME
from ledgerline.dagster.registry_notifications import notify
from ledgerline.registry.stages import PRODUCTION
from tests.pipelines.ticking import (
    REGISTRY_SENSORS,
    Daemon,
    production_changed,
    registry_drift,
    staging_changed,
    versions_of,
)


def test_the_check_is_evaluated_when_its_verdict_changes(daemon: Daemon) -> None:
    daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    for _ in range(4):
        daemon.tick(registry_drift)
    fine = (True, "Aliases and tags agree with the journal.")
    assert daemon.verdicts == [fine]

    daemon.stock.client.set_model_version_tag(MODEL_NAME, "1", "stage", "archived")
    daemon.tick(registry_drift)
    daemon.pass_time(registry_drift, 31)  # a poll does not read tags
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


def test_waiting_work_is_done_at_the_next_tick_for_any_poll_interval(daemon: Daemon) -> None:
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
    assert (daemon.materialised, versions_of(daemon.launched)) == ([], [2])
    daemon.end_run(run_id, DagsterEventType.RUN_FAILURE)
    daemon.tick(production_changed)
    assert daemon.materialised == [1]


def test_a_verdict_is_confirmed_at_the_next_tick_however_seldom_it_polls(daemon: Daemon) -> None:
    daemon.poll_seconds = 3600
    daemon.stock.version(MODEL_NAME)
    for _ in range(2):
        daemon.tick(registry_drift)
    assert [passed for passed, _ in daemon.verdicts] == [True]
    assert "a moment ago" in (daemon.tick(registry_drift).skip_message or "")


def test_a_recorded_external_change_is_not_an_inconsistency(daemon: Daemon) -> None:
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
