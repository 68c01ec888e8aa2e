"""Sends the spans of a process that is no step, and what an outage means there. Of steps: step_tracing.py."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observability import telemetry
from observability.mlflow_traces import MLflowSpanExporter
from observability.telemetry import Telemetry

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


@dataclass
class QuietExporter(SpanExporter):
    """Says once that traces cannot be sent, and once that they can be again.

    Attributes:
        open_exporter: Makes the exporter; asked when there is something to send.
    """

    open_exporter: Callable[[], SpanExporter]
    _exporter: SpanExporter | None = field(default=None, init=False)
    _works: bool = field(default=True, init=False)
    _ended: bool = field(default=False, init=False)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or lose them."""
        if self._ended:
            return SpanExportResult.FAILURE
        try:
            if self._exporter is None:
                self._exporter = self.open_exporter()
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 (whatever an exporter raises: answers go on)
            self._exporter = None
            self._say(works=False, why=str(error))
            return SpanExportResult.FAILURE
        self._say(works=result is SpanExportResult.SUCCESS, why="their target does not take them.")
        return result

    def shutdown(self) -> None:
        """End the exporter, also while it is at work: it tries again no more."""
        ended, self._ended = self._ended, True
        if self._exporter is not None and not ended:
            self._exporter.shutdown()

    def _say(self, *, works: bool, why: str) -> None:
        if works != self._works:
            logger.warning("Traces are sent again.") if works else logger.warning(
                "Traces cannot be sent: %s", why
            )
        self._works = works


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
