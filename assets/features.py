"""Features of flights that are known before departure. Models use them in delay_model.py."""

from typing import TYPE_CHECKING

import dagster as dg

from assets import policies
from assets.columns import Frame, lineage, optional, required
from assets.flights import FLIGHT_KEY
from assets.partitions import DAYS
from assets.reference import WEATHER_SCHEMA

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15
LABEL = "arrived_late"

CATEGORICAL_FEATURES = ("carrier", "origin", "dest", "manufacturer")
WEATHER_FEATURES = tuple(column.name for column in WEATHER_SCHEMA.columns if column.type == "double")
NUMERIC_FEATURES = (
    "sched_dep_time",
    "sched_arr_time",
    "day_of_week",
    "distance",
    "plane_age",
    "seats",
    *WEATHER_FEATURES,
)
FEATURES = CATEGORICAL_FEATURES + NUMERIC_FEATURES

# The FAA reuses tail numbers: for a flight of 2013, the register may list the helicopter, kit plane or
# business jet that has the number now. No airline flew such an aircraft from New York on a schedule.
AIRLINER_TYPE = "Fixed wing multi engine"
AIRLINER_ENGINES = ("Turbo-fan", "Turbo-jet", "Turbo-prop")
AIRLINER_SEATS = 20  # minimum; the register has this number for the Embraer 190
BUSINESS_JETS = ("GULFSTREAM AEROSPACE",)  # manufacturers of jets with 22 seats

FEATURES_SCHEMA = dg.TableSchema(
    [
        required("date", "string", "Day of the scheduled departure, local time (YYYY-MM-DD)"),
        required("carrier", "string", "Airline, two-letter code"),
        required("flight", "int16", "Flight number"),
        required("origin", "string", "Airport of departure"),
        required("dest", "string", "Airport of arrival"),
        required("sched_dep_time", "int16", "Scheduled departure, local time (HHMM)"),
        required("sched_arr_time", "int16", "Scheduled arrival, local time (HHMM)"),
        required("day_of_week", "int8", "Day of the week: 0 is Monday"),
        required("distance", "int16", "Distance between the airports, miles"),
        optional("manufacturer", "string", "Manufacturer of the aircraft, if it is known"),
        optional("plane_age", "double", "Age of the aircraft, years"),
        optional("seats", "double", "Seats of the aircraft"),
        optional("temp", "double", "Temperature at the origin in the scheduled hour, Fahrenheit"),
        optional("dewp", "double", "Dew point there and then, Fahrenheit"),
        optional("humid", "double", "Relative humidity there and then, percent"),
        optional("wind_dir", "double", "Wind direction there and then, degrees"),
        optional("wind_speed", "double", "Wind speed there and then, miles per hour"),
        optional("wind_gust", "double", "Speed of gusts there and then, miles per hour"),
        optional("precip", "double", "Precipitation there and then, inches"),
        optional("pressure", "double", "Pressure there and then, millibars"),
        optional("visib", "double", "Visibility there and then, miles"),
        optional(
            LABEL, "bool", f"Arrived {LATE_MINUTES} or more minutes late; empty if cancelled or diverted"
        ),
    ]
)

FEATURES_LINEAGE = lineage(
    {name: [("flights", name)] for name in (*FLIGHT_KEY, "dest", "sched_arr_time", "distance")}
    | {
        "day_of_week": [("flights", "date")],
        "manufacturer": [("flights", "tailnum"), ("planes", "manufacturer")],
        "plane_age": [("flights", "date"), ("flights", "tailnum"), ("planes", "year")],
        "seats": [("flights", "tailnum"), ("planes", "seats")],
        LABEL: [("flights", "arr_delay")],
    }
    | {
        name: [("flights", "origin"), ("flights", "time_hour"), ("weather", name)]
        for name in WEATHER_FEATURES
    }
)


@dg.asset(
    partitions_def=DAYS,
    io_manager_key="tables",
    backfill_policy=policies.ALL_DAYS_IN_ONE_RUN,
    retry_policy=policies.RETRY,
    group_name="features",
    kinds={"parquet", "pandas"},
    code_version="2",
    metadata={
        "dagster/column_schema": FEATURES_SCHEMA,
        "dagster/column_lineage": FEATURES_LINEAGE,
        "partition_expr": "date",
    },
)
def features(context: dg.AssetExecutionContext, flights: Frame, weather: Frame, planes: Frame) -> Frame:
    """Features of each flight that are known before departure, and whether it arrived late.

    The table has one row for each scheduled flight, and one partition for each day. The features are the
    schedule, the aircraft, and the weather at the origin in the scheduled hour. The sources are `flights`,
    `weather` and `planes`. Cancelled and diverted flights have no outcome: their `arrived_late` is empty,
    models are not trained on them, and the metadata `flights_without_outcome` counts them.

    The register of aircraft has only the latest holder of each tail number. If that is not an airliner, the
    aircraft of the flight is unknown: seats, age and manufacturer are empty, and the metadata
    `flights_of_reused_tail_numbers` counts these flights.
    """
    rows = build_features(flights, weather, planes)
    reused = set(planes["tailnum"]) - set(airliners(planes)["tailnum"])
    counts = {
        "flights_without_outcome": rows[LABEL].isna().groupby(rows["date"]).sum(),
        "flights_of_reused_tail_numbers": flights["tailnum"].isin(reused).groupby(flights["date"]).sum(),
    }
    for day in counts["flights_without_outcome"].index:
        metadata = {name: int(by_day[day]) for name, by_day in counts.items()}
        context.add_asset_metadata(metadata, partition_key=str(day))
    return rows


def airliners(planes: "pd.DataFrame") -> "pd.DataFrame":
    """Return the aircraft of the register that an airline may have flown on a schedule."""
    return planes[
        (planes["type"] == AIRLINER_TYPE)
        & planes["engine"].isin(AIRLINER_ENGINES)
        & (planes["seats"] >= AIRLINER_SEATS)
        & ~planes["manufacturer"].isin(BUSINESS_JETS)
    ]


def build_features(
    flights: "pd.DataFrame", weather: "pd.DataFrame", planes: "pd.DataFrame"
) -> "pd.DataFrame":
    """Join flights with the weather of their scheduled hour, and with their aircraft if it is known.

    Returns:
        One row for each flight, in the order given, with the columns of `FEATURES_SCHEMA`.
    """
    import pandas as pd

    aircraft = airliners(planes)[["tailnum", "year", "manufacturer", "seats"]]
    rows = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one").merge(
        aircraft, on="tailnum", how="left", validate="many_to_one"
    )
    day = pd.to_datetime(rows["date"])
    late = (rows["arr_delay"] >= LATE_MINUTES).astype("boolean")
    rows = rows.assign(
        day_of_week=day.dt.dayofweek,
        plane_age=day.dt.year - rows["year"],
        **{LABEL: late.mask(rows["arr_delay"].isna())},
    )
    return rows[[column.name for column in FEATURES_SCHEMA.columns]]
