"""Sends spans to a receiver in requests of limited size, and splits requests that the receiver rejects."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.traces import attributes as names
from ledgerline.traces.otlp_responses import ExportFailedError, SpansRejectedError, WrongTargetError
from ledgerline.traces.span_bounds import Bounds

REQUEST_SPANS = 512  # the batch size of OpenTelemetry
REQUEST_BYTES = 3_000_000  # gRPC servers accept 4 MiB by default
REMEMBERED = 10_000  # maximum number of rejected spans

logger = logging.getLogger(__name__)


@dataclass
class Delivery:
    """Sends spans to one target.

    A rejected request is split in half until the rejected span is found. This span is sent without its
    attributes, events and links. If the target accepts that, the span is the cause, and a warning names it.
    If not, the target is the cause, and the export fails.

    Attributes:
        target: Address of the target without a password, for messages.
        open_exporter: Function that opens the exporter; called at the first export.
    """

    target: str
    open_exporter: Callable[[], SpanExporter]
    bounds: Bounds = field(default_factory=Bounds)
    _exporter: SpanExporter | None = field(default=None, init=False)
    _incomplete: set[tuple[int, int]] = field(default_factory=set, init=False)

    def send(self, spans: Iterable[ReadableSpan]) -> int:
        """Send spans; return their number.

        Raises:
            ExportFailedError: The target did not accept all of them.
            Exception: An error of the exporter; the next export opens a new one.
        """
        sent = 0
        for request in self.bounds.portions(spans, max_bytes=REQUEST_BYTES, max_spans=REQUEST_SPANS):
            self._send(request)
            sent += len(request)
        return sent

    def shutdown(self) -> None:
        """Shut down the exporter, which ends its retries."""
        if self._exporter is not None:
            self._exporter.shutdown()

    def _send(self, request: list[ReadableSpan]) -> None:
        try:
            self._export(request)
        except SpansRejectedError as refusal:
            if len(request) == 1:
                self._send_incomplete(request[0], refusal)
                return
            middle = len(request) // 2
            self._send(request[:middle])
            self._send(request[middle:])

    def _send_incomplete(self, span: ReadableSpan, refusal: SpansRejectedError) -> None:
        try:
            self._export([_bare(span)])
        except SpansRejectedError as error:
            raise WrongTargetError(str(refusal)) from error
        try:
            # A second attempt shows whether the span is the cause, or whether the target was only
            # temporarily unable to store it.
            self._export([span])
        except SpansRejectedError as error:
            self._warn(span, error)

    def _export(self, request: list[ReadableSpan]) -> None:
        try:
            if self._exporter is None:
                self._exporter = self.open_exporter()
            result = self._exporter.export(request)
        except ExportFailedError:
            raise
        except Exception:
            self._exporter = None
            raise
        if result is not SpanExportResult.SUCCESS:
            raise ExportFailedError("the log has the reason")

    def _warn(self, span: ReadableSpan, refusal: SpansRejectedError) -> None:
        context = span.context
        if context is None or (context.trace_id, context.span_id) in self._incomplete:
            return
        if len(self._incomplete) < REMEMBERED:
            self._incomplete.add((context.trace_id, context.span_id))
        logger.warning(
            "%s does not accept the span %r of the trace %032x: %s. The span is exported without its "
            "attributes, events and links.",
            self.target,
            span.name,
            context.trace_id,
            refusal,
        )


def _bare(span: ReadableSpan) -> ReadableSpan:
    """Return the span without attributes, events, links and the description of its status."""
    return ReadableSpan(
        name=span.name[:100],
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={names.CUT: ["all attributes, events and links, which were rejected"]},
        kind=span.kind,
        status=type(span.status)(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
