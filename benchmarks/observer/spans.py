"""Measures the cost of a span inside a step, and of a span of OpenTelemetry's SDK in the same process."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import dagster as dg
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from benchmarks.context import Context, Result
from benchmarks.observer.jobs import QUIET
from benchmarks.observer.observed import new_home
from ledgerline.dagster.tracing import OTelResource
from ledgerline.traces.step_tracing import SPANS_PER_ATTEMPT, provider_for

OURS, SDK = "otel.span", "OpenTelemetry SDK"
ATTRIBUTES = {"table": "flights", "rows": 336_776, "share": 0.25, "fresh": True, "day": "2013-07-31"}


def measure_spans(context: Context) -> list[Result]:
    """Measure both kinds of spans in each step of one run."""
    spans, steps = context.pick((1000, 20), (200, 3))
    assert spans <= SPANS_PER_ATTEMPT  # Further spans would be dropped, at a lower cost.
    provider, processor = TracerProvider(), BatchSpanProcessor(SpanExporter())  # It discards spans.
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    seconds: dict[str, list[tuple[float, float]]] = {OURS: [], SDK: []}

    @dg.op(ins={"start": dg.In(dg.Nothing)})
    def step(context: dg.OpExecutionContext, otel: OTelResource) -> None:
        write = partial(provider_for(otel.telemetry).finish, context.run_id)
        sdk_span = partial(tracer.start_as_current_span, "load", attributes=ATTRIBUTES)
        seconds[SDK].append(_per_span(sdk_span, processor.force_flush, spans))
        seconds[OURS].append(_per_span(partial(otel.span, "load", **ATTRIBUTES), write, spans))

    @dg.job(resource_defs={"otel": OTelResource()})
    def tracing() -> None:
        before = step.alias("step_0")()
        for number in range(1, steps):
            before = step.alias(f"step_{number}")(start=before)

    with dg.DagsterInstance.from_config(str(new_home(context.folder / "home"))) as instance:
        tracing.execute_in_process(instance=instance, run_config=QUIET)
    provider.shutdown()
    medians = {
        name: [statistics.median(column) * 1e6 for column in zip(*taken, strict=True)]
        for name, taken in seconds.items()
    }
    rows = [(name, each[0], each[0] / medians[SDK][0], each[1]) for name, each in medians.items()]
    title = f"A span with 5 attributes: medians of {steps} steps of {spans:,} spans"
    notes = (
        "SDK: a BatchSpanProcessor whose exporter discards spans.",
        "otel.span writes to the event log, in batches.",
        "Goal: 60 µs per span.",
    )
    return [Result(title, ("span", "µs per span", "x SDK", "µs until all is written"), rows, notes)]


def _per_span(
    open_span: Callable[[], AbstractContextManager[object]], flush: Callable[[], object], spans: int
) -> tuple[float, float]:
    """Return the seconds for a span in the step, without and with its share of the time for writing."""
    begun = time.perf_counter()
    for _ in range(spans):
        with open_span():
            pass
    ended = time.perf_counter()
    flush()
    return (ended - begun) / spans, (time.perf_counter() - begun) / spans
