"""What a span costs inside a step, beside one of OpenTelemetry's SDK alone, in the same process.

Nobody waits for the observer here: the spans go to Dagster's event log.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks import processes
from benchmarks.results import Result, Value
from ledgerline.dagster.tracing import OTelResource
from ledgerline.traces.step_tracing import SPANS_PER_ATTEMPT, provider_for

OURS, SDK = "otel.span", "OpenTelemetry SDK"


@dataclass(frozen=True)
class Size:
    """How much is measured: so many spans of each kind in each of so many steps."""

    spans: int
    steps: int


FULL = Size(spans=1000, steps=20)
QUICK = Size(spans=200, steps=3)


class Discarding(SpanExporter):
    """Takes spans and does nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Nothing."""
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""


@dataclass
class Taken:
    """Seconds per span, for each step."""

    in_step: list[float] = field(default_factory=list)
    with_flush: list[float] = field(default_factory=list)


def measure(folder: Path, size: Size) -> list[Result]:
    """One table: ours and the SDK's."""
    assert size.spans <= SPANS_PER_ATTEMPT  # those after would cost less
    provider = TracerProvider()
    processor = BatchSpanProcessor(Discarding())
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    taken = {OURS: Taken(), SDK: Taken()}

    def of_sdk() -> AbstractContextManager[object]:
        return tracer.start_as_current_span(
            "load",
            attributes={
                "table": "flights",
                "rows": 336_776,
                "share": 0.25,
                "fresh": True,
                "day": "2013-07-31",
            },
        )

    @dg.op(ins={"start": dg.In(dg.Nothing)})
    def step(context: dg.OpExecutionContext, otel: OTelResource) -> None:
        def of_ours() -> AbstractContextManager[object]:
            return otel.span("load", table="flights", rows=336_776, share=0.25, fresh=True, day="2013-07-31")

        def write() -> None:
            provider_for(otel.telemetry).finish(context.run_id)

        _measure_one(taken[SDK], of_sdk, processor.force_flush, size.spans)
        _measure_one(taken[OURS], of_ours, write, size.spans)

    @dg.job(resource_defs={"otel": OTelResource()})
    def tracing() -> None:
        before = step.alias("step_0")()
        for number in range(1, size.steps):
            before = step.alias(f"step_{number}")(start=before)

    home = processes.new_home(folder / "spans")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        tracing.execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
    provider.shutdown()
    return [_result(taken, size)]


def _measure_one(
    taken: Taken,
    open_span: Callable[[], AbstractContextManager[object]],
    flush: Callable[[], object],
    spans: int,
) -> None:
    started = time.perf_counter()
    for _ in range(spans):
        with open_span():
            pass
    ended = time.perf_counter()
    flush()
    taken.in_step.append((ended - started) / spans)
    taken.with_flush.append((time.perf_counter() - started) / spans)


def _result(taken: dict[str, Taken], size: Size) -> Result:
    rows: list[Sequence[Value]] = []
    base = statistics.median(taken[SDK].in_step)
    for name, seconds in taken.items():
        in_step, with_flush = statistics.median(seconds.in_step), statistics.median(seconds.with_flush)
        rows.append((name, in_step * 1e6, in_step / base, with_flush * 1e6))
    return Result(
        "spans",
        f"A span with 5 attributes: medians of {size.steps} steps of {size.spans:,} spans",
        ("what", "µs per span", "x SDK", "µs until all is written"),
        rows,
        (
            "SDK: a BatchSpanProcessor that exports to nowhere. Ours writes to the event log, in batches.",
            "Goal: 60 µs per span.",
        ),
    )
