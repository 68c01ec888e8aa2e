"""Sends the spans of a process that is no step, and what an outage means there. Of steps: step_tracing.py."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import NoOpTracer, Tracer

from ledgerline.traces import telemetry
from ledgerline.traces.deliveries import Delivery
from ledgerline.traces.mlflow_traces import MLflowSpanExporter
from ledgerline.traces.span_bounds import Bounds
from ledgerline.traces.telemetry import Telemetry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

# An outage of the target must not keep anything waiting for longer.
EXPORT_SECONDS = 5.0
LAST_EXPORT_SECONDS = 20.0  # where the first export is the last: it opens a client, and maybe a database

logger = logging.getLogger(__name__)


@dataclass
class QuietExporter(SpanExporter):
    """Says once that traces cannot be sent, and once that they can be again.

    Attributes:
        open_exporter: Makes the exporter; asked when there is something to send.
    """

    open_exporter: Callable[[], SpanExporter]
    _delivery: Delivery = field(init=False)
    _works: bool = field(default=True, init=False)
    _ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._delivery = Delivery(
            "The target of traces", self.open_exporter, Bounds.of(telemetry.span_limits())
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or lose them."""
        if self._ended:
            return SpanExportResult.FAILURE
        try:
            self._delivery.send(spans)
        except Exception as error:  # noqa: BLE001 (whatever an exporter raises: answers go on)
            self._say(works=False, why=str(error))
            return SpanExportResult.FAILURE
        self._say(works=True)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """End the exporter, also while it is at work: it tries again no more."""
        ended, self._ended = self._ended, True
        if not ended:
            self._delivery.shutdown()

    def _say(self, *, works: bool, why: str = "") -> None:
        if works != self._works:
            logger.warning("Traces are sent again.") if works else logger.warning(
                "Traces cannot be sent: %s", why
            )
        self._works = works


class KeptTraces(Sampler):
    """Keeps or drops a trace by its id, as the variables say."""

    def __init__(self, keeps: Callable[[int], bool]) -> None:
        self._keeps = keeps

    def should_sample(  # noqa: PLR0917 (as OpenTelemetry has it)
        self,
        parent_context: "Context | None",
        trace_id: int,
        name: str,
        kind: "SpanKind | None" = None,
        attributes: "Attributes" = None,
        links: "Sequence[Link] | None" = None,
        trace_state: "TraceState | None" = None,
    ) -> SamplingResult:
        """Whether a trace is kept."""
        decision = Decision.RECORD_AND_SAMPLE if self._keeps(trace_id) else Decision.DROP
        return SamplingResult(decision, attributes, trace_state)

    def get_description(self) -> str:
        """For whoever looks at the provider."""
        return "KeptTraces"


@contextmanager
def tracer_until_sent(
    settings: Telemetry, open_experiment: "Callable[[], tuple[MlflowClient, str]]", name: str
) -> Iterator[Tracer]:
    """A tracer for one piece of work; at its end, what was traced is sent, or given up after some seconds."""
    exporter = exporter_for(settings, open_experiment)
    if exporter is None:
        yield NoOpTracer()
        return
    provider = TracerProvider(KeptTraces(settings.keeps), telemetry.resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer(name)
    finally:
        end(provider, exporter, LAST_EXPORT_SECONDS)


def end(provider: TracerProvider, exporter: SpanExporter | None, seconds: float = EXPORT_SECONDS) -> None:
    """Send what is left, for some seconds, and end."""
    # By itself this takes as long as the exporter tries again: OpenTelemetry has no limit here.
    ending = threading.Thread(target=provider.shutdown, name="end of traces", daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive() and exporter is not None:
        exporter.shutdown()
        ending.join(1)


def exporter_for(
    settings: Telemetry, open_experiment: "Callable[[], tuple[MlflowClient, str]]"
) -> SpanExporter | None:
    """Where traces go: what the variables say, or else to MLflow; None if there are to be none.

    Args:
        settings: What the variables say.
        open_experiment: Opens a client and names the experiment's id; asked when there is something to send.
    """
    if settings.disabled:
        return None
    if settings.endpoint is not None:
        return QuietExporter(lambda: telemetry.otlp_exporter(settings))
    return QuietExporter(lambda: MLflowSpanExporter(open_experiment))
