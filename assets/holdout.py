"""Rows to compare versions on: none that either of them was trained on."""

from collections.abc import Sequence
from datetime import date

from assets.partitions import days_between, judged_days
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.registry.versions import MONTH_TAG, TRAINING_DAYS_TAG, Version


def training_days_of(version: Version) -> list[str]:
    """The days a version was trained on, as it says itself.

    Raises:
        PermanentFailure: It does not say so, or not in a way that can be read.
    """
    recorded = version.tags.get(TRAINING_DAYS_TAG)
    remedy = (
        f"Set its tag {TRAINING_DAYS_TAG} to the first and last of these days, as 2013-04-01/2013-06-30, "
        "or train it with the job train_delay_model, which does."
    )
    if not recorded:
        raise PermanentFailure(
            f"{_name(version)} does not say which days it was trained on: no row is known to be new to it.",
            remedy,
        )
    try:
        first, last = (date.fromisoformat(day) for day in recorded.split("/"))
    except ValueError as error:
        raise PermanentFailure(
            f"{_name(version)} says that it was trained on {recorded!r}, which is no range of days.", remedy
        ) from error
    days = days_between(first, last)
    if not days:
        raise PermanentFailure(
            f"{_name(version)} says that it was trained on {recorded}, where there are no flights.", remedy
        )
    return days


def holdout_days(staging: Version, production: Version | None, month: str | None) -> list[str]:
    """The days to compare two versions on: those of the month that the staging version is for.

    Args:
        staging: The version that wants to be promoted.
        production: The version it is compared with; None: there is none.
        month: Another month ("2013-07-01"); None: the one in the tags of the staging version.

    Raises:
        PermanentFailure: One of them was trained on some of these days, or it cannot be known.
    """
    month = month or staging.tags.get(MONTH_TAG)
    if not month:
        raise PermanentFailure(
            f"{_name(staging)} does not say which month it is for.",
            f"Set its tag {MONTH_TAG} to the first day of that month, as 2013-07-01, or give a month.",
        )
    try:
        days = judged_days(month)
    except ValueError as error:
        raise PermanentFailure(
            f"{month!r}, the month of {_name(staging)}, is no month.",
            "Give it by its first day, as 2013-07-01.",
        ) from error
    for version in (staging, production):
        if version is not None:
            _require_new(version, days)
    return days


def _require_new(version: Version, days: Sequence[str]) -> None:
    seen = sorted(set(days) & set(training_days_of(version)))
    if seen:
        raise PermanentFailure(
            f"{_name(version)} was trained on {len(seen)} of the {len(days)} days from {days[0]} to "
            f"{days[-1]} (the first is {seen[0]}): it would be compared on rows it has seen.",
            "Compare on a month that is new to both, or train a model of a later month.",
        )


def _name(version: Version) -> str:
    return f"{version.name} version {version.number}"
