"""Assets that record their number of written rows in every way that Dagster has for it."""

from collections.abc import Iterator

import dagster as dg

DAYS = dg.StaticPartitionsDefinition(["d1", "d2", "d3", "d4"])
WEEKS = dg.MultiPartitionsDefinition(
    {"day": dg.StaticPartitionsDefinition(["d1", "d2"]), "town": dg.StaticPartitionsDefinition(["x", "y"])}
)
SINGLE_RUN = dg.BackfillPolicy.single_run()
FOUR_DAYS = {"dagster/asset_partition_range_start": "d1", "dagster/asset_partition_range_end": "d4"}
ONE_DAY = {"dagster/asset_partition_range_start": "d2", "dagster/asset_partition_range_end": "d2"}
A_BLOCK = {"dagster/asset_partition_range_start": "d1|x", "dagster/asset_partition_range_end": "d2|y"}


class CountsItsOutput(dg.IOManager):
    """An I/O manager that counts as those of DuckDB and Snowflake do."""

    def handle_output(self, context: dg.OutputContext, obj: list[int]) -> None:
        name = "dagster/partition_row_count" if context.has_partition_key else "dagster/row_count"
        context.add_output_metadata({name: len(obj)})

    def load_input(self, context: dg.InputContext) -> None: ...


class LogsItsOwn(dg.IOManager):
    """An I/O manager that records a second materialisation beside Dagster's."""

    def handle_output(  # pyright: ignore[reportIncompatibleMethodOverride] (Dagster takes generators)
        self, context: dg.OutputContext, obj: list[int]
    ) -> Iterator[dg.AssetMaterialization]:
        yield dg.AssetMaterialization(context.asset_key, metadata={"dagster/row_count": len(obj)})

    def load_input(self, context: dg.InputContext) -> None: ...


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def returned_once() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 40})


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN, io_manager_def=CountsItsOutput())
def stored_once() -> list[int]:
    return [7] * 40


@dg.asset(partitions_def=WEEKS, backfill_policy=SINGLE_RUN)
def block() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 40})


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def empty() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 0})


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def counted_by_partition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    for rows, day in enumerate(context.partition_keys, start=1):
        context.add_asset_metadata({"dagster/partition_row_count": rows}, partition_key=day)
    return dg.MaterializeResult(metadata={"dagster/row_count": 10})


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def table_counts_by_partition(context: dg.AssetExecutionContext) -> None:
    for rows, day in enumerate(context.partition_keys, start=1):
        context.add_asset_metadata({"dagster/row_count": rows}, partition_key=day)


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def counted_in_part(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    for day in context.partition_keys[:2]:
        context.add_asset_metadata({"dagster/partition_row_count": 10}, partition_key=day)
    return dg.MaterializeResult(metadata={"dagster/row_count": 40})


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def half_counted(context: dg.AssetExecutionContext) -> None:
    for day in context.partition_keys[:2]:
        context.add_asset_metadata({"dagster/partition_row_count": 10}, partition_key=day)


@dg.asset(partitions_def=DAYS, backfill_policy=SINGLE_RUN)
def logged_by_partition(context: dg.AssetExecutionContext) -> None:
    for rows, day in enumerate(context.partition_keys, start=1):
        metadata = {"dagster/row_count": rows}
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=day, metadata=metadata))


@dg.asset
def logged_and_returned(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    context.log_event(dg.AssetMaterialization(context.asset_key, metadata={"dagster/row_count": 5}))
    return dg.MaterializeResult(metadata={"dagster/row_count": 5})


@dg.asset(io_manager_def=LogsItsOwn())
def logged_by_io_manager() -> list[int]:
    return [7] * 5


@dg.asset
def float_count() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 5.0})


@dg.asset
def no_count() -> Iterator[dg.MaterializeResult]:
    yield dg.MaterializeResult(metadata={"dagster/row_count": True})


@dg.asset
def negative_count() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": -1})


@dg.asset
def huge_count() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 2**63})


@dg.multi_asset(
    outs={"first": dg.AssetOut(), "second": dg.AssetOut()}, retry_policy=dg.RetryPolicy(max_retries=1)
)
def retried(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    yield dg.Output(None, "first", metadata={"dagster/row_count": 5 + context.retry_number})
    if context.retry_number == 0:
        raise ConnectionError("The second is not there yet.")
    yield dg.Output(None, "second", metadata={"dagster/row_count": 3})


@dg.op(out=dg.DynamicOut(str))
def each_day() -> Iterator[dg.DynamicOutput[str]]:
    for day in DAYS.get_partition_keys():
        yield dg.DynamicOutput(day, mapping_key=day)


@dg.op
def log_day(context: dg.OpExecutionContext, day: str) -> None:
    for rows in (1, 10):  # a partition that is written twice
        metadata = {"dagster/row_count": rows}
        tags = {"dagster/data_version": "v"}
        context.log_event(dg.AssetMaterialization("mapped", partition=day, metadata=metadata, tags=tags))


@dg.job(executor_def=dg.in_process_executor)
def mapped() -> None:
    each_day().map(log_day)


@dg.op(ins={"after": dg.In(dg.Nothing)})
def log_first_day(context: dg.OpExecutionContext) -> None:
    metadata = {"dagster/row_count": 7}
    tags = {"dagster/data_version": "v"}
    context.log_event(dg.AssetMaterialization("mapped", partition="d1", metadata=metadata, tags=tags))


@dg.job(executor_def=dg.in_process_executor)
def mapped_then_mended() -> None:
    log_first_day(after=each_day().map(log_day).collect())
