"""Tests the rules on plain data: each passes good rows, and names the problem of broken ones."""

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from assets.columns import lineage, optional, required
from assets.rules import (
    LEAKING_AUC,
    has_declared_columns,
    has_plausible_values,
    has_rows_of_source,
    has_unique_key,
    is_known_before_departure,
)
from ledgerline.dagster.storage.arrow_tables import arrow_schema

SCHEMA = dg.TableSchema(
    [
        required("flight", "int16", "Flight number"),
        optional("temp", "double", "Temperature, Fahrenheit"),
        optional("tailnum", "string", "Tail number"),
    ]
)
GOOD = pa.table(
    {"flight": [1, 2, 3], "temp": [30.5, None, 40.0], "tailnum": ["N1", None, "N3"]},
    schema=arrow_schema(SCHEMA),
)
LINEAGE = lineage({"distance": [("flights", "distance")], "seats": [("planes", "seats")]})
AFTERWARDS = frozenset({"dep_delay", "arr_delay"})


def with_column(name: str, values: pa.Array) -> pa.Table:
    return GOOD.set_column(GOOD.column_names.index(name), name, values)


@pytest.fixture
def flights() -> pd.DataFrame:
    """Twenty flights, every other one late; neither distance nor seats predict which."""
    return pd.DataFrame(
        {
            "distance": [100.0, 100.0, 200.0, 200.0, 300.0] * 4,
            "seats": [150, 150, 180, 180] * 5,
            "late": pd.Series([True, False] * 10, dtype="boolean"),
        }
    )


def test_declared_columns_pass_in_any_order() -> None:
    finding = has_declared_columns([GOOD, GOOD.select(["tailnum", "flight", "temp"])], SCHEMA)
    assert finding.passed
    assert finding.text == "3 columns as declared"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (GOOD.drop_columns("temp"), "temp is missing"),
        (GOOD.append_column("gate", pa.array(["A", "B", "C"])), "gate is not declared"),
        (with_column("flight", pa.array([1, 2, 3], pa.int64())), "flight is int64, declared is int16"),
        (with_column("temp", pa.array(["a", "b", "c"])), "temp is string, declared is double"),
        (with_column("flight", pa.array([1, None, 3], pa.int16())), "flight has gaps"),
    ],
)
def test_a_column_that_is_not_as_declared_is_named(table: pa.Table, problem: str) -> None:
    finding = has_declared_columns([GOOD, table], SCHEMA)
    assert not finding.passed
    assert finding.text == problem


def test_all_problems_of_all_files_are_reported_once() -> None:
    broken = GOOD.drop_columns("temp").append_column("gate", pa.array(["A", "B", "C"]))
    assert has_declared_columns([broken, broken], SCHEMA).text == "gate is not declared; temp is missing"


def test_rows_with_different_keys_pass() -> None:
    rows = pd.DataFrame({"carrier": ["AA", "AA", "UA"], "flight": [1, 2, 1]})
    finding = has_unique_key(rows, ["carrier", "flight"])
    assert finding.passed
    assert finding.text == "3 rows, one for each carrier, flight"


def test_rows_that_share_a_key_are_counted_with_an_example() -> None:
    rows = pd.DataFrame({"carrier": ["AA", "UA", "UA", "UA"], "flight": [1, 7, 7, 7]})
    finding = has_unique_key(rows, ["carrier", "flight"])
    assert not finding.passed
    assert finding.text == "3 rows share a key, for example {'carrier': 'UA', 'flight': 7}"


def test_values_at_the_ends_of_a_range_and_gaps_pass() -> None:
    rows = pd.DataFrame({"humid": [0.0, 100.0, None]})
    assert has_plausible_values(rows, {"humid": (0, 100)}).passed


def test_values_outside_their_ranges_are_counted_with_an_example() -> None:
    rows = pd.DataFrame(
        {"humid": [50.0, 101.0, 130.0], "wind_speed": [-1.0, 10.0, 1048.4], "visib": [1, 2, 3]}
    )
    finding = has_plausible_values(rows, {"humid": (0, 100), "wind_speed": (0, 253), "visib": (0, 10)})
    assert not finding.passed
    assert finding.text == "humid: 2 outside 0 to 100, as 101.0; wind_speed: 2 outside 0 to 253, as -1.0"


