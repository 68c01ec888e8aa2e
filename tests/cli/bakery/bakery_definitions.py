"""A project that is not the example: a job for each kind of partitions, and some odd ones."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition(start_date="2023-01-01", end_date="2023-03-01")
HOURS = dg.HourlyPartitionsDefinition(
    start_date="2023-01-01-00:00", end_date="2023-12-01-00:00", timezone="America/New_York"
)
WEEKS = dg.WeeklyPartitionsDefinition(start_date="2023-01-01", end_date="2023-03-01")
MONTHS = dg.MonthlyPartitionsDefinition(start_date="2023-01-01", end_date="2024-01-01")
WORKDAYS = dg.TimeWindowPartitionsDefinition(
    cron_schedule="0 6 * * 1-5", start="2023-01-01", end="2023-02-01", fmt="%Y-%m-%d"
)
SHOPS = dg.StaticPartitionsDefinition(["north", "south", "east"])
DAYS_AND_SHOPS = dg.MultiPartitionsDefinition({"date": DAYS, "shop": SHOPS})
CUSTOMERS = dg.DynamicPartitionsDefinition(name="customers")
FUTURE = dg.DailyPartitionsDefinition(start_date="2999-01-01")

SINGLE = dg.BackfillPolicy.single_run()
KINDS: dict[str, tuple[dg.PartitionsDefinition | None, dg.BackfillPolicy | None]] = {
    "menu": (None, None),
    "orders": (DAYS, SINGLE),
    "temperatures": (HOURS, SINGLE),
    "reviews": (WEEKS, None),
    "demand": (MONTHS, None),
    "deliveries": (WORKDAYS, dg.BackfillPolicy.multi_run(3)),
    "stock": (SHOPS, SINGLE),
    "till": (SHOPS, None),
    "loaves": (DAYS_AND_SHOPS, SINGLE),
    "crumbs": (DAYS_AND_SHOPS, dg.BackfillPolicy.multi_run(2)),
    "accounts": (CUSTOMERS, SINGLE),
    "plans": (FUTURE, SINGLE),
}


def _asset(
    name: str, definition: dg.PartitionsDefinition | None, policy: dg.BackfillPolicy | None
) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=definition, backfill_policy=policy if definition else None)
    def made(context: dg.AssetExecutionContext) -> None:
        if context.run.tags.get("dagster/partition") == "south":
            raise dg.Failure("The south is closed.")

    return made


ASSETS = [_asset(name, definition, policy) for name, (definition, policy) in KINDS.items()]


class Portion(dg.Config):
    """How much is baked."""

    loaves: int = 1


@dg.asset(partitions_def=DAYS)
def bread(context: dg.AssetExecutionContext, config: Portion) -> dg.MaterializeResult:
    """Bread that is baked for the orders of a day, one day at a time."""
    return dg.MaterializeResult(metadata={"loaves": config.loaves})


@dg.op(config_schema={"day": str})
def sweep(context: dg.OpExecutionContext) -> None:
    """Sweep the bakery."""
    assert context.op_config["day"] == context.partition_key


@dg.daily_partitioned_config(start_date="2023-01-01", end_offset=0)
def of_the_day(start, end):
    """Configure the day to sweep."""
    return {"ops": {"sweep": {"config": {"day": f"{start:%Y-%m-%d}"}}}}


@dg.job(config=of_the_day)
def clean_up() -> None:
    """Sweep the bakery once a day."""
    sweep()


@dg.op
def ring(context: dg.OpExecutionContext) -> None:
    """Ring the bell."""


@dg.logger(config_schema={"volume": int})
def bell(context: dg.InitLoggerContext):
    """Log nothing."""
    import logging

    return logging.getLogger("bell")


@dg.job(logger_defs={"bell": bell}, tags={"shift": "early"})
def open_shop() -> None:
    """Ring the bell, with a separate logger."""
    ring()


defs = dg.Definitions(
    assets=[*ASSETS, bread],
    jobs=[
        *(dg.define_asset_job(f"make_{name}", selection=dg.AssetSelection.assets(name)) for name in KINDS),
        dg.define_asset_job("bake", selection=dg.AssetSelection.assets("orders", "bread")),
        clean_up,
        open_shop,
    ],
    executor=dg.in_process_executor,
)
