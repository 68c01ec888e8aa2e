"""Blocking checks of the tables, which stop the assets downstream. The rules are in rules.py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from assets import rules
from assets.features import AIRLINER_SEATS, FEATURES, FEATURES_LINEAGE, FEATURES_SCHEMA, LABEL
from assets.flights import FLIGHT_KEY, FLIGHTS_SCHEMA, KNOWN_ONLY_AFTERWARDS, flights_by_day
from assets.reference import AIRLINES_SCHEMA, AIRPORTS_SCHEMA, FASTEST_WIND_MPH, PLANES_SCHEMA, WEATHER_SCHEMA
from assets.source import count_rows
from ledgerline.dagster.storage.io_managers import Tables

if TYPE_CHECKING:
    import pandas as pd

DECLARED_COLUMNS = "declared_columns"
UNIQUE_KEY = "unique_key"
PLAUSIBLE_VALUES = "plausible_values"
ROWS_OF_SOURCE = "rows_of_source"
KNOWN_BEFORE_DEPARTURE = "known_before_departure"

DESCRIPTIONS = {
    DECLARED_COLUMNS: "The files have the declared columns and types, and required columns have no gaps.",
    UNIQUE_KEY: "No two rows have the same key.",
    PLAUSIBLE_VALUES: "Every value lies in the range that is possible for its column.",
    ROWS_OF_SOURCE: "Each partition has as many rows as the source.",
    KNOWN_BEFORE_DEPARTURE: "No feature derives from, or reveals, data that is known only after departure.",
}

CLOCK = (0, 2400)
WEATHER_RANGES = {
    "temp": (-30, 120),
    "dewp": (-40, 90),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, FASTEST_WIND_MPH),
    "wind_gust": (0, FASTEST_WIND_MPH),
    "precip": (0, 15),
    "pressure": (870, 1085),
    "visib": (0, 10),
}
SCHEDULE_RANGES = {"sched_dep_time": CLOCK, "sched_arr_time": CLOCK, "distance": (1, 6_000)}
FLIGHTS_RANGES = SCHEDULE_RANGES | {
    "dep_time": CLOCK,
    "arr_time": CLOCK,
    "dep_delay": (-120, 3_000),
    "arr_delay": (-180, 3_000),
    "air_time": (10, 1_000),
}
FEATURES_RANGES = (
    SCHEDULE_RANGES
    | WEATHER_RANGES
    | {"day_of_week": (0, 6), "plane_age": (0, 80), "seats": (AIRLINER_SEATS, 900)}
)


@dataclass(frozen=True)
class TableRules:
    """The rules of one table.

    Attributes:
        key: Columns whose values are unique together.
        ranges: Lowest and highest possible value by column.
        source_rows: Function that returns the number of rows of the source by day; None for a table without
            partitions, whose source is the CSV file with its name.
        features: Columns that a model may use.
    """

    asset: str
    schema: dg.TableSchema
    key: Sequence[str]
    ranges: Mapping[str, tuple[float, float]]
    source_rows: "Callable[[Tables, Sequence[str] | None], pd.Series] | None" = None
    features: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The names of this table's checks."""
        return [name for name in DESCRIPTIONS if name != KNOWN_BEFORE_DEPARTURE or self.features]


def checks_of(table: TableRules) -> dg.AssetChecksDefinition:
    """Return the blocking checks of one table, as one step.

    In a run over partitions, they evaluate these partitions; executed alone, they evaluate all stored ones.
    """
    specs = [
        dg.AssetCheckSpec(name, asset=table.asset, description=DESCRIPTIONS[name], blocking=True)
        for name in table.names
    ]

    # With can_subset, the UI offers to execute a single check.
    @dg.multi_asset_check(name=f"{table.asset}_checks", specs=specs, can_subset=True)
    def checks(
        context: dg.AssetCheckExecutionContext, tables: dg.ResourceParam[Tables]
    ) -> Iterator[dg.AssetCheckResult]:
        days = _days_to_evaluate(context, table, tables)
        chosen = {key.name for key in context.selected_asset_check_keys}
        for name, finding in evaluate(table, tables, days).items():
            if name in chosen:
                yield dg.AssetCheckResult(
                    passed=finding.passed,
                    check_name=name,
                    description=finding.text,
                    metadata=dict(finding.details),
                )

    return checks


