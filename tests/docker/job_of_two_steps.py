"""A job whose steps are pods. Each of them imports this module."""

import dagster as dg

from ledgerline.dagster.executors import executor_for


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def fails_once(context: dg.OpExecutionContext) -> int:
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1)
    return 2


@dg.op
def follower(number: int) -> int:
    return number + 1


@dg.job(executor_def=executor_for("kubernetes", 2, 1))
def two_steps() -> None:
    follower(fails_once())
