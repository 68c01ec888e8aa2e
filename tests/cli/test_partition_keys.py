"""Tests partitions as a person types them, of every kind, and the messages for mistakes."""

import dagster as dg
import pytest

from ledgerline.cli.partition_keys import PartitionError, between, extent, understood
from tests.cli.bakeries import bakery

JOB = "make_it"


def definition_of(asset: str) -> dg.PartitionsDefinition:
    definition = bakery().job(f"make_{asset}").partitions_def
    assert definition is not None
    return definition


def refusal(asset: str, text: str) -> str:
    with pytest.raises(PartitionError) as caught:
        understood(definition_of(asset), text, JOB)
    return str(caught.value)


@pytest.mark.parametrize(
    ("asset", "text", "key"),
    [
        ("demand", "2023-07-01", "2023-07-01"),
        ("demand", "2023-07", "2023-07-01"),
        ("orders", "2023-02-28", "2023-02-28"),
        ("temperatures", "2023-01-01-05:00", "2023-01-01-05:00"),
        ("temperatures", "2023-01-01T05", "2023-01-01-05:00"),
        ("temperatures", "2023-01-01 05:00", "2023-01-01-05:00"),
        ("temperatures", "2023-01-01T05:00:00", "2023-01-01-05:00"),
        ("temperatures", "2023-07-01T05", "2023-07-01-05:00"),  # summer time
        ("reviews", "2023-01-08", "2023-01-08"),
        ("deliveries", "2023-01-05", "2023-01-05"),
        ("deliveries", "2023-01-05T06", "2023-01-05"),
        ("stock", "north", "north"),
        ("loaves", "2023-01-02|east", "2023-01-02|east"),
    ],
)
def test_a_partition_is_its_key_or_the_only_one_that_begins_then(asset: str, text: str, key: str) -> None:
    assert understood(definition_of(asset), text, JOB) == key


def test_a_month_with_a_custom_format_may_be_typed_as_its_first_day() -> None:
    months = dg.TimeWindowPartitionsDefinition(cron_schedule="0 0 1 * *", start="2023-01", fmt="%Y-%m")
    assert understood(months, "2023-02-01", JOB) == "2023-02"


def test_a_year_is_the_partition_of_a_year() -> None:
    years = dg.TimeWindowPartitionsDefinition(
        cron_schedule="0 0 1 1 *", start="2020-01-01", fmt="%Y-%m-%d", end="2026-01-01"
    )
    assert understood(years, "2024", JOB) == "2024-01-01"


@pytest.mark.parametrize(
    ("asset", "text", "message"),
    [
        (
            "demand",
            "2023",
            "'2023' is more than one partition of make_it. Choose one from 2023-01-01 to 2023-12-01.",
        ),
        (
            "orders",
            "2023-02",
            "'2023-02' is more than one partition of make_it. Choose one from 2023-02-01 to 2023-02-28.",
        ),
        (
            "orders",
            "2023",
            "'2023' is more than one partition of make_it. Choose one from 2023-01-01 to 2023-02-28.",
        ),
        (
            "temperatures",
            "2023-11-05T01",  # twice, on the day on which the clock is put back
            (
                "'2023-11-05T01' is more than one partition of make_it. Choose one from 2023-11-05-01:00 to "
                "2023-11-05-01:00-0500."
            ),
        ),
        (
            "demand",
            "2023-02-15",
            (
                "'2023-02-15' is not a partition of make_it. Choose one from 2023-01-01 to 2023-12-01. "
                "The nearest is 2023-02-01."
            ),
        ),
        (
            "orders",
            "2022-07-01",
            (
                "'2022-07-01' is not a partition of make_it. Choose one from 2023-01-01 to 2023-02-28. "
                "The nearest is 2023-01-01."
            ),
        ),
        (
            "orders",
            "2023-02-29",
            "'2023-02-29' is not a partition of make_it. Choose one from 2023-01-01 to 2023-02-28.",
        ),
        (
            "deliveries",
            "2023-01-08",  # a Sunday
            (
                "'2023-01-08' is not a partition of make_it. Choose one from 2023-01-02 to 2023-01-30. "
                "The nearest is 2023-01-06."
            ),
        ),
        (
            "reviews",
            "2023-01-14",
            (
                "'2023-01-14' is not a partition of make_it. Choose one from 2023-01-01 to 2023-02-19. "
                "The nearest is 2023-01-08."
            ),
        ),
        (
            "orders",
            "yesterday",
            "'yesterday' is not a partition of make_it. Choose one from 2023-01-01 to 2023-02-28.",
        ),
        ("orders", "", "'' is not a partition of make_it. Choose one from 2023-01-01 to 2023-02-28."),
        ("stock", "North", "'North' is not a partition of make_it. Choose one of north, south, east."),
        (
            "loaves",
            "2023-01-02",
            "'2023-01-02' is not a partition of make_it. Write date|shop, for example 2023-01-01|north.",
        ),
        (
            "loaves",
            "a|b|c",
            "'a|b|c' is not a partition of make_it. Write date|shop, for example 2023-01-01|north.",
        ),
        (
            "loaves",
            "2023-01-02|west",
            "'west' is not a partition of the dimension shop of make_it. Choose one of north, south, east.",
        ),
        (
            "loaves",
            "2023-04-02|north",
            (
                "'2023-04-02' is not a partition of the dimension date of make_it. Choose one from "
                "2023-01-01 to 2023-02-28. The nearest is 2023-02-28."
            ),
        ),
        ("plans", "2999-01-01", "make_it has no partitions yet. The first begins 2999-01-01 00:00:00+00:00."),
    ],
)
def test_an_unknown_partition_is_refused_with_the_existing_ones(asset: str, text: str, message: str) -> None:
    assert refusal(asset, text) == message


