"""Creates OpenTelemetry spans from a RunHistory, with the ids of ids.py. projection.py exports them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import error_attributes, exception_attributes
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ledgerline.ledger import ids
from ledgerline.ledger.given_by_users import (
    MAX_NUMBERS,
    attribute_number,
    numbers_by_name,
    owners_of_written,
    user_tags,
)
from ledgerline.ledger.history import Attempt, Error, HookOutcome, Outcome, RunHistory, RunStatus
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill
from ledgerline.ledger.reads import version_of_content
from ledgerline.ledger.written import row_count
from ledgerline.traces import attributes as names
from ledgerline.traces import step_spans
from ledgerline.traces.step_spans import span_context

SCOPE = InstrumentationScope("ledgerline")

LISTED = 100  # partitions or versions in one attribute; those of long backfills exceed the limits of backends

Attributes = dict[str, AttributeValue | None]


def run_spans(
    now: RunHistory, before: RunHistory | None, resource: Resource, links: Links, mlflow_page: str | None
) -> Iterator[ReadableSpan]:
    """Yield the spans that were completed since an earlier history of the run, or all spans without one.

    The root span is the last one.
    """
    trace = _Trace(now, resource)
    for attempt in now.ended_since(before):
        yield from trace.attempt(attempt)
    exported = len(before.recorded_spans) if before is not None else 0
    yield from trace.recorded(exported)
    # The root is exported again if the history changes after the end, for example by a lost process.
    if now.finished and (before is None or _ending(before) != _ending(now)):
        yield from trace.waits()
        if now.run.backfill_id is not None:
            yield trace.in_backfill(now.run.backfill_id)
        yield trace.root(links, mlflow_page)


def backfill_span(backfill: Backfill, resource: Resource) -> ReadableSpan:
    """Return the root span of a backfill's trace; the spans of its runs are its children."""
    backfill_id = backfill.backfill_id
    attributes: Attributes = {
        names.BACKFILL: backfill_id,
        names.SPAN_TYPE: names.WORKFLOW,
        names.BACKFILL_STATUS: backfill.status,
        names.BACKFILL_FAILED_RUNS: backfill.failed_runs or None,
        names.TITLE: backfill.title,
    }
    return ReadableSpan(
        name=f"backfill {backfill_id}",
        context=span_context(ids.backfill_trace_id(backfill_id), ids.backfill_span_id(backfill_id)),
        resource=resource,
        attributes=_present(attributes),
        instrumentation_scope=SCOPE,
        status=_ERROR if backfill.failed else _OK,
        start_time=_nanoseconds(backfill.started),
        end_time=_nanoseconds(max(backfill.started, backfill.ended)),
    )


