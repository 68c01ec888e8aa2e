"""Assets with partitions, and readers of them by every kind of partition mapping."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")
MONTHS = dg.MonthlyPartitionsDefinition("2024-01-01", end_date="2024-03-01")
HOURS = dg.HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-11-00:00")
TOWNS = dg.StaticPartitionsDefinition(["ewr", "jfk", "lga", "teb"])
DAYS_AND_TOWNS = dg.MultiPartitionsDefinition({"day": DAYS, "town": TOWNS})
NUMBERS = dg.StaticPartitionsDefinition([f"{number:03}" for number in range(130)])
SINGLE_RUN = dg.BackfillPolicy.single_run()


def range_of(first: str, last: str) -> dict[str, str]:
    """The tags of a run over a range."""
    return {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }


def versioned(name: str, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    """An asset whose version names its run and partition."""

    @dg.asset(name=name, partitions_def=partitions, backfill_policy=SINGLE_RUN if partitions else None)
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        keys = context.partition_keys if context.has_partition_key or context.has_partition_key_range else []
        of_run = f"{name} {keys[0] if keys else ''} {context.run.run_id}"
        for key in keys:
            context.add_asset_metadata({"dagster/partition_row_count": len(key)}, partition_key=key)
        metadata = {} if keys else {"dagster/row_count": 3}
        return dg.MaterializeResult(data_version=dg.DataVersion(of_run), metadata=metadata)

    return asset


def reader(
    name: str,
    upstream: str,
    partitions: dg.PartitionsDefinition | None = None,
    mapping: dg.PartitionMapping | None = None,
) -> dg.AssetsDefinition:
    """An asset that is made from another one."""

    @dg.asset(
        name=name,
        partitions_def=partitions,
        deps=[dg.AssetDep(upstream, partition_mapping=mapping)],
        backfill_policy=SINGLE_RUN if partitions else None,
    )
    def asset() -> None: ...

    return asset


days = versioned("days", DAYS)
hours = versioned("hours", HOURS)
towns = versioned("towns", TOWNS)
days_and_towns = versioned("days_and_towns", DAYS_AND_TOWNS)
numbers = versioned("numbers", NUMBERS)
whole = versioned("whole", None)

same_day = reader("same_day", "days", DAYS)
week_before = reader(
    "week_before", "days", DAYS, dg.TimeWindowPartitionMapping(start_offset=-7, end_offset=-1)
)
month_of_days = reader("month_of_days", "days", MONTHS)
all_days = reader("all_days", "days")
last_day = reader("last_day", "days", None, dg.LastPartitionMapping())
day_of_hours = reader(
    "day_of_hours", "hours", dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-11")
)
mapped_town = reader(
    "mapped_town",
    "towns",
    dg.StaticPartitionsDefinition(["north", "south"]),
    dg.StaticPartitionMapping({"lga": "north", "jfk": "south"}),
)
two_towns = reader("two_towns", "towns", None, dg.SpecificPartitionsPartitionMapping(["ewr", "teb"]))
day_of_both = reader("day_of_both", "days_and_towns", DAYS)
same_number = reader("same_number", "numbers", NUMBERS)
all_numbers = reader("all_numbers", "numbers")
of_whole = reader("of_whole", "whole", DAYS)
running_total = dg.asset(
    partitions_def=DAYS,
    name="running_total",
    deps=[
        dg.AssetDep(
            "running_total",
            partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1),
        )
    ],
)(lambda: None)

UPSTREAMS = [days, hours, towns, days_and_towns, numbers, whole]
READERS = [
    same_day,
    week_before,
    month_of_days,
    all_days,
    last_day,
    day_of_hours,
    mapped_town,
    two_towns,
    day_of_both,
    same_number,
    all_numbers,
    of_whole,
]
