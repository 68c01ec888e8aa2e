"""OpenTelemetry as a resource: spans inside steps. projections.py exports whole runs as traces."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from ledgerline.traces.telemetry import HTTP, Telemetry

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from ledgerline.traces.step_tracing import StepTracerProvider

TRACER = "ledgerline.steps"


class OTelResource(dg.ConfigurableResource):
    """Traces parts of a step below the span of the step.

    Spans of libraries that are instrumented with OpenTelemetry are nested there, too. A step never connects
    to a collector: its spans are written to Dagster's event log, and the observer exports them with those of
    the run.

    Example:
        >>> from ledgerline.ledger.event_log import read_history
        >>> @dg.asset
        ... def bread(otel: OTelResource) -> None:
        ...     with otel.span("knead", minutes=12) as span:
        ...         span.add_event("rest")
        >>> with dg.DagsterInstance.ephemeral() as instance:
        ...     result = dg.materialize([bread], instance=instance, resources={"otel": OTelResource()})
        ...     history = read_history(instance, result.run_id)
        >>> [span["name"] for recorded in history.recorded_spans for span in recorded.encoded]
        ['knead']
    """

    disabled: bool = Field(
        default=False,
        description="True if no traces are made (OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none).",
    )
    endpoint: str | None = Field(
        default=None,
        description="URL that traces are sent to, with /v1/traces for HTTP (OTEL_EXPORTER_OTLP_ENDPOINT). "
        "Default: traces are stored in MLflow.",
    )
    protocol: str = Field(
        default=HTTP,
        description="http/protobuf or grpc (OTEL_EXPORTER_OTLP_PROTOCOL).",
    )
    ratio: float = Field(
        default=1.0,
        description="Share of traces that is sampled, 0 to 1 (OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG).",
    )
    keeps_failed_runs: bool = Field(
        default=False,
        description="True if the traces of all failed runs are kept (LEDGERLINE_KEEP_FAILED_RUNS).",
    )
    slow_run_seconds: float | None = Field(
        default=None,
        description="Minimum duration in seconds of a run whose trace is always kept "
        "(LEDGERLINE_KEEP_RUNS_OVER_SECONDS). Default: the duration does not matter.",
    )

    _provider: "StepTracerProvider | None" = PrivateAttr(default=None)
    _tracer: "Tracer | None" = PrivateAttr(default=None)

    def span(self, name: str, /, **attributes: "AttributeValue") -> "AbstractContextManager[Span]":
        """Return a context manager that traces a part of the step. Outside of a run it records nothing.

        Args:
            name: Name of the span.
            attributes: Attributes of the span; for names with dots, use `**{"a.b": 1}`.
        """
        if self._tracer is None:
            self._tracer = self._opened().get_tracer(TRACER)
        return self._tracer.start_as_current_span(name, attributes=attributes)

    def tracer(self, name: str = TRACER) -> "Tracer":
        """Return a tracer of OpenTelemetry's API; its spans also belong to the step."""
        return self._opened().get_tracer(name)

    def environment(self) -> Mapping[str, str]:
        """Return environment variables for a process that the step starts, so that it continues the trace.

        `TRACEPARENT` contains the W3C trace context, as OpenTelemetry's tools read it. The mapping is empty
        outside of a run, and if the trace is not sampled.
        """
        return {name.upper(): value for name, value in self.trace_context().items()}

    def trace_context(self) -> Mapping[str, str]:
        """Return the W3C trace context as `traceparent`, for headers and for the extras of Dagster Pipes."""
        step = self._opened().current_step()
        return {"traceparent": step.traceparent} if step is not None else {}

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Set the global tracer provider that instrumented libraries use."""
        if context.run is not None and not self.disabled:
            self._opened()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Write the ended spans to the event log."""
        if context.run is not None and self._provider is not None:
            self._provider.finish(context.run.run_id)

    @property
    def telemetry(self) -> Telemetry:
        """The settings of traces, as a dataclass that does not depend on Dagster."""
        settings = {field.name: getattr(self, field.name) for field in fields(Telemetry)}
        return Telemetry(**settings)

    def _opened(self) -> "StepTracerProvider":
        if self._provider is None:
            from ledgerline.traces.step_tracing import provider_for

            self._provider = provider_for(self.telemetry)
        return self._provider
