"""Tests the runs of each tick: the day or month of 2013 that replaces the current one."""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from assets.partitions import DAYS, MONTHS, replayed_day
from pipelines.definitions import defs
from pipelines.schedules import SCHEDULES, daily_replay, monthly_retraining

NEW_YORK = ZoneInfo("America/New_York")


def tick(schedule: dg.ScheduleDefinition, *when: int) -> dg.RunRequest | dg.SkipReason:
    """Return the only request of a tick at this time in New York."""
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(*when, tzinfo=NEW_YORK),
        repository_def=defs.get_repository_def(),
    )
    data = schedule.evaluate_tick(context)
    if data.skip_message is not None:
        return dg.SkipReason(data.skip_message)
    (request,) = data.run_requests or []
    return request


def test_each_morning_a_day_of_2013_with_the_same_weekday_is_replayed() -> None:
    request = tick(daily_replay, 2026, 7, 10, 5)  # a Friday
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2013-07-12"
    assert request.run_key == "2026-07-10"
    assert request.tags["replayed_on"] == "2026-07-10"


def test_days_that_are_replayed_by_the_same_day_have_separate_runs() -> None:
    first, second = tick(daily_replay, 2024, 12, 31, 5), tick(daily_replay, 2024, 12, 24, 5)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key


@pytest.mark.parametrize("day", [1, 10, 28])
def test_a_replayed_day_is_a_partition(day: int) -> None:
    for month in range(1, 13):
        when = datetime(2025, month, day, 5, tzinfo=NEW_YORK)
        request = tick(daily_replay, when.year, when.month, when.day, when.hour)
        assert isinstance(request, dg.RunRequest)
        assert request.partition_key == replayed_day(when.date()).isoformat()
        assert request.partition_key in DAYS.get_partition_keys()


@pytest.mark.parametrize(
    ("month", "evaluated"),
    [(1, "2013-12-01"), (3, "2013-02-01"), (8, "2013-07-01"), (12, "2013-11-01")],
)
def test_each_month_a_model_is_evaluated_on_the_one_that_has_ended(month: int, evaluated: str) -> None:
    request = tick(monthly_retraining, 2026, month, 1, 6)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == evaluated
    assert request.partition_key in MONTHS.get_partition_keys()
    assert request.run_key == f"2026-{month:02}-01"
    assert request.tags["replayed_on"] == request.run_key


def test_february_is_skipped_for_january_has_no_month_before_it() -> None:
    skipped = tick(monthly_retraining, 2026, 2, 1, 6)
    assert isinstance(skipped, dg.SkipReason)
    assert (
        skipped.skip_message == "No model is evaluated on January 2013, because no month before it has data."
    )


def test_schedules_tick_by_the_clock_of_new_york() -> None:
    assert {schedule.name: schedule.execution_timezone for schedule in SCHEDULES} == {
        "daily_replay": "America/New_York",
        "monthly_retraining": "America/New_York",
    }
    assert {schedule.name: schedule.cron_schedule for schedule in SCHEDULES} == {
        "daily_replay": "0 5 * * *",
        "monthly_retraining": "0 6 1 * *",
    }


def test_a_schedule_waits_until_it_is_switched_on() -> None:
    assert {schedule.default_status for schedule in SCHEDULES} == {dg.DefaultScheduleStatus.STOPPED}
    assert {schedule.name for schedule in defs.get_repository_def().schedule_defs} == {
        schedule.name for schedule in SCHEDULES
    }
