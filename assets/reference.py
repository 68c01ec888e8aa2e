"""Tables that flights refer to: airports, airlines, planes, and the weather at the three airports."""

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

# No wind as fast was ever measured on the ground outside a tornado (253 mph, WMO record archive).
FASTEST_WIND_MPH = 253


def _reference_table(
    schema: dg.TableSchema, code_version: str
) -> Callable[[Callable[..., Frame]], dg.AssetsDefinition]:
    """What these tables have in common: no partitions, and there as soon as they are missing."""
    return dg.asset(
        io_manager_key="tables",
        automation_condition=policies.WHEN_MISSING,
        retry_policy=policies.RETRY,
        group_name="reference",
        kinds={"parquet", "pandas"},
        code_version=code_version,
        metadata={"dagster/column_schema": schema},
    )


@_reference_table(AIRPORTS_SCHEMA, code_version="1")
def airports() -> Frame:
    """Airports of the United States: one row for each, with place and time zone."""
    return read_source("airports.csv", csv_dtypes(AIRPORTS_SCHEMA))


@_reference_table(AIRLINES_SCHEMA, code_version="1")
def airlines() -> Frame:
    """Names of the airlines: one row for each two-letter code."""
    return read_source("airlines.csv", csv_dtypes(AIRLINES_SCHEMA))


@_reference_table(PLANES_SCHEMA, code_version="1")
def planes() -> Frame:
    """Aircraft that flew from New York City: one row for each tail number the FAA knows."""
    return read_source("planes.csv", csv_dtypes(PLANES_SCHEMA))


@_reference_table(WEATHER_SCHEMA, code_version="1")
def weather(context: dg.AssetExecutionContext) -> Frame:
    """Weather at EWR, JFK and LGA: one row for each airport and hour of 2013.

    Wind speeds no instrument can have measured are stored as missing (one row of the source says
    1,048 mph); their number is in the metadata.
    """
    import pandas as pd

    rows = read_source("weather.csv", csv_dtypes(WEATHER_SCHEMA) | {"time_hour": "object"})
    rows["time_hour"] = pd.to_datetime(rows["time_hour"], utc=True)
    impossible = rows["wind_speed"] > FASTEST_WIND_MPH
    context.add_asset_metadata({"impossible_wind_speeds": int(impossible.sum())})
    return rows.assign(wind_speed=rows["wind_speed"].mask(impossible))
