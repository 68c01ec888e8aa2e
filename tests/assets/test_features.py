"""Tests that features are joined correctly, and contain nothing that is known only after departure."""

from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.columns import csv_dtypes
from assets.delay_model import with_outcome
from assets.features import (
    FEATURES,
    FEATURES_LINEAGE,
    FEATURES_SCHEMA,
    LABEL,
    airliners,
    build_features,
)
from assets.flights import FLIGHT_KEY, KNOWN_ONLY_AFTERWARDS, flights_of
from assets.reference import PLANES_SCHEMA, WEATHER_SCHEMA
from assets.source import read_source
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables

STORMY_DAY = "2013-07-10"


@pytest.fixture(scope="module")
def weather() -> pd.DataFrame:
    rows = read_source("weather.csv", csv_dtypes(WEATHER_SCHEMA) | {"time_hour": "object"})
    return rows.assign(time_hour=pd.to_datetime(rows["time_hour"], utc=True))


@pytest.fixture(scope="module")
def planes() -> pd.DataFrame:
    return read_source("planes.csv", csv_dtypes(PLANES_SCHEMA))


@pytest.fixture(scope="module")
def stormy_flights(source_flights: pd.DataFrame) -> pd.DataFrame:
    return flights_of(source_flights, [STORMY_DAY])


def flight(rows: pd.DataFrame, carrier: str, number: int) -> Any:
    return rows[(rows["carrier"] == carrier) & (rows["flight"] == number)].iloc[0]


def stored_features(settings: Settings, day: str) -> pd.DataFrame:
    return open_tables(settings.data).read(dg.AssetKey("features"), [day], FEATURES_SCHEMA)


def test_a_winter_flight_gets_the_weather_of_its_hour_in_utc(ingested: Settings) -> None:
    # UA 1545, N14228 (built in 1999, 149 seats), 05:15 at Newark: 10:15 UTC in standard time.
    row = flight(stored_features(ingested, "2013-01-01"), "UA", 1545)
    assert (row["temp"], row["dewp"], row["humid"], row["wind_dir"]) == (39.02, 28.04, 64.43, 260)
    assert (row["precip"], row["pressure"], row["visib"]) == (0, 1011.9, 10)
    assert (row["plane_age"], row["seats"], row["manufacturer"]) == (14, 149, "BOEING")
    assert (row["day_of_week"], row["distance"]) == (1, 1400)  # a Tuesday
    assert bool(row[LABEL]) is False  # it arrived 11 minutes late


def test_a_summer_flight_gets_the_weather_of_its_hour_in_utc(
    stormy_flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame
) -> None:
    # DL 17, N192DN (built in 1997, 330 seats), 18:15 at Kennedy: 22:15 UTC in daylight saving time.
    row = flight(build_features(stormy_flights, weather, planes), "DL", 17)
    assert (row["temp"], row["dewp"], row["humid"], row["pressure"]) == (78.98, 71.06, 76.74, 1010.7)
    assert (row["plane_age"], row["seats"], row["day_of_week"]) == (16, 330, 2)
    assert bool(row[LABEL]) is True  # it arrived 65 minutes late


def test_fifteen_minutes_are_late_and_fourteen_are_not(ingested: Settings) -> None:
    rows = stored_features(ingested, "2013-01-01")
    assert not flight(rows, "AA", 303)[LABEL]  # 14 minutes
    assert flight(rows, "B6", 905)[LABEL]  # 15 minutes


def test_an_unknown_plane_leaves_gaps(ingested: Settings) -> None:
    row = flight(stored_features(ingested, "2013-01-02"), "UA", 623)  # cancelled, without a tail number
    assert pd.isna(row["plane_age"])
    assert pd.isna(row["seats"])
    assert row["manufacturer"] is None


@pytest.mark.parametrize(
    ("tail_number", "register"),
    [
        ("N537JB", "a Robinson helicopter with 5 seats"),
        ("N531JB", "a kit plane with 2 seats"),
        ("N840MQ", "a fighter with 2 seats and four jet engines"),
        ("N567AA", "a bush plane with 16 seats"),
        ("N711MQ", "a Gulfstream with 22 seats"),
        ("N381AA", "a DC-7 of 1956 with 102 seats and propellers"),
    ],
)
def test_the_aircraft_of_a_reused_tail_number_is_not_known(
    tail_number: str,
    register: str,
    source_flights: pd.DataFrame,
    weather: pd.DataFrame,
    planes: pd.DataFrame,
) -> None:
    flown = source_flights[source_flights["tailnum"] == tail_number]
    assert len(flown) > 0, register
    assert tail_number in set(planes["tailnum"])
    rows = build_features(flown, weather, planes)
    assert rows[["seats", "plane_age", "manufacturer"]].isna().all(axis=None)