def evaluate(table: TableRules, tables: Tables, days: Sequence[str] | None) -> dict[str, rules.Finding]:
    """Apply the rules to the stored rows; without the declared columns, no other rule can be evaluated."""
    asset = dg.AssetKey(table.asset)
    declared = rules.has_declared_columns(tables.stored(asset, days), table.schema)
    if not declared.passed:
        not_evaluated = rules.Finding(False, f"Cannot be evaluated: {declared.text}")
        return dict.fromkeys(table.names, not_evaluated) | {DECLARED_COLUMNS: declared}
    rows = tables.read(asset, days, table.schema)
    findings = {
        DECLARED_COLUMNS: declared,
        UNIQUE_KEY: rules.has_unique_key(rows, table.key),
        PLAUSIBLE_VALUES: rules.has_plausible_values(rows, table.ranges),
    }
    stored = rows_by_day(rows) if days else whole_table(len(rows))
    if table.source_rows is None:
        source = whole_table(count_rows(f"{table.asset}.csv"))
    else:
        source = table.source_rows(tables, days)
    findings[ROWS_OF_SOURCE] = rules.has_rows_of_source(stored, source)
    if table.features:
        findings[KNOWN_BEFORE_DEPARTURE] = rules.is_known_before_departure(
            rows, table.features, LABEL, FEATURES_LINEAGE, KNOWN_ONLY_AFTERWARDS
        )
    return findings


def rows_by_day(rows: "pd.DataFrame") -> "pd.Series":
    """Return the number of rows of each day."""
    return rows.groupby("date").size()


def whole_table(count: int) -> "pd.Series":
    """Return the number of rows of a table without partitions."""
    import pandas as pd

    return pd.Series({"the table": count})


def _days_to_evaluate(
    context: dg.AssetCheckExecutionContext, table: TableRules, tables: Tables
) -> Sequence[str] | None:
    if "date" not in {column.name for column in table.schema.columns}:
        return None
    if context.has_partition_key or context.has_partition_key_range:
        return context.partition_keys
    return tables.stored_partitions(dg.AssetKey(table.asset))


def _flights_of_source(tables: Tables, days: Sequence[str] | None) -> "pd.Series":
    return flights_by_day(days or [])


def _stored_flights(tables: Tables, days: Sequence[str] | None) -> "pd.Series":
    return rows_by_day(tables.read(dg.AssetKey("flights"), days, FLIGHTS_SCHEMA))


AIRPORT_RANGES = {"lat": (-90, 90), "lon": (-180, 180), "alt": (-300, 15_000), "tz": (-12, 14)}
PLANE_RANGES = {"year": (1920, 2013), "engines": (1, 8), "seats": (1, 900)}

TABLES = (
    TableRules("airports", AIRPORTS_SCHEMA, ["faa"], AIRPORT_RANGES),
    TableRules("airlines", AIRLINES_SCHEMA, ["carrier"], {}),
    TableRules("planes", PLANES_SCHEMA, ["tailnum"], PLANE_RANGES),
    TableRules("weather", WEATHER_SCHEMA, ["origin", "time_hour"], WEATHER_RANGES),
    TableRules("flights", FLIGHTS_SCHEMA, FLIGHT_KEY, FLIGHTS_RANGES, _flights_of_source),
    TableRules("features", FEATURES_SCHEMA, FLIGHT_KEY, FEATURES_RANGES, _stored_flights, FEATURES),
)
CHECKS = [checks_of(table) for table in TABLES]
