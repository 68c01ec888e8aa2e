"""Weather stations and their readings: small assets with everything that lineage events contain."""

import dagster as dg

DAYS = ("2013-07-01", "2013-07-02", "2013-07-03")
ROWS = {"2013-07-01": 24, "2013-07-02": 23, "2013-07-03": 24}

STATIONS_SCHEMA = dg.TableSchema(
    [dg.TableColumn("station", "string", "Its code."), dg.TableColumn("elevation", "double")]
)
READINGS_SCHEMA = dg.TableSchema(
    [
        dg.TableColumn("station", "string", "Where it was read."),
        dg.TableColumn("celsius", "double", "What was read."),
    ]
)
READINGS_LINEAGE = dg.TableColumnLineage(
    {
        "station": [dg.TableColumnDep(dg.AssetKey("stations"), "station")],
        "celsius": [dg.TableColumnDep(dg.AssetKey(["raw", "thermometer"]), "volts")],
    }
)


@dg.asset(code_version="2")
def stations() -> dg.MaterializeResult:
    """All stations."""
    return dg.MaterializeResult(
        metadata={"dagster/column_schema": STATIONS_SCHEMA, "dagster/row_count": 3},
        data_version=dg.DataVersion("stations-1"),
    )


@dg.asset_check(asset=stations, description="Each code is there once.")
def stations_are_unique() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="EWR twice.")


@dg.asset(
    deps=[stations, dg.AssetKey(["raw", "thermometer"])],
    partitions_def=dg.DailyPartitionsDefinition("2013-07-01", end_date="2013-07-08"),
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[dg.AssetCheckSpec("plausible", asset="readings")],
)
def readings(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Readings by day."""
    for day in context.partition_keys:
        context.add_asset_metadata(
            {"dagster/partition_row_count": ROWS[day], "content_sha256": f"sha-{day}"}, partition_key=day
        )
    return dg.MaterializeResult(
        metadata={"dagster/column_schema": READINGS_SCHEMA, "dagster/column_lineage": READINGS_LINEAGE},
        data_version=dg.DataVersion("readings-1"),
        check_results=[dg.AssetCheckResult(passed=True)],
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec("hottest", deps=[readings]),
        dg.AssetSpec(["reports", "hottest"], deps=["hottest"]),
    ]
)
def hottest_and_report():
    yield dg.MaterializeResult("hottest", data_version=dg.DataVersion("hottest-1"))
    yield dg.MaterializeResult(dg.AssetKey(["reports", "hottest"]), data_version=dg.DataVersion("report-1"))


@dg.asset(deps=[stations], retry_policy=dg.RetryPolicy(max_retries=1))
def forecast(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Works the second time."""
    if context.retry_number == 0:
        raise ConnectionError("The weather service is busy.")
    return dg.MaterializeResult(data_version=dg.DataVersion("forecast-1"))


@dg.asset
def broken() -> None:
    """Fails, for a reason."""
    try:
        int("seven")
    except ValueError as error:
        raise RuntimeError("Not a reading.") from error


RANGE = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}

_definitions = dg.Definitions(
    assets=[stations, readings, hottest_and_report, forecast, broken],
    asset_checks=[stations_are_unique],
    jobs=[
        dg.define_asset_job("observe_weather", dg.AssetSelection.all() - dg.AssetSelection.assets(broken)),
        dg.define_asset_job("break_down", [broken]),
    ],
    executor=dg.in_process_executor,
)
observe_weather = _definitions.resolve_job_def("observe_weather")
break_down = _definitions.resolve_job_def("break_down")
