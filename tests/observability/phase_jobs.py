"""Steps that compute, store and wait in every order that Dagster allows. Their runs: timed_runs.py."""

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg

EXIT_CODE = 3
ONCE_MORE = dg.RetryPolicy(max_retries=1)


class Stored(dg.IOManager):
    """Keeps what it is given; `broken` outputs cannot be stored, nor inputs of that name loaded."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if context.name == "broken":
            raise OSError(28, "No space left on device")
        if context.name == "on_purpose":
            raise dg.Failure("The disk is full.")
        if context.name == "once_more":
            raise dg.RetryRequested(max_retries=0)
        self._values[context.name] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        assert context.upstream_output is not None
        if context.upstream_output.name == "unreadable":
            raise FileNotFoundError("The table is gone.")
        return self._values[context.upstream_output.name]


# Several outputs


@dg.op(out={"first": dg.Out(int), "second": dg.Out(int)})
def yield_both() -> Iterator[dg.Output[int]]:
    yield dg.Output(1, "first")
    yield dg.Output(2, "second")


@dg.op(out={"first": dg.Out(int), "second": dg.Out(int)})
def return_both() -> tuple[int, int]:
    return 1, 2


@dg.op(out={"nothing": dg.Out(dg.Nothing), "first": dg.Out(int), "more": dg.Out(dg.Nothing)})
def yield_nothing_between() -> Iterator[dg.Output[Any]]:
    yield dg.Output(None, "nothing")
    yield dg.Output(1, "first")
    yield dg.Output(None, "more")


@dg.op(out=dg.DynamicOut(int))
def fan_out() -> Iterator[dg.DynamicOutput[int]]:
    for number, name in enumerate(("east", "west")):
        yield dg.DynamicOutput(number, mapping_key=name)


@dg.op
def fan_in(numbers: list[int], other: int) -> None: ...


@dg.op(out={"first": dg.Out(int), "second": dg.Out(int)})
def fail_between() -> Iterator[dg.Output[int]]:
    yield dg.Output(1, "first")
    raise ValueError("The second half is missing.")


@dg.op(out={"nothing": dg.Out(dg.Nothing), "second": dg.Out(int)})
def fail_after_nothing() -> Iterator[dg.Output[Any]]:
    yield dg.Output(None, "nothing")
    raise ValueError("The second half is missing.")


@dg.op(out={"first": dg.Out(int)})
def yield_another_type() -> Iterator[dg.Output[Any]]:
    yield dg.Output("one", "first")


@dg.job(executor_def=dg.in_process_executor)
def outputs() -> None:
    first, _ = yield_both()
    return_both()
    yield_nothing_between()
    fan_in(fan_out().collect(), first)
    fail_between()
    fail_after_nothing()
    yield_another_type()


# Storing and loading that fails


@dg.op(out={"broken": dg.Out(int)})
def store_badly() -> int:
    return 1


@dg.op(out={"broken": dg.Out(int)}, retry_policy=ONCE_MORE)
def store_badly_twice() -> int:
    return 1


@dg.op(out={"on_purpose": dg.Out(int)})
def store_and_fail_on_purpose() -> int:
    return 1


@dg.op(out={"once_more": dg.Out(int)})
def store_and_ask_for_a_retry() -> int:
    return 1


@dg.op(out={"unreadable": dg.Out(int)})
def make() -> int:
    return 1


@dg.op(retry_policy=ONCE_MORE)
def load_badly_twice(table: int) -> None: ...


@dg.job(
    executor_def=dg.in_process_executor,
    resource_defs={"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(Stored())},
)
def io_failures() -> None:
    store_badly()
    store_badly_twice()
    store_and_fail_on_purpose()
    store_and_ask_for_a_retry()
    load_badly_twice(make())


# Assets


@dg.multi_asset(
    specs=[dg.AssetSpec("departures"), dg.AssetSpec("arrivals")],
    check_specs=[dg.AssetCheckSpec("has_rows", asset="departures")],
)
def movements() -> Iterator[Any]:
    yield dg.MaterializeResult(asset_key="departures")
    yield dg.AssetCheckResult(passed=True, asset_key="departures", check_name="has_rows")
    yield dg.MaterializeResult(asset_key="arrivals")


@dg.asset
def seats() -> Iterator[dg.Output[int]]:
    yield dg.Output(1)


# Processes that die while they store


class Deadly(dg.IOManager):
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        os._exit(EXIT_CODE)

    def load_input(self, context: dg.InputContext) -> Any: ...


@dg.op
def store_and_die() -> int:
    return 1


@dg.job(
    executor_def=dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}}),
    resource_defs={"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(Deadly())},
)
def dying() -> None:
    store_and_die()


# Hooks


@dg.success_hook
def celebrate(context: dg.HookContext) -> None: ...


@dg.failure_hook
def mourn(context: dg.HookContext) -> None: ...


@dg.success_hook
def stumble(context: dg.HookContext) -> None:
    raise ConnectionError("The pager does not answer.")


@dg.op(retry_policy=ONCE_MORE)
def fail_once(context: dg.OpExecutionContext) -> None:
    if context.retry_number == 0:
        raise ConnectionError("The source does not answer.")


@dg.op
def succeed() -> None: ...


@dg.job(executor_def=dg.in_process_executor, hooks={celebrate, mourn, stumble})
def hooked() -> None:
    succeed()
    fail_once()


# Pools

POOL = "database"
OTHER_RUN, OTHER_STEP = "another run", "its step"


@dg.op(pool=POOL, tags={"dagster/priority": "1"})
def query() -> None: ...


@dg.op
def let_go(context: dg.OpExecutionContext) -> None:
    """Gives back the place that another run has in the pool."""
    context.instance.event_log_storage.free_concurrency_slot_for_step(OTHER_RUN, OTHER_STEP)


@dg.job(executor_def=dg.in_process_executor)
def querying() -> None:
    query()
    let_go()
