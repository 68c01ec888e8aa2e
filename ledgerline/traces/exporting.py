"""Exports the spans of processes that are not steps, such as the service. step_tracing.py is for steps."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import NoOpTracer, Tracer

from ledgerline.traces import telemetry
from ledgerline.traces.deliveries import Delivery
from ledgerline.traces.mlflow_traces import MLflowSpanExporter
from ledgerline.traces.span_bounds import Bounds
from ledgerline.traces.telemetry import Telemetry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from opentelemetry.context import Context

# An outage of the target delays the end of the process by at most this time.
EXPORT_SECONDS = 5.0
LAST_EXPORT_SECONDS = 20.0  # if the only export is the last, which opens a client and perhaps a database

logger = logging.getLogger(__name__)


@dataclass
class QuietExporter(SpanExporter):
    """Exports spans, and logs the beginning and the end of each outage of the target.

    Attributes:
        open_exporter: Function that opens the exporter; called at the first export.
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
        """Send spans. If that fails, they are lost."""
        if self._ended:
            return SpanExportResult.FAILURE
        try:
            self._delivery.send(spans)
        except Exception as error:  # noqa: BLE001 (exporters raise any error, and the service continues)
            self._log(works=False, why=str(error))
            return SpanExportResult.FAILURE
        self._log(works=True)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Shut down the exporter, which ends its retries."""
        ended, self._ended = self._ended, True
        if not ended:
            self._delivery.shutdown()

    def _log(self, *, works: bool, why: str = "") -> None:
        if works != self._works:
            logger.warning("Traces are sent again." if works else f"Traces cannot be sent: {why}")
        self._works = works


class KeptTraces(Sampler):
    """Samples a trace by its id."""

    def __init__(self, keeps: Callable[[int], bool]) -> None:
        self._keeps = keeps

    def should_sample(
        self, parent_context: "Context | None", trace_id: int, name: str, *args: Any, **kwargs: Any
    ) -> SamplingResult:
        """Return whether a trace is recorded."""
        decided = ALWAYS_ON if self._keeps(trace_id) else ALWAYS_OFF
        return decided.should_sample(parent_context, trace_id, name, *args, **kwargs)

    def get_description(self) -> str:
        """Return the name of the sampler."""
        return "KeptTraces"


@contextmanager
def tracer_until_sent(
    settings: Telemetry, open_experiment: "Callable[[], tuple[MlflowClient, str]]", name: str
) -> Iterator[Tracer]:
    """Yield a tracer, and send its spans at the end of the block, or drop them if that takes too long."""
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
    """Shut down a provider, after at most this many seconds for sending its remaining spans."""
    # OpenTelemetry has no limit here, so its shutdown takes as long as the exporter retries.
    ending = threading.Thread(target=provider.shutdown, name="end of traces", daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive() and exporter is not None:
        exporter.shutdown()
        ending.join(1)


def exporter_for(
    settings: Telemetry, open_experiment: "Callable[[], tuple[MlflowClient, str]]"
) -> SpanExporter | None:
    """Return an exporter to the endpoint of the settings, or else to MLflow; None if tracing is disabled.

    The first export to MLflow calls `open_experiment`, which returns a client and the id of the experiment.
    """
    if settings.disabled:
        return None
    if settings.endpoint is not None:
        return QuietExporter(lambda: telemetry.otlp_exporter(settings))
    return QuietExporter(lambda: MLflowSpanExporter(open_experiment))