@dataclass
class _Trace:
    history: RunHistory
    resource: Resource
    trace_id: int = field(init=False)
    root_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.trace_id = ids.trace_id(self.history.run.run_id)
        self.root_id = ids.run_span_id(self.history.run.run_id)

    def attempt(self, attempt: Attempt) -> Iterator[ReadableSpan]:
        run_id, step, number = self.history.run.run_id, attempt.step, attempt.number
        own_id = ids.attempt_span_id(run_id, step, number)
        for phase in attempt.phases:
            yield self._span(
                phase.name,
                ids.phase_span_id(run_id, step, number, phase.name),
                own_id,
                times=(phase.started, phase.ended),
                attributes={names.STEP: step, names.ATTEMPT: number},
                status=_ERROR if phase.failed else _OK,
            )
        yield from self.hooks(attempt)
        links = []
        if number > 1:
            previous = ids.attempt_span_id(run_id, step, number - 1)
            links.append(_link(span_context(self.trace_id, previous), "previous attempt"))
        error = self.history.error_of(attempt)
        ended = attempt.ended or attempt.started
        yield self._span(
            step,
            own_id,
            self.root_id,
            times=(attempt.started, ended),
            attributes=_attempt_attributes(attempt, run_id),
            status=_status_of(error),
            events=[*_check_events(attempt), *_exceptions(ended, error)],
            links=links,
        )

    def hooks(self, attempt: Attempt) -> Iterator[ReadableSpan]:
        """Yield a span for each executed hook. Its parent is the run, because the step has ended."""
        for number, hook in enumerate(attempt.hooks, start=1):
            if hook.outcome is HookOutcome.SKIPPED:
                continue
            error = hook.error
            yield self._span(
                f"hook {hook.name}".strip(),
                ids.hook_span_id(self.history.run.run_id, attempt.step, attempt.number, number),
                self.root_id,
                times=(hook.started, hook.ended),
                attributes={
                    names.STEP: attempt.step,
                    names.ATTEMPT: attempt.number,
                    error_attributes.ERROR_TYPE: error.type if error is not None else None,
                },
                status=_status_of(error),
                events=_exceptions(hook.ended, error),
            )

    def recorded(self, exported: int) -> Iterator[ReadableSpan]:
        """Yield the spans from inside steps, without the first `exported` batches."""
        behind = {(attempt.step, attempt.number): attempt.clock_behind for attempt in self.history.attempts}
        for spans in self.history.recorded_spans[exported:]:
            later = _nanoseconds(behind.get((spans.step, spans.attempt), 0.0))
            yield from step_spans.decode(spans.encoded, self.trace_id, self.resource, later)

    def waits(self) -> Iterator[ReadableSpan]:
        run_id = self.history.run.run_id
        for phase in (*self.history.waits, *self.history.phases):
            span_id = ids.run_phase_span_id(run_id, phase.name)
            status, times = _ERROR if phase.failed else _OK, (phase.started, phase.ended)
            yield self._span(phase.name, span_id, self.root_id, times=times, attributes={}, status=status)

    def root(self, links: Links, mlflow_page: str | None) -> ReadableSpan:
        started, ended = self._times()
        run = self.history.run
        others: dict[str, SpanContext | None] = {}
        if run.parent_run_id is not None:
            trace_id, span_id = ids.trace_id(run.parent_run_id), ids.run_span_id(run.parent_run_id)
            others["parent run"] = span_context(trace_id, span_id)
        if run.backfill_id is not None:
            span_id = ids.backfill_run_span_id(run.backfill_id, run.run_id)
            others["backfill"] = span_context(ids.backfill_trace_id(run.backfill_id), span_id)
        others["caller"] = caller_of(run.traceparent)
        status, events = self._status(ended)
        resumed = [Event("run resumed", timestamp=_nanoseconds(time)) for time in self.history.resumptions]
        return self._span(
            f"run {self.history.title}",
            self.root_id,
            None,
            times=(started, ended),
            attributes={
                **self._run_attributes(),
                names.RUN_URL: links.run_page(run.run_id),
                names.MLFLOW_URL: mlflow_page,
                names.SPAN_TYPE: names.WORKFLOW,
                names.INPUTS: self.history.title,
                names.OUTPUTS: self._outcome(),
            },
            status=status,
            events=[*resumed, *events],
            links=[_link(context, kind) for kind, context in others.items() if context is not None],
        )

    def in_backfill(self, backfill_id: str) -> ReadableSpan:
        """Return the span of this run in the trace of its backfill."""
        started, ended = self._times()
        status, events = self._status(ended)
        return self._span(
            f"run {self.history.title}",
            ids.backfill_run_span_id(backfill_id, self.history.run.run_id),
            ids.backfill_span_id(backfill_id),
            trace_id=ids.backfill_trace_id(backfill_id),
            times=(started, ended),
            attributes={**self._run_attributes(), names.SPAN_TYPE: names.TASK},
            status=status,
            events=events,
            links=[_link(span_context(self.trace_id, self.root_id), "run")],
        )

    def _times(self) -> tuple[float, float]:
        """Return the start and end of the run's span: the creation of the run and its last event."""
        history = self.history
        attempts = history.attempts
        known = [time for time in (history.run.created, history.enqueued, history.started) if time]
        started = min([*known, *(attempt.started for attempt in attempts)])
        ended = max(
            [
                history.ended or started,
                *(attempt.ended or started for attempt in attempts),
                *(hook.ended for attempt in attempts for hook in attempt.hooks),
            ]
        )
        return started, ended

    def _status(self, ended: float) -> tuple[Status, Sequence[Event]]:
        error = self.history.error
        if self.history.status is RunStatus.SUCCESS:
            return _OK, []
        if error is None:
            return _ERROR, []
        lost = [each.error for each in self.history.attempts if each.outcome in _LOST and each.error]
        # The error of the run may only name the failed steps. The first of their errors contains the reason.
        reasons = [each for each in lost[:1] if (each.type, each.message) != (error.type, error.message)]
        return _status_of(error), _exceptions(ended, error, *reasons)

    def _outcome(self) -> str:
        """Return a short description of the outcome, which MLflow lists beside the trace."""
        history = self.history
        if history.error is not None:
            failed = [attempt.step for attempt in history.attempts if attempt.outcome in _LOST]
            return f"{history.status.value}: {', '.join(failed) or history.error.message}"
        written = len({(each.asset, each.partition) for each in history.materialisations})
        steps = len({attempt.step for attempt in history.attempts})
        return f"{history.status.value}: {steps} steps, {written} materialisations"

    def _run_attributes(self) -> Attributes:
        run = self.history.run
        return {
            names.RUN_ID: run.run_id,
            names.RUN_STATUS: self.history.status.value,
            names.ROOT_RUN_ID: run.root_run_id,
            names.PARENT_RUN_ID: run.parent_run_id,
            names.JOB: run.job,
            names.PARTITION: run.partition,
            names.BACKFILL: run.backfill_id,
            names.SCHEDULE: run.schedule,
            names.SENSOR: run.sensor,
            names.CODE_LOCATION: run.code_location,
            **{names.USER_TAG.format(name): value for name, value in user_tags(run.tags).items()},
            names.SKIPPED: self.history.skipped[:LISTED],
            names.OWNERS: _listed(owners_of_written(self.history)),
            names.ASSETS: tuple(dict.fromkeys(written.asset for written in self.history.materialisations)),
            **({error_attributes.ERROR_TYPE: self.history.error.type} if self.history.error else {}),
        }

    def _span(
        self,
        name: str,
        span_id: int,
        parent_id: int | None,
        *,
        times: tuple[float, float],
        attributes: Attributes,
        status: Status,
        events: Sequence[Event] = (),
        links: Sequence[Link] = (),
        trace_id: int | None = None,
    ) -> ReadableSpan:
        trace_id = trace_id or self.trace_id
        return ReadableSpan(
            name=name,
            context=span_context(trace_id, span_id),
            parent=span_context(trace_id, parent_id) if parent_id is not None else None,
            resource=self.resource,
            attributes=_present(attributes),
            events=events,
            links=links,
            instrumentation_scope=SCOPE,
            status=status,
            start_time=_nanoseconds(times[0]),
            end_time=_nanoseconds(times[1]),
        )