def test_the_nearest_of_many_names_are_suggested() -> None:
    states = dg.StaticPartitionsDefinition([f"state-{number}" for number in range(50)])
    with pytest.raises(PartitionError) as caught:
        understood(states, "State-7x", JOB)
    assert str(caught.value).startswith(
        "'State-7x' is not a partition of make_it. Choose one of the 50 from state-0 to state-49. "
        "The nearest are state-7, "
    )


def test_dynamic_partitions_are_those_of_the_instance() -> None:
    definition = definition_of("accounts")
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.partition_loading_context(dynamic_partitions_store=instance),
    ):
        with pytest.raises(PartitionError) as caught:
            understood(definition, "ada", JOB)
        assert str(caught.value) == (
            "make_it has no partitions yet. Add keys of 'customers' first, by a sensor or in the Dagster UI."
        )
        instance.add_dynamic_partitions("customers", ["ada", "bob", "eve"])
        assert understood(definition, "bob", JOB) == "bob"
        assert between(definition, "bob", "eve", JOB) == ["bob", "eve"]
        assert extent(definition) == "ada, bob, eve"


def test_a_range_has_both_ends_in_the_order_of_the_definition() -> None:
    assert between(definition_of("demand"), "2023-11", "2023-12", JOB) == ["2023-11-01", "2023-12-01"]
    assert between(definition_of("stock"), "south", "east", JOB) == ["south", "east"]
    assert between(definition_of("loaves"), "2023-01-01|south", "2023-01-02|east", JOB) == [
        "2023-01-01|south",
        "2023-01-01|east",
        "2023-01-02|south",
        "2023-01-02|east",
    ]


@pytest.mark.parametrize(
    ("asset", "first", "last"),
    [
        ("orders", "2023-02-02", "2023-02-01"),
        ("demand", "2023-03", "2023-02"),
        ("stock", "east", "south"),
        ("loaves", "2023-01-01|east", "2023-01-02|south"),
    ],
)
def test_a_range_that_ends_before_it_starts_is_refused(asset: str, first: str, last: str) -> None:
    with pytest.raises(PartitionError) as caught:
        between(definition_of(asset), first, last, JOB)
    assert str(caught.value) == f"--from {first} is later than --to {last}. Swap them."


@pytest.mark.parametrize(
    ("asset", "text"),
    [
        ("orders", "2023-01-01 to 2023-02-28"),
        ("stock", "north, south, east"),
        ("loaves", "date 2023-01-01 to 2023-02-28 and shop north, south, east"),
        ("plans", "none yet"),
    ],
)
def test_the_partitions_there_are_fit_into_a_sentence(asset: str, text: str) -> None:
    assert extent(definition_of(asset)) == text