def test_the_smallest_airliner_of_the_register_is_one(
    source_flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame
) -> None:
    # An Embraer 190, which the register gives 20 seats.
    rows = build_features(source_flights[source_flights["tailnum"] == "N375JB"], weather, planes)
    assert set(rows["seats"]) == {20}
    assert set(rows["manufacturer"]) == {"EMBRAER"}


def test_flights_of_reused_tail_numbers_are_counted_for_each_day(
    ingestion: dg.ExecuteInProcessResult, source_flights: pd.DataFrame, planes: pd.DataFrame
) -> None:
    reused = set(planes["tailnum"]) - set(airliners(planes)["tailnum"])
    assert len(reused) == 43
    of_reused = source_flights["tailnum"].isin(reused)
    assert of_reused.sum() == 2942
    expected = of_reused.groupby(source_flights["date"]).sum()
    counted = {
        event.partition: event.metadata["flights_of_reused_tail_numbers"].value
        for event in ingestion.asset_materializations_for_node("features")
        if isinstance(event, dg.AssetMaterialization)
    }
    assert counted == expected[expected.index < "2013-04"].to_dict()


def test_cancelled_and_diverted_flights_are_kept_without_an_outcome(ingested: Settings) -> None:
    rows = stored_features(ingested, "2013-01-02")
    assert pd.isna(flight(rows, "EV", 4352)[LABEL])  # cancelled
    assert pd.isna(flight(rows, "EV", 4140)[LABEL])  # left, and landed elsewhere
    without = int(rows[LABEL].isna().sum())
    assert without > 0
    assert len(with_outcome(rows)) == len(rows) - without


def test_flights_without_an_outcome_are_counted_for_each_day(
    ingestion: dg.ExecuteInProcessResult, source_flights: pd.DataFrame
) -> None:
    expected = source_flights["arr_delay"].isna().groupby(source_flights["date"]).sum()
    counted = {
        event.partition: event.metadata["flights_without_outcome"].value
        for event in ingestion.asset_materializations_for_node("features")
        if isinstance(event, dg.AssetMaterialization)
    }
    assert counted == expected[expected.index < "2013-04"].to_dict()
    assert counted["2013-01-01"] == 11


def test_changing_how_flights_turned_out_changes_no_feature(
    stormy_flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame
) -> None:
    outcomes = sorted(KNOWN_ONLY_AFTERWARDS)
    shuffled = stormy_flights[outcomes].sample(frac=1, random_state=1)
    otherwise = stormy_flights.assign(**{name: shuffled[name].to_numpy() for name in outcomes})
    before, after = (build_features(rows, weather, planes) for rows in (stormy_flights, otherwise))
    pd.testing.assert_frame_equal(before.drop(columns=LABEL), after.drop(columns=LABEL))
    assert not before[LABEL].equals(after[LABEL])


def test_only_the_declared_outcome_columns_are_empty_for_a_flight_that_never_left(
    source_flights: pd.DataFrame,
) -> None:
    cancelled = source_flights[source_flights["dep_time"].isna()]
    empty = {str(name) for name in cancelled.columns[cancelled.isna().all()]}
    assert empty == KNOWN_ONLY_AFTERWARDS


def test_the_order_and_number_of_flights_are_kept(
    stormy_flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame
) -> None:
    shuffled = stormy_flights.sample(frac=1, random_state=1)
    rows = build_features(shuffled, weather, planes)
    assert rows[list(FLIGHT_KEY)].equals(shuffled[list(FLIGHT_KEY)].reset_index(drop=True))


def test_two_observations_for_one_hour_are_refused(
    stormy_flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame
) -> None:
    with pytest.raises(pd.errors.MergeError, match="many-to-one"):
        build_features(stormy_flights, pd.concat([weather, weather.tail(1)]), planes)


def test_no_feature_has_the_name_of_an_outcome() -> None:
    assert set(FEATURES).isdisjoint(KNOWN_ONLY_AFTERWARDS | {LABEL, "air_time", "tailnum"})
    assert len(set(FEATURES)) == len(FEATURES)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_derives_from_columns_known_before_departure(name: str) -> None:
    sources = {dep.column_name for dep in FEATURES_LINEAGE.deps_by_column[name]}
    assert sources
    assert sources.isdisjoint(KNOWN_ONLY_AFTERWARDS)


def test_every_column_names_the_columns_it_derives_from() -> None:
    assert set(FEATURES_LINEAGE.deps_by_column) == {column.name for column in FEATURES_SCHEMA.columns}
