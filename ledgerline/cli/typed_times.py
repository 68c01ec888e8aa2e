"""Parses years, months, days and hours, and finds the time partitions that begin in them."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

import dagster as dg

TYPED = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T -](\d{2})(?::(\d{2})(?::00)?)?)?)?)?")


@dataclass(frozen=True)
class Period:
    """A year, month, day, hour or minute; its end is the start of the next one."""

    start: datetime
    end: datetime

    @classmethod
    def typed(cls, text: str, zone: str) -> Self | None:
        """Parse 2013, 2013-07, 2013-07-01, 2013-07-01T05 or 2013-07-01T05:30; None for other texts."""
        match = TYPED.fullmatch(text.strip())
        if match is None:
            return None
        year, month, day, hour, minute = (None if part is None else int(part) for part in match.groups())
        try:
            start = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, tzinfo=ZoneInfo(zone))
            if month is None:
                end = start.replace(year=start.year + 1)
            elif day is None:
                end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
            else:
                # Arithmetic is in local time: a day on which the clock changes is one day, too.
                length = {"days": 1} if hour is None else {"hours": 1} if minute is None else {"minutes": 1}
                end = start + timedelta(**length)
        except (ValueError, OverflowError):
            return None
        return cls(start, end)


def beginning_in(definition: dg.TimeWindowPartitionsDefinition, period: Period) -> tuple[str, ...]:
    """Return the first and the last partition that begin in a period: no key, one key, or two."""
    first = definition.get_first_partition_window()
    if first is None:
        return ()
    start = max(period.start, first.start)
    window = definition.get_next_partition_window(start)
    if window is None or window.start.timestamp() >= period.end.timestamp():
        return ()
    (key, *_) = definition.get_partition_keys_in_time_window(window)
    following = definition.get_next_partition_window(window.end)
    if following is None or following.start.timestamp() >= period.end.timestamp():
        return (key,)
    last = definition.get_last_partition_window()
    end = period.end if last is None else min(period.end, last.end)
    keys = definition.get_partition_keys_in_time_window(dg.TimeWindow(following.start, end))
    return key, keys[-1]


def nearest(definition: dg.TimeWindowPartitionsDefinition, period: Period) -> str | None:
    """Return the partition that contains the beginning of a period, or else the nearest one."""
    first, last = definition.get_first_partition_window(), definition.get_last_partition_window()
    if first is None or last is None:
        return None
    at = min(max(period.start, first.start), last.start)
    key = definition.get_partition_key_for_timestamp(at.timestamp())
    return key if definition.has_partition_key(key) else None
