"""Tests the sensors on the registry where a model was deleted and created again, or renamed."""

import json

import dagster as dg
import pytest

from assets.delay_model import MODEL_NAME
from ledgerline.registry.journal import experiment_name
from ledgerline.registry.promotion import Mode
from ledgerline.registry.stages import JOURNAL_TAG, PRODUCTION, SEAL_TAG, STAGING
from tests.pipelines.ticking import (
    REGISTRY_SENSORS,
    Daemon,
    production_changed,
    registry_drift,
    staging_changed,
)
from tests.resources.alert_address import AlertAddress

# Cursors of earlier releases do not have these keys.
NEW_IN_CURSORS = ("model_created", "newest_model", "seal")


def released(daemon: Daemon) -> list[int]:
    """Return the versions whose comparison was requested, in order."""
    return [
        each.run_config["ops"]["comparison_flight_delay"]["config"]["version"]
        for each in daemon.launched
        if each.job_name == "release_flight_delay"
    ]


def tick_all(daemon: Daemon, times: int = 2) -> None:
    for sensor in [*REGISTRY_SENSORS] * times:
        daemon.tick(sensor)


def recreate(daemon: Daemon) -> None:
    daemon.stock.client.delete_registered_model(MODEL_NAME)
    daemon.stock.model(MODEL_NAME, 0)


def forget_what_is_new(daemon: Daemon) -> None:
    """Leave cursors as an earlier release wrote them."""
    for name, cursor in daemon.cursors.items():
        seen = json.loads(cursor or "")
        kept = {field: value for field, value in seen.items() if field not in NEW_IN_CURSORS}
        daemon.cursors[name] = json.dumps(kept)


@pytest.fixture
def grown(daemon: Daemon, address: AlertAddress) -> Daemon:
    """Three versions were in staging, two of them in production; all of this is materialised and alerted."""
    daemon.alert_url = address.url
    daemon.instance.report_runless_asset_event(
        dg.AssetMaterialization("delay_predictions", partition="2013-07-04")
    )
    tick_all(daemon)
    for _ in range(2):
        number = daemon.stock.version(MODEL_NAME)
        daemon.stock.stage(MODEL_NAME, number)
        tick_all(daemon)
        daemon.stock.serve(MODEL_NAME, number)
        tick_all(daemon)
    daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
    tick_all(daemon)
    assert (released(daemon), daemon.materialised, len(address.messages)) == ([1, 2, 3], [1, 2], 2)
    return daemon


@pytest.mark.parametrize("release", ["this", "an earlier one"])
def test_a_recreated_model_is_released_materialised_scored_and_alerted_from_its_first_version_on(
    release: str, grown: Daemon, address: AlertAddress
) -> None:
    if release != "this":
        forget_what_is_new(grown)
    before = len(grown.launched)
    recreate(grown)
    number = grown.stock.version(MODEL_NAME)
    grown.stock.stage(MODEL_NAME, number)
    tick_all(grown)
    assert released(grown) == [1, 2, 3, 1]
    grown.stock.serve(MODEL_NAME, number)
    tick_all(grown)
    assert grown.materialised == [1, 2, 1]
    assert grown.materialisations[-1].metadata["from_version"].value == "none"
    assert [message["to_version"] for message in address.messages] == [1, 2, 1]
    assert [each.partition_key for each in grown.launched[before:]] == [None, "2013-07-04"]
    assert len({message["journal_seal"] for message in address.messages}) == 3


def test_equal_entries_of_a_recreated_model_are_different_entries(
    grown: Daemon, address: AlertAddress
) -> None:
    """The new journal has as many entries as the one before when it is read for the first time."""
    head = grown.stock.history(MODEL_NAME).head
    recreate(grown)
    for _ in range(2):
        number = grown.stock.version(MODEL_NAME)
        grown.stock.stage(MODEL_NAME, number)
        grown.stock.serve(MODEL_NAME, number)
    grown.stock.stage(MODEL_NAME, grown.stock.version(MODEL_NAME))
    assert grown.stock.history(MODEL_NAME).head == head
    tick_all(grown)
    assert released(grown) == [1, 2, 3, 3]
    assert grown.materialised == [1, 2, 1, 2]
    assert [message["to_version"] for message in address.messages] == [1, 2, 1, 2]


def test_aliases_set_by_hand_on_a_recreated_model_are_noticed_at_the_next_poll(
    grown: Daemon, address: AlertAddress
) -> None:
    """They are the versions that carried them before, so that nothing seems to have moved."""
    recreate(grown)
    for _ in range(3):
        grown.stock.version(MODEL_NAME)
    grown.set_alias(PRODUCTION, 2)
    grown.set_alias(STAGING, 3)
    for sensor in REGISTRY_SENSORS:
        grown.tick(sensor)
    assert released(grown) == [1, 2, 3, 3]
    assert grown.materialised == [1, 2, 2]
    assert address.messages[-1]["cause"] == "outside"
    assert address.messages[-1]["not_before"] is None  # another model was read then


def test_an_approval_of_a_recreated_model_is_carried_out(daemon: Daemon) -> None:
    daemon.mode = Mode.approved
    for _ in range(2):
        number = daemon.stock.version(MODEL_NAME)
        daemon.stock.stage(MODEL_NAME, number)
        daemon.stock.evaluate(MODEL_NAME, number)
        tick_all(daemon)
        daemon.stock.registered(MODEL_NAME).approve(number, "ada", "looks good")
        tick_all(daemon)
        recreate(daemon)
    assert [request.job_name for request in daemon.launched] == ["promote_flight_delay"] * 2


