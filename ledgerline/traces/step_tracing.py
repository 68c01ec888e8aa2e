"""Traces code inside a step: spans get the step as parent, and are written to Dagster's event log.

The parent is read from Dagster's context variable whenever a span starts. Nothing has to be propagated to a
step with any executor, and no state remains for the next run in the same process. The event log stores
the spans until the observer exports them, so a step never waits for a collector.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import dagster as dg
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, Span, SpanContext, Tracer

from ledgerline.ledger import ids
from ledgerline.ledger.dagster_internals import EngineEventData, current_execution_context
from ledgerline.ledger.event_log import ATTEMPT_METADATA, SPANS_METADATA
from ledgerline.ledger.history import COMPUTE
from ledgerline.traces import attributes as names
from ledgerline.traces import step_spans
from ledgerline.traces.span_bounds import Bounds
from ledgerline.traces.step_spans import SAMPLED
from ledgerline.traces.telemetry import Telemetry, span_limits

SPANS_PER_ATTEMPT = 2000  # further spans are dropped, because the event log cannot store millions
WRITE_EVERY_MS = 2000
SPANS_AT_ONCE = 512  # maximum number in one event
EVENT_BYTES = 2_000_000  # maximum size of one event
QUEUE_SIZE = 2 * SPANS_PER_ATTEMPT  # for two attempts in one process


class StepTracerProvider(trace.TracerProvider):
    """Provides tracers whose spans belong to the step that starts them. Outside of steps they do nothing."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._steps = _Steps(telemetry)
        limits = span_limits()
        # The sampling of the trace is decided before a span is started.
        self._provider = TracerProvider(ALWAYS_ON, Resource.get_empty(), span_limits=limits)
        # All settings are passed, because an invalid environment variable would otherwise fail the step.
        self._processor = BatchSpanProcessor(
            _EventLogExporter(self._steps, Bounds.of(limits)),
            max_queue_size=QUEUE_SIZE,
            schedule_delay_millis=WRITE_EVERY_MS,
            max_export_batch_size=SPANS_AT_ONCE,
            export_timeout_millis=0,  # not used
        )
        self._provider.add_span_processor(self._processor)

    def get_tracer(self, instrumenting_module_name: str, *args: Any, **kwargs: Any) -> Tracer:
        """Return a tracer, as OpenTelemetry's API requires."""
        return _StepTracer(self._provider.get_tracer(instrumenting_module_name, *args, **kwargs), self._steps)

    def current_step(self) -> "Step | None":
        """Return the current step; None outside of steps, and if the trace is not sampled."""
        return self._steps.current(trace.get_current_span())

    def finish(self, run_id: str) -> None:
        """Write all ended spans to the event log, and remove the steps of a run from memory."""
        self._processor.force_flush()
        self._steps.forget(run_id)


@dataclass
class Step:
    """An attempt at a step of a run.

    Attributes:
        attempt: Number of the attempt, counted from 1.
        attributes: Attributes of each of its spans: the run, the step and the attempt.
        parent: Span of its computation, which the observer exports.
        started: Number of its recorded spans. They are counted at their start, because outer spans end last
            and must not be dropped.
        reported_limit: True if it is in the event log that further spans were dropped.
    """

    run_id: str
    job: str
    key: str
    attempt: int
    instance: dg.DagsterInstance
    attributes: dict[str, str | int]
    parent: Span
    trace_id: int
    started: int = 0
    reported_limit: bool = False

    @classmethod
    def of(cls, context: dg.OpExecutionContext) -> Self:
        """Return the step of an execution context."""
        execution = context.get_step_execution_context()
        run_id, key, attempt = execution.run_id, execution.step.key, execution.previous_attempt_count + 1
        trace_id = ids.trace_id(run_id)
        span_id = ids.phase_span_id(run_id, key, attempt, COMPUTE)
        parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=SAMPLED)
        return cls(
            run_id=run_id,
            job=execution.job_name,
            key=key,
            attempt=attempt,
            instance=context.instance,
            attributes={names.RUN_ID: run_id, names.STEP: key, names.ATTEMPT: attempt},
            parent=NonRecordingSpan(parent),
            trace_id=trace_id,
        )

    @property
    def traceparent(self) -> str:
        """The W3C trace context of the current span, or else of the step."""
        context = trace.get_current_span().get_span_context()
        if context.trace_id != self.trace_id:
            context = self.parent.get_span_context()
        return f"00-{self.trace_id:032x}-{context.span_id:016x}-01"


