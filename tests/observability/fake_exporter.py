"""A fake exporter of spans, and projections that export to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ledgerline.ledger.history import RunHistory
from ledgerline.ledger.links import Links
from ledgerline.ledger.projection import Backfill
from ledgerline.traces.projection import TraceProjection
from ledgerline.traces.telemetry import Telemetry

TARGET = "http://collector.example:4318"
LINKS = Links(dagster="http://dagster.example")
BACKFILL = Backfill("abcdefgh", 1_357_000_000.0, 1_357_000_100.0, "COMPLETED_SUCCESS", "all of January")


@dataclass
class FakeExporter(SpanExporter):
    """An exporter that accepts spans, unless it has other answers.

    Attributes:
        answers: Results or errors for the next batches.
        batches: The accepted batches.
    """

    answers: list[SpanExportResult | Exception] = field(default_factory=list)
    batches: list[Sequence[ReadableSpan]] = field(default_factory=list)
    opened: int = 0

    def open(self) -> "FakeExporter":
        self.opened += 1
        return self

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        if answer is SpanExportResult.SUCCESS:
            self.batches.append(list(spans))
        return answer

    @property
    def spans(self) -> list[ReadableSpan]:
        return [span for batch in self.batches for span in batch]


def projection_to(exporter: FakeExporter, telemetry: Telemetry | None = None) -> TraceProjection:
    return TraceProjection(
        TARGET,
        exporter.open,
        telemetry or Telemetry(),
        LINKS,
        lambda run_id: f"http://mlflow.example/{run_id}",
    )


Export = Callable[[TraceProjection, RunHistory], int]
