"""Tests the tables taken from the source: numbers of rows, plausible values, described columns."""

from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.features import FEATURES_SCHEMA
from assets.flights import FLIGHT_KEY, FLIGHTS_SCHEMA, flights_by_day, flights_of
from assets.partitions import DAYS
from assets.predictions import PREDICTIONS_SCHEMA
from assets.reference import (
    AIRLINES_SCHEMA,
    AIRPORTS_SCHEMA,
    FASTEST_WIND_MPH,
    PLANES_SCHEMA,
    WEATHER_SCHEMA,
)
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from resources.wiring import resources_for

ROWS = {"airports": 1_458, "airlines": 16, "planes": 3_322, "weather": 26_115}
SCHEMAS = {
    "flights": FLIGHTS_SCHEMA,
    "features": FEATURES_SCHEMA,
    "airports": AIRPORTS_SCHEMA,
    "airlines": AIRLINES_SCHEMA,
    "planes": PLANES_SCHEMA,
    "weather": WEATHER_SCHEMA,
    "delay_predictions": PREDICTIONS_SCHEMA,
}


def events_of(ingestion: dg.ExecuteInProcessResult, asset: str) -> list[dg.AssetMaterialization]:
    events = ingestion.asset_materializations_for_node(asset)
    return [event for event in events if isinstance(event, dg.AssetMaterialization)]


@pytest.mark.parametrize("asset", ["flights", "features"])
def test_every_day_has_as_many_rows_as_the_source(
    asset: str, ingestion: dg.ExecuteInProcessResult, source_flights: pd.DataFrame
) -> None:
    expected = source_flights[source_flights["date"] < "2013-04"].groupby("date").size().to_dict()
    reported = {
        event.partition: event.metadata["dagster/partition_row_count"].value
        for event in events_of(ingestion, asset)
    }
    assert len(reported) == 31 + 28 + 31
    assert reported == expected


def test_known_days_have_the_rows_that_are_known(ingested: Settings) -> None:
    tables = open_tables(ingested.data)
    flights = tables.read(dg.AssetKey("flights"), ["2013-01-01", "2013-01-02"], FLIGHTS_SCHEMA)
    assert flights.groupby("date").size().to_dict() == {"2013-01-01": 842, "2013-01-02": 943}


def test_a_day_is_sorted_by_the_key_of_its_flights(source_flights: pd.DataFrame) -> None:
    shuffled = source_flights.sample(frac=1, random_state=1)
    rows = flights_of(shuffled, ["2013-01-01"])
    assert rows.equals(rows.sort_values(list(FLIGHT_KEY), ignore_index=True))
    assert rows.equals(flights_of(source_flights, ["2013-01-01"]))


def test_the_first_flight_of_the_year_is_stored_as_it_turned_out(ingested: Settings) -> None:
    rows = open_tables(ingested.data).read(dg.AssetKey("flights"), ["2013-01-01"], FLIGHTS_SCHEMA)
    flight = rows[(rows["carrier"] == "UA") & (rows["flight"] == 1545)].iloc[0]
    assert (flight["tailnum"], flight["origin"], flight["dest"]) == ("N14228", "EWR", "IAH")
    assert (flight["sched_dep_time"], flight["dep_time"], flight["dep_delay"]) == (515, 517, 2)
    assert (flight["sched_arr_time"], flight["arr_time"], flight["arr_delay"]) == (819, 830, 11)
    assert flight["time_hour"] == pd.Timestamp("2013-01-01T10:00Z")


def test_the_count_of_a_day_that_the_source_does_not_have_is_zero() -> None:
    assert flights_by_day(["2013-01-01", "2014-01-01"]).to_dict() == {"2013-01-01": 842, "2014-01-01": 0}


def test_a_day_without_flights_fails_the_run_by_name_and_stores_nothing(
    settings: Settings, source_flights: pd.DataFrame
) -> None:
    holiday = source_flights["date"] == "2013-01-02"

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="tables",
        metadata={"dagster/column_schema": FLIGHTS_SCHEMA, "partition_expr": "date"},
    )
    def flights_but_on_a_holiday(context: dg.AssetExecutionContext) -> Any:
        return flights_of(source_flights[~holiday], context.partition_keys)

    run = dg.materialize(
        [flights_but_on_a_holiday],
        resources=resources_for(settings),
        tags={
            "dagster/asset_partition_range_start": "2013-01-01",
            "dagster/asset_partition_range_end": "2013-01-03",
        },
        raise_on_error=False,
    )
    assert not run.success
    error = run.failure_data_for_node("flights_but_on_a_holiday")
    assert error is not None
    assert "flights_but_on_a_holiday has no rows for partition 2013-01-02" in str(error.error)
    assert open_tables(settings.data).stored_partitions(flights_but_on_a_holiday.key) == []


@pytest.mark.parametrize(("asset", "rows"), ROWS.items())
def test_reference_tables_are_whole(
    asset: str, rows: int, ingestion: dg.ExecuteInProcessResult, ingested: Settings
) -> None:
    (event,) = events_of(ingestion, asset)
    assert event.metadata["dagster/row_count"].value == rows
    assert len(open_tables(ingested.data).read(dg.AssetKey(asset), None, SCHEMAS[asset])) == rows


def test_the_impossible_wind_is_stored_as_missing_and_counted(
    ingestion: dg.ExecuteInProcessResult, ingested: Settings
) -> None:
    (event,) = events_of(ingestion, "weather")
    assert event.metadata["impossible_wind_speeds"].value == 1
    weather = open_tables(ingested.data).read(dg.AssetKey("weather"), None, WEATHER_SCHEMA)
    hour = (weather["origin"] == "EWR") & (weather["time_hour"] == pd.Timestamp("2013-02-12T08:00Z"))
    observation = weather[hour].iloc[0]
    assert pd.isna(observation["wind_speed"])
    assert observation["wind_dir"] == 260
    assert weather["wind_speed"].max() < FASTEST_WIND_MPH


def test_the_metadata_carries_the_declared_columns(ingestion: dg.ExecuteInProcessResult) -> None:
    for asset in ("flights", "features", "weather"):
        assert events_of(ingestion, asset)[0].metadata["dagster/column_schema"].value == SCHEMAS[asset]


@pytest.mark.parametrize("asset", SCHEMAS)
def test_every_column_is_described(asset: str) -> None:
    columns = SCHEMAS[asset].columns
    assert [column.name for column in columns if not column.description] == []
    assert len({column.name for column in columns}) == len(columns)