class _Steps:
    """The steps of this process, which may run one after the other or concurrently."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._known: dict[tuple[str, str, int], Step] = {}
        self._of_spans: dict[int, Step] = {}  # by the id of each span that is not written yet
        self._latest: tuple[object, Step | None] = (None, None)

    def current(self, around: Span) -> Step | None:
        """Return the current step; in a thread without Dagster's context, that of the enclosing span."""
        context = current_execution_context.get()
        if context is None:
            return self.of(around)
        latest, step = self._latest
        if latest is not context:  # For each further span of a step, this is one comparison.
            step = Step.of(context.op_execution_context)
            is_kept = self._telemetry.may_keep(step.trace_id)
            step = self._known.setdefault((step.run_id, step.key, step.attempt), step) if is_kept else None
            self._latest = context, step
        return step

    def of(self, span: Span) -> Step | None:
        """Return the step that started a span."""
        return self._of_spans.get(span.get_span_context().span_id)

    def add(self, span: Span, step: Step) -> None:
        self._of_spans[span.get_span_context().span_id] = step

    def remove(self, span: ReadableSpan) -> Step | None:
        """Remove a span, and return the step that started it."""
        return self._of_spans.pop(span.context.span_id, None) if span.context is not None else None

    def forget(self, run_id: str) -> None:
        # Copying to a list is atomic, so that other threads can change the dictionaries during the iteration.
        self._known = {key: step for key, step in list(self._known.items()) if step.run_id != run_id}
        self._of_spans = {span: step for span, step in list(self._of_spans.items()) if step.run_id != run_id}
        self._latest = None, None


class _StepTracer(Tracer):
    def __init__(self, tracer: Tracer, steps: _Steps) -> None:
        self._tracer = tracer
        self._steps = steps

    def start_span(self, name: str, context: Context | None = None, *args: Any, **kwargs: Any) -> Span:
        around = trace.get_current_span(context)
        step = self._steps.current(around)
        if step is None:
            return _NO_TRACER.start_span(name, context)  # It keeps the trace of the context.
        if around.get_span_context().trace_id != step.trace_id or self._steps.of(around) not in (step, None):
            # The enclosing span belongs to another trace, or an earlier step left it open.
            around = step.parent
        if step.started >= SPANS_PER_ATTEMPT:
            return NonRecordingSpan(around.get_span_context())
        step.started += 1
        span = self._tracer.start_span(name, trace.set_span_in_context(around, context), *args, **kwargs)
        span.set_attributes(step.attributes)
        self._steps.add(span, step)
        return span

    # This method of OpenTelemetry calls `start_span`.
    start_as_current_span = SdkTracer.start_as_current_span


class _EventLogExporter(SpanExporter):
    """Writes spans to the event logs of their runs, with one engine event for each batch of a step."""

    def __init__(self, steps: _Steps, bounds: Bounds) -> None:
        self._steps = steps
        self._bounds = bounds

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        by_step: dict[int, tuple[Step, list[ReadableSpan]]] = {}
        for span in spans:
            step = self._steps.remove(span)
            if step is not None:
                by_step.setdefault(id(step), (step, []))[1].append(span)
        for step, ended in by_step.values():
            for event in self._bounds.portions(ended, max_bytes=EVENT_BYTES, max_spans=SPANS_AT_ONCE):
                self._write(step, event)
        return SpanExportResult.SUCCESS

    def _write(self, step: Step, spans: Sequence[ReadableSpan]) -> None:
        message = f"{step.key} recorded {len(spans)} spans."
        if step.started >= SPANS_PER_ATTEMPT and not step.reported_limit:
            message += f" Further spans are dropped: the limit is {SPANS_PER_ATTEMPT} for one attempt."
            step.reported_limit = True
        metadata = {
            SPANS_METADATA: dg.MetadataValue.json(step_spans.encode(spans)),
            ATTEMPT_METADATA: dg.MetadataValue.int(step.attempt),
        }
        step.instance.report_engine_event(
            message,
            engine_event_data=EngineEventData(metadata),
            step_key=step.key,
            job_name=step.job,
            run_id=step.run_id,
        )

    def shutdown(self) -> None:
        """Do nothing, because there is nothing to close."""


_NO_TRACER = NoOpTracer()
_providers: dict[Telemetry, StepTracerProvider] = {}
_lock = threading.Lock()


def provider_for(telemetry: Telemetry) -> StepTracerProvider:
    """Return the provider of this process. The first one becomes the global provider if none is set.

    Instrumented libraries use the global provider, so their spans nest under the right step.
    """
    with _lock:
        if telemetry not in _providers:
            _providers[telemetry] = StepTracerProvider(telemetry)
            if not _is_taken():
                trace.set_tracer_provider(_providers[telemetry])
        return _providers[telemetry]


def _is_taken() -> bool:
    """Return whether this process has set a global tracer provider."""
    try:
        return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    except Exception:  # noqa: BLE001 (OTEL_PYTHON_TRACER_PROVIDER cannot be loaded, which is logged)
        return False