def caller_of(traceparent: str | None) -> SpanContext | None:
    """Return the context in a W3C `traceparent`; None if it is missing or invalid."""
    if not traceparent:
        return None
    carrier = {"traceparent": traceparent}
    context = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    return context if context.is_valid else None


def _ending(history: RunHistory) -> tuple[object, ...]:
    return history.status, history.ended, history.attempts


def _attempt_attributes(attempt: Attempt, run_id: str) -> Attributes:
    written = [part for parts in attempt.written.values() for part in parts]
    counts = [rows for rows in map(row_count, attempt.written.values()) if rows is not None]
    checks = attempt.checks
    # Dagster records the run id as the code version of assets without a code version.
    code_versions = [each.code_version for each in written if each.code_version != run_id]
    return {
        names.STEP: attempt.step,
        names.ATTEMPT: attempt.number,
        names.OUTCOME: attempt.outcome.value,
        names.OP: attempt.op,
        names.PID: attempt.pid,
        names.CLOCK_BEHIND: attempt.clock_behind or None,
        names.SPAN_TYPE: names.TASK,
        names.ASSETS: tuple(dict.fromkeys(each.asset for each in written)),
        names.PARTITIONS: _listed(dict.fromkeys(each.partition for each in written if each.partition)),
        names.DATA_VERSIONS: _versions(
            (each.asset, version_of_content(each.data_version, each.is_of_code, run_id)) for each in written
        ),
        names.READ_VERSIONS: _versions(
            (read.asset, source.version) for read in attempt.reads for source in read.sources
        ),
        names.READ_CAVEATS: _listed(f"{read.asset}: {read.caveat}" for read in attempt.reads if read.caveat),
        names.CODE_VERSION: next(filter(None, code_versions), None),
        names.ROWS: sum(counts) if counts else None,
        **_numbers(attempt),
        names.CHECKS_PASSED: sum(check.passed for check in checks) if checks else None,
        names.CHECKS_FAILED: sum(not check.passed for check in checks) if checks else None,
        **({error_attributes.ERROR_TYPE: attempt.error.type} if attempt.error is not None else {}),
    }


