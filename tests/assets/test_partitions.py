"""Tests the days that a model's month needs, and the day of 2013 that represents today."""

from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from assets.partitions import (
    DAYS,
    MONTHS,
    TRAINING_DAYS,
    TRAINING_MONTHS,
    days_between,
    evaluation_days,
    months_before,
    replayed_day,
    training_days,
)


def days_of(first_year: int, last_year: int) -> Iterator[date]:
    day = date(first_year, 1, 1)
    while day.year <= last_year:
        yield day
        day += timedelta(days=1)


def in_2013(day: date) -> date:
    """The day of 2013 with the same month and number; for 29 February the day before."""
    return date(2013, day.month, 28 if (day.month, day.day) == (2, 29) else day.day)


def test_partitions_are_all_of_2013_and_every_month_that_has_one_before_it() -> None:
    days, months = DAYS.get_partition_keys(), MONTHS.get_partition_keys()
    assert (len(days), days[0], days[-1]) == (365, "2013-01-01", "2013-12-31")
    assert (len(months), months[0], months[-1]) == (11, "2013-02-01", "2013-12-01")


def test_the_model_of_february_is_trained_on_january_only() -> None:
    days = training_days("2013-02-01")
    assert (days[0], days[-1], len(days)) == ("2013-01-01", "2013-01-31", 31)


def test_the_model_of_december_is_evaluated_to_the_last_day_of_the_year() -> None:
    learned, evaluated = training_days("2013-12-01"), evaluation_days("2013-12-01")
    assert (learned[0], learned[-1], len(learned)) == ("2013-09-01", "2013-11-30", 30 + 31 + 30)
    assert (evaluated[0], evaluated[-1], len(evaluated)) == ("2013-12-01", "2013-12-31", 31)


def test_a_shorter_window_ends_on_the_same_day() -> None:
    assert training_days("2013-07-01", 1) == days_between(date(2013, 6, 1), date(2013, 6, 30))


@pytest.mark.parametrize("month", MONTHS.get_partition_keys())
def test_no_model_is_evaluated_on_a_training_day(month: str) -> None:
    learned, evaluated = training_days(month, 11), evaluation_days(month)
    assert learned[0] == "2013-01-01"
    assert max(learned) < min(evaluated)
    assert all(day[:7] == month[:7] for day in evaluated)


@pytest.mark.parametrize("month", MONTHS.get_partition_keys())
def test_the_lineage_of_a_month_names_its_training_days(month: str) -> None:
    upstream = TRAINING_DAYS.get_upstream_mapped_partitions_result_for_partitions(
        MONTHS.empty_subset().with_partition_keys([month]), MONTHS, DAYS
    )
    assert sorted(upstream.partitions_subset.get_partition_keys()) == training_days(month, TRAINING_MONTHS)


@pytest.mark.parametrize(
    ("first", "months", "expected"),
    [
        (date(2013, 1, 1), 1, date(2012, 12, 1)),
        (date(2013, 12, 1), -1, date(2014, 1, 1)),
        (date(2013, 3, 1), 14, date(2012, 1, 1)),
        (date(2013, 7, 1), 0, date(2013, 7, 1)),
    ],
)
def test_months_are_counted_across_years(first: date, months: int, expected: date) -> None:
    assert months_before(first, months) == expected


def test_days_outside_the_data_are_left_out() -> None:
    days = days_between(date(2012, 12, 30), date(2014, 1, 2))
    assert days == DAYS.get_partition_keys()


def test_every_day_is_replayed_by_a_2013_day_with_the_same_weekday() -> None:
    for today in days_of(2012, 2040):
        replayed = replayed_day(today)
        assert replayed.year == 2013, today
        assert replayed.weekday() == today.weekday(), today


def test_a_day_of_2013_stands_for_itself() -> None:
    assert all(replayed_day(today) == today for today in days_of(2013, 2013))


def test_the_replayed_day_is_at_most_a_week_away_at_the_ends_of_the_year() -> None:
    ends = [
        day for day in days_of(2012, 2040) if (day.month, day.day) < (1, 5) or (day.month, day.day) > (12, 27)
    ]
    assert max(abs(replayed_day(today) - in_2013(today)) for today in ends) <= timedelta(days=7)


def test_the_replayed_day_is_at_most_three_days_away() -> None:
    for today in days_of(2012, 2040):
        if (1, 5) <= (today.month, today.day) <= (12, 27):
            assert abs(replayed_day(today) - in_2013(today)) <= timedelta(days=3), today
