"""Tests the notification of sensors that follow the registry, stored in the Dagster instance."""

import time
from pathlib import Path

import dagster as dg

from ledgerline.dagster.registry_notifications import notified_at, notify


def test_without_a_notification_there_is_no_time(any_instance: dg.DagsterInstance) -> None:
    assert notified_at(any_instance) is None


def test_the_time_of_a_notification_is_stored(any_instance: dg.DagsterInstance) -> None:
    before = time.time()
    notify(any_instance)
    at = notified_at(any_instance)
    assert at is not None
    assert before <= at <= time.time()
    assert notified_at(any_instance) == at


def test_each_notification_differs_from_the_one_before(any_instance: dg.DagsterInstance) -> None:
    times = []
    for _ in range(3):
        notify(any_instance)
        times.append(notified_at(any_instance))
    assert len(set(times)) == 3


def test_another_process_reads_it(tmp_path: Path) -> None:
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as one,
        dg.DagsterInstance.local_temp(str(tmp_path)) as other,
    ):
        assert notified_at(other) is None
        notify(one)
        assert notified_at(other) == notified_at(one) != None  # noqa: E711 (a chain)
