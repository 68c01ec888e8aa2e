"""Jobs whose runs leave all kinds of events. They are executed in conftest.py."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef

from tests.observability.local_processes import local_processes

EXIT_CODE = 3
TO_BE_DELIVERED_SECONDS = 60.0

DAYS = dg.StaticPartitionsDefinition(["monday", "tuesday", "wednesday"])
ONCE_MORE = dg.RetryPolicy(max_retries=1)

# Executors

forked_processes = dg.multiprocess_executor.configured(
    {
        "max_concurrent": 2,
        "start_method": {
            "forkserver": {
                "preload_modules": [
                    __name__,
                    "dagster._core.instance.factory",
                    "dagster._core.storage.sqlite_storage",
                    "dagster._core.storage.local_compute_log_manager",
                ]
            }
        },
    },
    name="multiprocess",
)


# Resources and IO managers


class Unreachable(dg.ConfigurableResource):
    address: str = "127.0.0.1"

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        raise ConnectionError("nobody answers")


class Memory(dg.IOManager):
    """Keeps what it is given; one value for all partitions of a step."""

    def __init__(self) -> None:
        self._values: dict[dg.AssetKey, Any] = {}

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        self._values[context.asset_key] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        return self._values[context.asset_key]


class Unreadable(Memory):
    def load_input(self, context: dg.InputContext) -> Any:
        raise FileNotFoundError("planes.parquet is gone")


class Unwritable(Memory):
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("The rows were not written.") from error


# Plain ops


@dg.op
def fetch(context: dg.OpExecutionContext) -> list[int]:
    context.log.info("Fetching")
    rows = [1, 2, 3]
    context.log.warning("Fetched %d rows", len(rows))
    return rows


@dg.op
def count(context: dg.OpExecutionContext, rows: list[int]) -> int:
    context.log.debug("Counting")
    return len(rows)


@dg.job(executor_def=dg.in_process_executor)
def counting() -> None:
    count(fetch())


@dg.job(executor_def=dg.in_process_executor)
def fetching() -> None:
    fetch()


# Dynamic and mapped steps, in a graph


@dg.op(out=dg.DynamicOut(int))
def split() -> Iterator[dg.DynamicOutput[int]]:
    for number, name in enumerate(("east", "west")):
        yield dg.DynamicOutput(number, mapping_key=name)


@dg.op
def double(number: int) -> int:
    return 2 * number


@dg.graph
def doubled(number: int) -> int:
    return double(number)


@dg.op
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dg.job(executor_def=dg.in_process_executor)
def mapping() -> None:
    total(split().map(doubled).collect())


# The same elsewhere, where the first step fails once


@dg.op(out=dg.DynamicOut(int), retry_policy=ONCE_MORE)
def split_at_last(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[int]]:
    if context.retry_number == 0:
        raise ConnectionError("nobody answers")
    for number, name in enumerate(("east", "west")):
        yield dg.DynamicOutput(number, mapping_key=name)


@dg.job(executor_def=local_processes)
def delegating() -> None:
    split_at_last().map(doubled)


# Assets that read each other, in processes of their own


@dg.asset(code_version="1")
def planes(context: dg.AssetExecutionContext) -> list[int]:
    context.add_output_metadata({"dagster/row_count": 3_322})
    return [1, 2]


@dg.asset(code_version="2", retry_policy=ONCE_MORE)
def airlines(context: dg.AssetExecutionContext) -> list[int]:
    if context.retry_number == 0:
        os._exit(EXIT_CODE)
    return [3]


@dg.asset(deps=["airlines"])
def fleet(planes: list[int]) -> int:
    return len(planes)


def fleet_job() -> dg.JobDefinition:
    return dg.Definitions(
        [planes, airlines, fleet],
        jobs=[dg.define_asset_job("fleet_job", executor_def=forked_processes)],
    ).resolve_job_def("fleet_job")


@dg.op(retry_policy=ONCE_MORE)
def crash() -> None:
    os._exit(EXIT_CODE)


@dg.job(executor_def=forked_processes)
def crashing() -> None:
    crash()


# Resources that cannot be had


@dg.op
def ask(service: Unreachable) -> int:
    return 1


@dg.job(executor_def=dg.in_process_executor, resource_defs={"service": Unreachable()})
def asking() -> None:
    ask()


@dg.job(executor_def=dg.in_process_executor, resource_defs={"service": Unreachable()})
def asking_twice() -> None:
    ask.alias("ask_first")()
    ask.alias("ask_second")()


@dg.job(executor_def=forked_processes, resource_defs={"service": Unreachable()})
def asking_in_a_process() -> None:
    ask()


# Errors


@dg.op
def chained() -> None:
    try:
        try:
            raise KeyError("tailnum")
        except KeyError as error:
            raise ValueError("row 7 has no plane") from error
    except ValueError as error:
        raise RuntimeError("The features were not made.") from error


@dg.op
def during_another() -> None:
    try:
        raise KeyError("tailnum")
    except KeyError:
        raise ValueError("row 7 has no plane")  # noqa: B904  (the missing cause is tested)


@dg.op
def without_a_message() -> None:
    raise NotImplementedError


@dg.op
def on_purpose() -> None:
    raise dg.Failure("The flights of today: none.")


@dg.job(executor_def=dg.in_process_executor)
def failing() -> None:
    chained()
    during_another()
    without_a_message()
    on_purpose()


# Retries


@dg.op(retry_policy=ONCE_MORE)
def fail_once(context: dg.OpExecutionContext) -> None:
    if context.retry_number == 0:
        raise ConnectionError("nobody answers")


@dg.op
def ask_for_a_retry(context: dg.OpExecutionContext) -> None:
    try:
        if context.retry_number == 0:
            raise TimeoutError("10 s are over")
    except TimeoutError as error:
        raise dg.RetryRequested(max_retries=1) from error


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
def fail_always() -> None:
    try:
        raise OSError("no route")
    except OSError as error:
        raise ConnectionError("nobody answers") from error


@dg.job(executor_def=dg.in_process_executor)
def retrying() -> None:
    fail_once()
    ask_for_a_retry()
    fail_always()


# Steps that are skipped


@dg.op(out={"late": dg.Out(int, is_required=False), "early": dg.Out(int, is_required=False)})
def sort_flights() -> Iterator[dg.Output[int]]:
    yield dg.Output(5, "late")


@dg.op
def excuse(flights: int) -> int:
    return flights


@dg.op
def praise(flights: int) -> int:
    return flights


@dg.op
def publish(flights: int) -> None: ...


@dg.job(executor_def=dg.in_process_executor)
def sorting() -> None:
    late, early = sort_flights()
    excuse(late)
    publish(praise(early))


# Assets of several outputs


@dg.multi_asset(
    specs=[dg.AssetSpec(name, skippable=True) for name in ("departures", "arrivals", "diversions")],
    can_subset=True,
)
def movements(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    for rows, key in enumerate(sorted(context.selected_asset_keys)):
        yield dg.MaterializeResult(asset_key=key, metadata={"dagster/row_count": rows})


@dg.multi_asset(outs={"first_half": dg.AssetOut(), "second_half": dg.AssetOut()})
def halves() -> Iterator[dg.Output[int]]:
    yield dg.Output(1, "first_half")
    raise ValueError("the second half is missing")


@dg.op
def read_planes() -> list[int]:
    return [1, 2, 3]


@dg.op
def oldest(planes: list[int]) -> int:
    return max(planes)


@dg.graph_asset
def oldest_plane() -> int:
    return oldest(read_planes())


@dg.asset(ins={"oldest_plane": dg.AssetIn()})
def retired(oldest_plane: int) -> int:
    return oldest_plane


# Checks


@dg.asset(check_specs=[dg.AssetCheckSpec("has_rows", asset="checked")])
def checked() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        check_results=[dg.AssetCheckResult(check_name="has_rows", passed=True, description="3 rows")]
    )


@dg.asset_check(asset=checked)
def plausible_values() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=checked, blocking=True)
def unique_key() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="2 rows share a key")


@dg.asset(deps=[checked])
def after_checked() -> None: ...


# Partitions


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def flights(context: dg.AssetExecutionContext) -> int:
    schema = dg.TableSchema([dg.TableColumn("tailnum", "string")])
    for rows, day in enumerate(context.partition_keys, start=100):
        context.log.info("Writing %s", day)
        context.add_asset_metadata(
            {"dagster/partition_row_count": rows, "content_sha256": f"digest of {day}"}, partition_key=day
        )
    context.add_output_metadata({"dagster/column_schema": schema})
    return 1


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def delays(context: dg.AssetExecutionContext, flights: int, weather: int) -> int:
    lineage = {"delay": [dg.TableColumnDep(dg.AssetKey("flights"), "tailnum")]}
    context.add_output_metadata({"dagster/column_lineage": dg.TableColumnLineage(lineage)})
    context.log_event(dg.AssetObservation("runways", partition="JFK", metadata={"open": 4}))
    context.log.info("Observed the runways")
    return 2


@dg.asset
def weather() -> dg.Output[int]:
    return dg.Output(1, data_version=dg.DataVersion("weather of 2013"))


@dg.observable_source_asset
def tower() -> dg.DataVersion:
    return dg.DataVersion("open")


# Runs that are interrupted


@dg.op(ins={"start": dg.In(dg.Nothing)})
def afterwards() -> None: ...


@dg.op(config_schema={"process": int})
def cancel_the_run(context: dg.OpExecutionContext) -> None:
    """Terminate the run as the UI does: the run is marked, and its process gets a signal."""
    run = context.instance.get_run_by_id(context.run_id)
    assert run is not None
    context.instance.report_run_canceling(run)
    os.kill(context.op_config["process"], signal.SIGINT)
    # A signal to this process arrives here; one to its parent is passed on.
    threading.Event().wait(TO_BE_DELIVERED_SECONDS)


@dg.job(executor_def=dg.in_process_executor)
def canceling() -> None:
    afterwards(cancel_the_run())


@dg.job(executor_def=forked_processes)
def canceling_a_process() -> None:
    cancel_the_run()


@dg.op
def die() -> None:
    os._exit(EXIT_CODE)


@dg.job(executor_def=dg.in_process_executor)
def dying() -> None:
    afterwards(die())


def execute(instance_ref: InstanceRef, run_id: str) -> None:
    """Execute a run; called in a new process."""
    with dg.DagsterInstance.from_ref(instance_ref) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        execute_run(dg.reconstructable(dying), run, instance)
