"""Tests the nominal time of OpenLineage events, which is read from partition keys."""

from dataclasses import replace

import dagster as dg
import pytest

from ledgerline.ledger.event_log import read_history
from ledgerline.lineage.events import run_events
from tests.observability.lineage_events import NAMESPACE, as_sent, attempt, event_of, made_up, written


@pytest.mark.parametrize(
    ("tags", "partitions", "expected"),
    [
        pytest.param({"partition": "2013-07-01"}, ["2013-07-01"], ("2013-07-01T00:00:00Z", None), id="a day"),
        pytest.param(
            {"first": "2013-02-27", "last": "2013-02-28"},
            ["2013-02-27", "2013-02-28"],
            ("2013-02-27T00:00:00Z", "2013-03-01T00:00:00Z"),
            id="days",
        ),
        pytest.param(
            {"first": "2013-02-01", "last": "2013-04-01"},
            ["2013-02-01", "2013-03-01", "2013-04-01"],
            ("2013-02-01T00:00:00Z", None),
            id="months",
        ),
        pytest.param(
            {"partition": "2013-07-01-05:00"},
            ["2013-07-01-05:00"],
            ("2013-07-01T05:00:00Z", None),
            id="an hour",
        ),
        pytest.param(
            {"first": "2013-07-01-05:00", "last": "2013-07-01-07:00"},
            ["2013-07-01-05:00", "2013-07-01-06:00", "2013-07-01-07:00"],
            ("2013-07-01T05:00:00Z", "2013-07-01T08:00:00Z"),
            id="hours",
        ),
        pytest.param(
            {"first": "2013-07-01-05:00", "last": "2013-07-01-06:00"},
            [f"2013-07-01-05:{minute}" for minute in ("00", "15", "30", "45")],
            ("2013-07-01T05:00:00Z", None),
            id="quarters of an hour",
        ),
        pytest.param(
            {"partition": "2013-11-03-01:00-0500"},
            ["2013-11-03-01:00-0500"],
            ("2013-11-03T06:00:00Z", None),
            id="the second of two equal hours",
        ),
        pytest.param(
            {"partition": "2013-10-27-02:00+0100"},
            ["2013-10-27-02:00+0100"],
            ("2013-10-27T01:00:00Z", None),
            id="the second of two equal hours in Europe",
        ),
        pytest.param(
            {"first": "2013-11-03-00:00", "last": "2013-11-03-02:00"},
            ["2013-11-03-00:00", "2013-11-03-01:00", "2013-11-03-01:00-0500", "2013-11-03-02:00"],
            None,
            id="hours of which one tells that they are not UTC",
        ),
        pytest.param(
            {"first": "2013-07-01-05:00+0200", "last": "2013-07-01-06:00+0200"},
            ["2013-07-01-05:00+0200", "2013-07-01-06:00+0200"],
            ("2013-07-01T03:00:00Z", "2013-07-01T05:00:00Z"),
            id="hours with an offset each",
        ),
        pytest.param(
            {"partition": "2013-07-01T05:00:00+0200"},
            [None],
            ("2013-07-01T03:00:00Z", None),
            id="a time as ISO has it",
        ),
        pytest.param(
            {"first": "2013-07-07", "last": "2013-07-14"},
            ["2013-07-07", "2013-07-14"],
            ("2013-07-07T00:00:00Z", None),
            id="weeks",
        ),
        pytest.param({"partition": "2013"}, ["2013"], None, id="a number"),
        pytest.param({"partition": "20130701"}, ["20130701"], None, id="digits"),
        pytest.param(
            {"partition": "2013-07-01|2013-07-02"},
            ["2013-07-01|2013-07-02"],
            None,
            id="two dimensions of time",
        ),
        pytest.param({"partition": "2013-07"}, [None], ("2013-07-01T00:00:00Z", None), id="a named month"),
        pytest.param({"partition": "EWR"}, ["EWR"], None, id="an airport"),
        pytest.param(
            {"partition": "2013-07-01|EWR"},
            ["2013-07-01|EWR"],
            ("2013-07-01T00:00:00Z", None),
            id="two dimensions",
        ),
        pytest.param({"first": "2013-07-01", "last": "later"}, [], None, id="half a range"),
        pytest.param({}, ["2013-07-01", "2013-07-02"], None, id="no partition"),
    ],
)
def test_the_nominal_time_is_that_of_the_partition_keys(
    tags: dict[str, str], partitions: list[str | None], expected: tuple[str, str | None] | None
) -> None:
    history = made_up(attempt(*(written("features", partition=key) for key in partitions)), **tags)
    facets = as_sent(event_of(history, "train.features"))["run"]["facets"]
    if expected is None:
        assert "nominalTime" not in facets
    else:
        assert (
            facets["nominalTime"]["nominalStartTime"],
            facets["nominalTime"].get("nominalEndTime"),
        ) == expected


def test_the_planned_partitions_of_a_run_define_its_nominal_time_from_the_start() -> None:
    history = replace(
        made_up(first="2013-11-03-00:00", last="2013-11-03-02:00"),
        planned_partitions=(
            "2013-11-03-00:00",
            "2013-11-03-01:00",
            "2013-11-03-01:00-0500",
            "2013-11-03-02:00",
        ),
    )
    assert all(
        "nominalTime" not in as_sent(event)["run"]["facets"] for event in run_events(history, NAMESPACE)
    )
    in_summer = replace(
        made_up(first="2013-07-01-05:00", last="2013-07-01-06:00"),
        planned_partitions=("2013-07-01-05:00", "2013-07-01-06:00"),
    )
    assert {
        as_sent(event)["run"]["facets"]["nominalTime"]["nominalEndTime"]
        for event in run_events(in_summer, NAMESPACE)
    } == {"2013-07-01T07:00:00Z"}


@pytest.mark.parametrize(("key", "planned"), [("2013-11-03-01:00-0500", ("2013-11-03-01:00-0500",))])
def test_the_key_of_an_hour_that_dagster_names_with_an_offset_is_in_the_log(
    key: str, planned: tuple[str, ...]
) -> None:
    hours = dg.HourlyPartitionsDefinition("2013-01-01-00:00", timezone="America/New_York")

    @dg.asset(partitions_def=hours)
    def features() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([features], instance=instance, partition_key=key)
        history = read_history(instance, result.run_id)
    assert history is not None
    assert history.planned_partitions == planned
    facets = as_sent(event_of(history, history.run.job))["run"]["facets"]
    assert facets["nominalTime"]["nominalStartTime"] == "2013-11-03T06:00:00Z"
