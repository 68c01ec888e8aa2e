"""Which days two versions are compared on: never one that either was trained on."""

from datetime import UTC, datetime

import pytest

from assets.holdout import holdout_days, training_days_of
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.registry.versions import Version


def version(number: int, **tags: str) -> Version:
    return Version("flight_delay", number, "", "", datetime(2026, 1, 1, tzinfo=UTC), tags)


JULY = version(8, month="2013-07-01", training_days="2013-04-01/2013-06-30")
MAY = version(6, month="2013-05-01", training_days="2013-02-01/2013-04-30")


def test_two_versions_are_compared_on_the_month_that_staging_is_for() -> None:
    days = holdout_days(JULY, MAY, None)
    assert (days[0], days[-1], len(days)) == ("2013-07-01", "2013-07-31", 31)


def test_another_month_may_be_named() -> None:
    assert holdout_days(JULY, MAY, "2013-08-01")[0] == "2013-08-01"


def test_without_production_only_staging_must_be_new_to_the_days() -> None:
    assert len(holdout_days(JULY, None, None)) == 31


def test_months_trained_out_of_order_are_not_compared() -> None:
    with pytest.raises(PermanentFailure) as refused:
        holdout_days(MAY, JULY, None)
    assert str(refused.value) == (
        "flight_delay version 8 was trained on 31 of the 31 days from 2013-05-01 to 2013-05-31 (the first is "
        "2013-05-01): it would be compared on rows it has seen. Compare on a month that is new to both, or "
        "train a model of a later month."
    )


def test_one_day_that_was_trained_on_is_enough_to_refuse() -> None:
    until_the_first = version(9, month="2013-08-01", training_days="2013-05-01/2013-08-01")
    with pytest.raises(PermanentFailure, match="version 9 was trained on 1 of the 31 days"):
        holdout_days(until_the_first, None, None)


@pytest.mark.parametrize(
    ("recorded", "problem"),
    [
        (None, "does not say which days it was trained on"),
        ("", "does not say which days it was trained on"),
        ("2013-04-01", "trained on '2013-04-01', which is no range of days"),
        ("2013-06-30/2013-04-01", "where there are no flights"),
        ("2019-04-01/2019-06-30", "where there are no flights"),
        ("April/June", "trained on 'April/June', which is no range of days"),
    ],
)
def test_a_version_must_say_what_it_was_trained_on(recorded: str | None, problem: str) -> None:
    tags = {} if recorded is None else {"training_days": recorded}
    with pytest.raises(PermanentFailure, match=problem) as refused:
        training_days_of(version(3, **tags))
    assert "Set its tag training_days" in str(refused.value)


def test_a_version_must_say_which_month_it_is_for_unless_one_is_named() -> None:
    by_hand = version(3, training_days="2013-04-01/2013-06-30")
    with pytest.raises(PermanentFailure, match="does not say which month it is for"):
        holdout_days(by_hand, None, None)
    assert holdout_days(by_hand, None, "2013-07-01")[0] == "2013-07-01"


def test_a_month_that_is_none_is_named() -> None:
    with pytest.raises(PermanentFailure, match="'July', the month of flight_delay version 8, is no month"):
        holdout_days(JULY, None, "July")
