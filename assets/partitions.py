"""Day and month partitions, and the days that the model of a month needs."""

from datetime import date, timedelta

import dagster as dg

FIRST_DAY = date(2013, 1, 1)
LAST_DAY = date(2013, 12, 31)
TRAINING_MONTHS = 3

DAYS = dg.DailyPartitionsDefinition(
    start_date=FIRST_DAY.isoformat(), end_date=(LAST_DAY + timedelta(days=1)).isoformat()
)
# A model needs at least one month before the month of its evaluation, so January has no model.
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2013-02-01", end_date="2014-01-01")

TRAINING_DAYS = dg.TimeWindowPartitionMapping(
    start_offset=-TRAINING_MONTHS, end_offset=-1, allow_nonexistent_upstream_partitions=True
)


def months_before(first: date, months: int) -> date:
    """Return the first day of the month that is this many months earlier."""
    index = first.year * 12 + first.month - 1 - months
    return date(index // 12, index % 12 + 1, 1)


def days_between(first: date, last: date) -> list[str]:
    """Return the day partition keys from first to last, both included, within the data."""
    first, last = max(first, FIRST_DAY), min(last, LAST_DAY)
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def training_days(month_key: str, months: int = TRAINING_MONTHS) -> list[str]:
    """Return the days that the model of a month is trained on: the months before it, within the data."""
    first = date.fromisoformat(month_key)
    return days_between(months_before(first, months), first - timedelta(days=1))


def evaluation_days(month_key: str) -> list[str]:
    """Return the days that the model of a month is evaluated on: the month itself."""
    first = date.fromisoformat(month_key)
    return days_between(first, months_before(first, -1) - timedelta(days=1))


def replayed_day(today: date) -> date:
    """Return the day of 2013 that represents today: the nearest one with the same weekday.

    It is at most three days away from today's date, except at the ends of the year, where it stays in 2013.
    """
    leap_day = (today.month, today.day) == (2, 29)
    anchor = date(FIRST_DAY.year, today.month, 28 if leap_day else today.day)
    shift = (today.weekday() - anchor.weekday() + 3) % 7 - 3
    day = anchor + timedelta(days=shift)
    if day < FIRST_DAY:
        return day + timedelta(days=7)
    return day - timedelta(days=7) if day > LAST_DAY else day
