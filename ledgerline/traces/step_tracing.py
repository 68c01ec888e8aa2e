"""Tracing inside a step: its spans get the step as parent, and go to Dagster's event log.

Who is the parent is asked whenever a span starts, of Dagster's own context variable. So nothing is propagated
to a step, under any executor, and nothing is left behind for the next run in the same process. The event log
keeps the spans safe, and the step from waiting for a collector; the observer sends them on.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import dagster as dg
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, NoOpTracer, Span, SpanContext, SpanKind, Tracer
from opentelemetry.util._decorator import _agnosticcontextmanager
from opentelemetry.util.types import Attributes

from ledgerline.ledger import ids
from ledgerline.ledger.dagster_internals import EngineEventData, current_execution_context
from ledgerline.ledger.event_log import ATTEMPT_METADATA, SPANS_METADATA
from ledgerline.ledger.history import COMPUTE
from ledgerline.traces import attributes as names
from ledgerline.traces import step_spans
from ledgerline.traces.span_bounds import Bounds
from ledgerline.traces.step_spans import SAMPLED
from ledgerline.traces.telemetry import Telemetry, span_limits

SPANS_PER_ATTEMPT = 2000  # further ones are counted, not kept: the event log is no place for millions
WRITE_EVERY_MS = 2000
SPANS_AT_ONCE = 512  # in one event
EVENT_BYTES = 2_000_000  # of one event
WAITING = 2 * SPANS_PER_ATTEMPT  # the next attempt in the same process may begin before the last is written


class StepTracerProvider(trace.TracerProvider):
    """Its tracers' spans belong to the step that starts them; outside of steps they record nothing."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._steps = _Steps(telemetry)
        limits = span_limits()
        # Whether a trace is kept is decided before a span is started.
        self._provider = TracerProvider(ALWAYS_ON, Resource.get_empty(), span_limits=limits)
        # All of its settings: of those that it has to look up, a wrong one would fail the step.
        self._processor = BatchSpanProcessor(
            _EventLogExporter(self._steps, Bounds.of(limits)),
            max_queue_size=WAITING,
            schedule_delay_millis=WRITE_EVERY_MS,
            max_export_batch_size=SPANS_AT_ONCE,
            export_timeout_millis=0,  # not used
        )
        self._provider.add_span_processor(self._processor)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """A tracer, as OpenTelemetry's API asks for it."""
        tracer = self._provider.get_tracer(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        return _StepTracer(tracer, self._steps)

    def current_step(self) -> "Step | None":
        """The step that this is called from; None outside of steps, and where its trace is not kept."""
        return self._steps.current(trace.get_current_span())

    def finish(self, run_id: str) -> None:
        """Write all spans that have ended to the event log, and forget the steps of a run."""
        self._processor.force_flush()
        self._steps.forget(run_id)


@dataclass
class Step:
    """A step of a run, as its spans need it.

    Attributes:
        attributes: What each of its spans says: the run, the step, the attempt.
        parent: The span of its computation, which the observer makes.
        started: How many spans it has started that are kept. Counted at their start: the ones around others
            end last, and must not be those that are too many.
        told: Whether the event log says that there are more.
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
    told: bool = False

    @classmethod
    def of(cls, context: dg.OpExecutionContext) -> Self:
        """The step that an execution context belongs to."""
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
        """The W3C trace context of the span that is open, or else of the step."""
        open_span = trace.get_current_span().get_span_context()
        span_id = open_span.span_id if open_span.trace_id == self.trace_id else self._own_span_id
        return f"00-{self.trace_id:032x}-{span_id:016x}-01"

    @property
    def _own_span_id(self) -> int:
        return self.parent.get_span_context().span_id


class _Steps:
    """The steps of this process: one after the other, or several at once."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._known: dict[tuple[str, str, int], Step] = {}
        self._of_spans: dict[int, Step] = {}  # those that are open, or not written yet
        self._latest: tuple[object, Step | None] = (None, None)

    def current(self, around: Span) -> Step | None:
        """The step under way here; in a thread without Dagster's context, that of the span around."""
        context = current_execution_context.get()
        if context is None:
            return self.of(around)
        latest, step = self._latest
        if latest is not context:  # one comparison for every further span of a step
            step = self._remember(Step.of(context.op_execution_context))
            self._latest = context, step
        return step

    def of(self, span: Span) -> Step | None:
        """The step that started a span."""
        return self._of_spans.get(span.get_span_context().span_id)

    def add(self, span: Span, step: Step) -> None:
        self._of_spans[span.get_span_context().span_id] = step

    def remove(self, span: ReadableSpan) -> Step | None:
        """The step that started a span, which is not asked for again."""
        return self._of_spans.pop(span.context.span_id, None) if span.context is not None else None

    def forget(self, run_id: str) -> None:
        # In lists first, which no other thread interrupts.
        self._known = {key: step for key, step in list(self._known.items()) if step.run_id != run_id}
        self._of_spans = {span: step for span, step in list(self._of_spans.items()) if step.run_id != run_id}
        self._latest = None, None

    def _remember(self, step: Step) -> Step | None:
        if not self._telemetry.may_keep(step.trace_id):
            return None
        return self._known.setdefault((step.run_id, step.key, step.attempt), step)


class _StepTracer(Tracer):
    def __init__(self, tracer: Tracer, steps: _Steps) -> None:
        self._tracer = tracer
        self._steps = steps

    def start_span(  # noqa: PLR0917 (OpenTelemetry's signature)
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        around = trace.get_current_span(context)
        step = self._steps.current(around)
        if step is None:
            return _NOTHING.start_span(name, context)  # whose trace it is stays in the context
        if around.get_span_context().trace_id != step.trace_id or self._steps.of(around) not in (step, None):
            # Somebody else's, or one that an earlier step left open.
            around = step.parent
        if step.started >= SPANS_PER_ATTEMPT:
            return NonRecordingSpan(around.get_span_context())
        step.started += 1
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(around, context),
            kind,
            {**attributes, **step.attributes} if attributes else step.attributes,
            links,
            start_time,
            record_exception,
            set_status_on_exception,
        )
        self._steps.add(span, step)
        return span

    # The context manager around start_span is the same for every tracer of the SDK.
    @_agnosticcontextmanager
    def start_as_current_span(  # noqa: PLR0917
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        span = self.start_span(
            name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )
        with trace.use_span(
            span,
            end_on_exit=end_on_exit,
            record_exception=record_exception,
            set_status_on_exception=set_status_on_exception,
        ):
            yield span


class _EventLogExporter(SpanExporter):
    """Writes spans into the event logs of their runs, an engine event for each batch of a step's."""

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
            for event in self._events(ended):
                self._write(step, event)
        return SpanExportResult.SUCCESS

    def _events(self, spans: Sequence[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
        """Spans in portions that the event log can hold as one event each."""
        event: list[ReadableSpan] = []
        left = EVENT_BYTES
        for span in spans:
            bounded, size = self._bounds.bounded(span)
            if event and size > left:
                yield event
                event, left = [], EVENT_BYTES
            event.append(bounded)
            left -= size
        if event:
            yield event

    def _write(self, step: Step, spans: Sequence[ReadableSpan]) -> None:
        message = f"{step.key} traced {len(spans)} spans of its own."
        if step.started >= SPANS_PER_ATTEMPT and not step.told:
            message += f" Further ones are not kept: {SPANS_PER_ATTEMPT} are the most for one attempt."
            step.told = True
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
        """There is nothing to close."""


_NOTHING = NoOpTracer()
_providers: dict[Telemetry, StepTracerProvider] = {}
_lock = threading.Lock()


def provider_for(telemetry: Telemetry) -> StepTracerProvider:
    """The provider of this process; the first one becomes OpenTelemetry's own, if there is none.

    Libraries that trace themselves ask OpenTelemetry for it, and so nest under the right step.
    """
    with _lock:
        if telemetry not in _providers:
            _providers[telemetry] = StepTracerProvider(telemetry)
            if not _is_taken():
                trace.set_tracer_provider(_providers[telemetry])
        return _providers[telemetry]


def _is_taken() -> bool:
    """Whether OpenTelemetry has a provider of its own in this process."""
    try:
        return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    except Exception:  # noqa: BLE001 (OTEL_PYTHON_TRACER_PROVIDER names one that cannot be loaded: logged)
        return False
