"""Sends spans in requests that a receiver takes, and in pieces what it refuses, by its answers."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.traces import attributes as names
from ledgerline.traces.otlp_answers import NotTakenError, SpansRefusedError, WrongTargetError
from ledgerline.traces.span_bounds import Bounds

REQUEST_SPANS = 512  # as OpenTelemetry's own batches
REQUEST_BYTES = 3_000_000  # gRPC servers take 4 MiB, unless they are told to take more
REMEMBERED = 10_000  # refused spans

logger = logging.getLogger(__name__)


@dataclass
class Delivery:
    """Sends spans to one target.

    A request that is refused is sent in halves, down to the span that the target does not take. That one is
    sent without its attributes, events and links: if this is taken, the span is to blame, and is said once to
    be incomplete; if not, it is the target, and nothing counts as sent.

    Attributes:
        target: What takes the spans, for messages; without a password.
        open_exporter: Makes the exporter; called when there is something to send.
        bounds: How much of everything a span may have.
    """

    target: str
    open_exporter: Callable[[], SpanExporter]
    bounds: Bounds = field(default_factory=Bounds)
    _exporter: SpanExporter | None = field(default=None, init=False)
    _incomplete: set[tuple[int, int]] = field(default_factory=set, init=False)

    def send(self, spans: Iterable[ReadableSpan]) -> int:
        """Send spans; returns how many.

        Raises:
            NotTakenError: The target took not all of them.
            Exception: What the exporter raises; another one is opened for the next spans.
        """
        sent = 0
        for request in self._requests(spans):
            self._send(request)
            sent += len(request)
        return sent

    def shutdown(self) -> None:
        """End the exporter, also while it is at work: it tries again no more."""
        if self._exporter is not None:
            self._exporter.shutdown()

    def _requests(self, spans: Iterable[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
        request: list[ReadableSpan] = []
        left = REQUEST_BYTES
        for span in spans:
            bounded, size = self.bounds.bounded(span)
            if request and (size > left or len(request) == REQUEST_SPANS):
                yield request
                request, left = [], REQUEST_BYTES
            request.append(bounded)
            left -= size
        if request:
            yield request

    def _send(self, request: list[ReadableSpan]) -> None:
        try:
            self._export(request)
        except SpansRefusedError as refusal:
            if len(request) == 1:
                self._send_incomplete(request[0], refusal)
                return
            middle = len(request) // 2
            self._send(request[:middle])
            self._send(request[middle:])

    def _send_incomplete(self, span: ReadableSpan, refusal: SpansRefusedError) -> None:
        try:
            self._export([_bare(span)])
        except SpansRefusedError as error:
            raise WrongTargetError(str(refusal)) from error
        try:
            # A second attempt shows if it was the span: the target may have been out of order for a moment.
            self._export([span])
        except SpansRefusedError as error:
            self._say(span, error)

    def _export(self, request: list[ReadableSpan]) -> None:
        try:
            if self._exporter is None:
                self._exporter = self.open_exporter()
            result = self._exporter.export(request)
        except NotTakenError:
            raise
        except Exception:
            self._exporter = None
            raise
        if result is not SpanExportResult.SUCCESS:
            raise NotTakenError("the log says why")

    def _say(self, span: ReadableSpan, refusal: SpansRefusedError) -> None:
        context = span.context
        if context is None or (context.trace_id, context.span_id) in self._incomplete:
            return
        if len(self._incomplete) < REMEMBERED:
            self._incomplete.add((context.trace_id, context.span_id))
        logger.warning(
            "%s does not take the span %r of the trace %032x: %s. It is shown without its attributes, events "
            "and links.",
            self.target,
            span.name,
            context.trace_id,
            refusal,
        )


def _bare(span: ReadableSpan) -> ReadableSpan:
    """Return the span with little more than its ids, its times and its status."""
    return ReadableSpan(
        name=span.name[:100],
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={names.CUT: ["all attributes, events and links, which were refused"]},
        kind=span.kind,
        status=type(span.status)(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