def test_a_model_recreated_several_times_has_a_new_journal_each_time(daemon: Daemon) -> None:
    tick_all(daemon)
    for _ in range(3):
        daemon.stock.stage(MODEL_NAME, daemon.stock.version(MODEL_NAME))
        tick_all(daemon)
        recreate(daemon)
    assert released(daemon) == [1, 1, 1]


def test_a_killed_daemon_requests_runs_of_a_recreated_model_with_the_same_keys(grown: Daemon) -> None:
    recreate(grown)
    grown.stock.stage(MODEL_NAME, grown.stock.version(MODEL_NAME))
    killed, again = (grown.tick(staging_changed, dies=dies).run_requests or [] for dies in (True, False))
    assert [each.run_key for each in killed] == [each.run_key for each in again]
    assert len(killed) == 1


def test_a_cursor_of_an_earlier_release_continues_and_repeats_nothing(
    grown: Daemon, address: AlertAddress
) -> None:
    before = len(grown.launched)
    forget_what_is_new(grown)
    for _ in range(2):
        tick_all(grown)
    for sensor in (staging_changed, production_changed):
        grown.pass_time(sensor, 31)  # the journal is read again
    tick_all(grown)
    assert (len(grown.launched), grown.materialised, len(address.messages)) == (before, [1, 2], 2)
    grown.stock.serve(MODEL_NAME, 3)
    grown.stock.stage(MODEL_NAME, grown.stock.version(MODEL_NAME))
    tick_all(grown)
    assert released(grown) == [1, 2, 3, 4]
    assert grown.materialised == [1, 2, 3]
    assert [message["to_version"] for message in address.messages] == [1, 2, 3]


def test_a_cursor_of_an_earlier_release_in_the_earlier_journal_starts_again(
    grown: Daemon, address: AlertAddress
) -> None:
    """Journals had no model then: the cursor is younger than the model, and ahead of its journal."""
    recreate(grown)
    forget_what_is_new(grown)
    for sensor in REGISTRY_SENSORS:
        grown.pass_time(sensor, -3600)
    grown.set_alias(STAGING, grown.stock.version(MODEL_NAME))
    tick_all(grown)
    assert released(grown) == [1, 2, 3, 1]
    grown.set_alias(PRODUCTION, 1)
    tick_all(grown)
    assert grown.materialised == [1, 2, 1]
    assert [message["to_version"] for message in address.messages] == [1, 2, 1]


def test_a_model_that_is_renamed_and_gets_its_name_back_is_the_same(
    grown: Daemon, address: AlertAddress
) -> None:
    before = len(grown.launched)
    client = grown.stock.client
    client.rename_registered_model(MODEL_NAME, "other")
    tick_all(grown)
    client.rename_registered_model("other", MODEL_NAME)
    tick_all(grown)
    assert (len(grown.launched), grown.materialised, len(address.messages)) == (before, [1, 2], 2)


def test_models_that_swap_names_are_not_alerted_again(grown: Daemon, address: AlertAddress) -> None:
    """The other one existed before: its past is materialised without alerts."""
    grown.stock.model("other", 0)
    grown.stock.serve("other", grown.stock.version("other"))
    grown.stock.stage("other", grown.stock.version("other"))
    tick_all(grown)
    client = grown.stock.client

    def swap() -> None:
        client.rename_registered_model(MODEL_NAME, "aside")
        client.rename_registered_model("other", MODEL_NAME)
        client.rename_registered_model("aside", "other")
        tick_all(grown)

    swap()
    assert (released(grown), grown.materialised, len(address.messages)) == ([1, 2, 3, 2], [1, 2, 1], 2)
    swap()
    swap()
    assert (released(grown), grown.materialised, len(address.messages)) == ([1, 2, 3, 2], [1, 2, 1], 2)


def test_a_new_journal_of_the_same_model_is_followed(grown: Daemon) -> None:
    client = grown.stock.client
    experiment = client.get_experiment_by_name(experiment_name(MODEL_NAME))
    assert experiment is not None
    client.rename_experiment(experiment.experiment_id, "set aside")
    client.delete_experiment(experiment.experiment_id)
    for tag in (JOURNAL_TAG, SEAL_TAG):
        client.delete_registered_model_tag(MODEL_NAME, tag)
    tick_all(grown)
    grown.stock.stage(MODEL_NAME, grown.stock.version(MODEL_NAME))
    tick_all(grown)
    assert released(grown)[-1] == 4


def test_a_inconsistency_of_the_earlier_model_is_not_confirmed_by_the_new_one(daemon: Daemon) -> None:
    def contradict() -> None:
        daemon.stock.serve(MODEL_NAME, daemon.stock.version(MODEL_NAME))
        daemon.stock.client.set_model_version_tag(MODEL_NAME, "1", "stage", "archived")

    contradict()
    daemon.tick(registry_drift)
    recreate(daemon)
    contradict()
    daemon.tick(registry_drift)
    assert daemon.verdicts == []
    daemon.tick(registry_drift)
    assert [passed for passed, _ in daemon.verdicts] == [False]