def _numbers(attempt: Attempt) -> Attributes:
    """Return the numbers in the metadata of outputs, those of the last partition if partitions differ."""
    numbers: Attributes = {}
    for asset, parts in attempt.written.items():
        for name, given in numbers_by_name(parts):
            numbers[names.NUMBER.format(f"{asset}/{name}")] = attribute_number(given[-1][1])
            if len(numbers) == MAX_NUMBERS:
                return numbers
    return numbers


def _versions(pairs: Iterable[tuple[str, str | None]]) -> tuple[str, ...]:
    return _listed(dict.fromkeys(f"{asset}={version}" for asset, version in pairs if version))


def _listed(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(islice(texts, LISTED))


def _check_events(attempt: Attempt) -> list[Event]:
    return [
        Event(
            "asset check",
            _present(
                {
                    names.ASSET: check.asset,
                    names.CHECK: check.name,
                    names.CHECK_PASSED: check.passed,
                    names.CHECK_SEVERITY: check.severity,
                    "description": check.description,
                    **{names.NUMBER.format(name): attribute_number(n) for name, n in check.numbers.items()},
                }
            ),
            timestamp=_nanoseconds(check.time),
        )
        for check in attempt.checks
    ]


def _exceptions(time: float, *errors: Error | None) -> list[Event]:
    """Return exception events by OpenTelemetry's conventions, with the causes after the stack trace."""
    return [
        Event(
            "exception",
            {
                exception_attributes.EXCEPTION_TYPE: error.type,
                exception_attributes.EXCEPTION_MESSAGE: error.message,
                exception_attributes.EXCEPTION_STACKTRACE: "\n".join(error.stacks).strip(),
            },
            timestamp=_nanoseconds(time),
        )
        for error in errors
        if error is not None
    ]


def _status_of(error: Error | None) -> Status:
    return Status(StatusCode.ERROR, error.message or error.type) if error is not None else _OK


def _link(context: SpanContext, kind: str) -> Link:
    return Link(context, {names.LINK: kind})


def _present(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None and value != ()}


def _nanoseconds(seconds: float) -> int:
    # A float of this size has a precision of a quarter of a microsecond.
    return round(seconds * 1e6) * 1000


_OK, _ERROR = Status(StatusCode.OK), Status(StatusCode.ERROR)
_LOST = (Outcome.FAILURE, Outcome.INTERRUPTED)
