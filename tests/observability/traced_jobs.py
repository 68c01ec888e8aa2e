"""Jobs whose steps trace what they do themselves."""

import dagster as dg

from ledgerline.dagster.tracing import OTelResource


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def read_planes(context: dg.OpExecutionContext, otel: OTelResource) -> int:
    with otel.span("read the table", planes=3_322) as table:
        with otel.span("parse"):
            pass
        if context.retry_number == 0:
            raise ConnectionError("nobody answers")
        table.add_event("read", {"seats": 150})
    return 3_322


@dg.op
def count_seats(otel: OTelResource, planes: int) -> None:
    with otel.span("load seats"):
        pass


@dg.job(executor_def=dg.in_process_executor, resource_defs={"otel": OTelResource()})
def tracing() -> None:
    count_seats(read_planes())