def test_as_many_rows_as_the_source_pass_and_are_counted() -> None:
    rows = pd.Series({"2013-01-01": 842, "2013-01-02": 943})
    finding = has_rows_of_source(rows, rows.sort_index(ascending=False))
    assert finding.passed
    assert finding.details == {"stored_rows": 1785, "source_rows": 1785}


@pytest.mark.parametrize("stored", [841, 843])
def test_too_few_and_too_many_rows_are_reported_with_their_partition(stored: int) -> None:
    finding = has_rows_of_source(
        pd.Series({"2013-01-01": stored, "2013-01-02": 943}),
        pd.Series({"2013-01-01": 842, "2013-01-02": 943}),
    )
    assert not finding.passed
    assert finding.text == f"1 of 2 partitions differ: 2013-01-01 has {stored} rows, the source 842"
    assert finding.details == {"stored_rows": stored + 943, "source_rows": 1785}


def test_a_partition_that_only_one_side_has_counts_as_empty_on_the_other() -> None:
    finding = has_rows_of_source(pd.Series({"2013-01-01": 842}), pd.Series({"2013-01-02": 943}))
    assert finding.text == "2 of 2 partitions differ: 2013-01-01 has 842 rows, the source 0"


def test_features_known_before_departure_pass(flights: pd.DataFrame) -> None:
    finding = is_known_before_departure(flights, ["distance", "seats"], "late", LINEAGE, AFTERWARDS)
    assert finding.passed
    assert finding.text.startswith("2 features; the most telling is ")


def test_a_feature_that_derives_from_an_outcome_is_named(flights: pd.DataFrame) -> None:
    derived = lineage({"distance": [("flights", "distance"), ("flights", "arr_delay")]})
    finding = is_known_before_departure(flights, ["distance"], "late", derived, AFTERWARDS)
    assert not finding.passed
    assert finding.text == "distance derives from arr_delay"


def test_an_outcome_is_not_a_feature_even_if_declared_as_one(flights: pd.DataFrame) -> None:
    rows = flights.rename(columns={"distance": "dep_delay"})
    innocent = lineage({"dep_delay": [("flights", "distance")]})
    finding = is_known_before_departure(rows, ["dep_delay"], "late", innocent, AFTERWARDS)
    assert not finding.passed
    assert "dep_delay" in finding.text


def test_a_feature_of_unknown_origin_is_named(flights: pd.DataFrame) -> None:
    finding = is_known_before_departure(flights.assign(luck=0.5), ["luck"], "late", LINEAGE, AFTERWARDS)
    assert not finding.passed
    assert finding.text == "luck does not say what it derives from"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_predicts_the_outcome_alone_is_named_with_its_score(
    sign: int, flights: pd.DataFrame
) -> None:
    rows = flights.assign(seats=sign * flights["late"].astype(float))
    finding = is_known_before_departure(rows, ["distance", "seats"], "late", LINEAGE, AFTERWARDS)
    assert not finding.passed
    assert finding.text == "seats alone tells the outcome (ROC AUC 1.00)"


def test_flights_without_an_outcome_do_not_hide_a_leak(flights: pd.DataFrame) -> None:
    leaking = flights.assign(seats=flights["late"].astype(float))
    cancelled = pd.DataFrame(
        {"distance": 100.0, "seats": 0.5, "late": pd.Series([pd.NA] * 50, dtype="boolean")}
    )
    rows = pd.concat([cancelled, leaking], ignore_index=True)
    assert not is_known_before_departure(rows, ["seats"], "late", LINEAGE, AFTERWARDS).passed


def test_a_feature_without_values_does_not_leak(flights: pd.DataFrame) -> None:
    empty = flights.assign(seats=float("nan"))
    assert is_known_before_departure(empty, ["seats"], "late", LINEAGE, AFTERWARDS).passed


def test_leakage_needs_more_than_one_outcome(flights: pd.DataFrame) -> None:
    punctual = flights.assign(seats=flights["late"].astype(float), late=pd.array([False] * 20, "boolean"))
    assert is_known_before_departure(punctual, ["seats"], "late", LINEAGE, AFTERWARDS).passed


def test_a_weak_feature_does_not_leak(flights: pd.DataFrame) -> None:
    helpful = flights["late"].astype(float)
    helpful[:8] = 0.0
    finding = is_known_before_departure(
        flights.assign(seats=helpful), ["distance", "seats"], "late", LINEAGE, AFTERWARDS
    )
    assert finding.passed
    assert finding.text == "2 features; the most telling is seats, 0.80"
    assert LEAKING_AUC > 0.80
