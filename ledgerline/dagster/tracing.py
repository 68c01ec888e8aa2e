"""OpenTelemetry as a resource: spans inside steps. How whole runs become traces: projections.py."""

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
    """Traces what happens inside a step, under the step's own span.

    Libraries that trace themselves through OpenTelemetry nest there too. A step never talks to a collector:
    its spans go to Dagster's event log, and the observer sends them on, as it does with the run's own.
    """

    disabled: bool = Field(
        default=False, description="Whether nothing is traced (OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none)."
    )
    endpoint: str | None = Field(
        default=None,
        description="URL that traces are sent to, with /v1/traces for HTTP (OTEL_EXPORTER_OTLP_ENDPOINT). "
        "Default: to MLflow.",
    )
    protocol: str = Field(
        default=HTTP,
        description="http/protobuf or grpc (OTEL_EXPORTER_OTLP_PROTOCOL).",
    )
    ratio: float = Field(
        default=1.0,
        description="Share of traces that is kept, 0 to 1 (OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG).",
    )
    keeps_failed_runs: bool = Field(
        default=False,
        description="Whether the traces of failed runs are kept besides (LEDGERLINE_KEEP_FAILED_RUNS).",
    )
    slow_run_seconds: float | None = Field(
        default=None,
        description="Seconds that a run takes at least whose trace is kept besides "
        "(LEDGERLINE_KEEP_RUNS_OVER_SECONDS). Default: the time does not count.",
    )

    _provider: "StepTracerProvider | None" = PrivateAttr(default=None)
    _tracer: "Tracer | None" = PrivateAttr(default=None)

    def span(self, name: str, /, **attributes: "AttributeValue") -> "AbstractContextManager[Span]":
        """Trace a part of the step; outside of a run nothing is recorded.

        Args:
            name: What goes on.
            attributes: Details, by name; for names with dots: `**{"a.b": 1}`.
        """
        if self._tracer is None:
            self._tracer = self._opened().get_tracer(TRACER)
        return self._tracer.start_as_current_span(name, attributes=attributes)

    def tracer(self, name: str = TRACER) -> "Tracer":
        """OpenTelemetry's own interface, for what traces itself: its spans belong to the step, too."""
        return self._opened().get_tracer(name)

    def environment(self) -> Mapping[str, str]:
        """Variables for a process that the step starts, so that its own spans continue the trace.

        `TRACEPARENT` holds the W3C trace context, as OpenTelemetry's tools read it. Empty outside of a run,
        and where the trace is not kept.
        """
        return {name.upper(): value for name, value in self.trace_context().items()}

    def trace_context(self) -> Mapping[str, str]:
        """The same for what takes headers or extras, Dagster Pipes among them: `traceparent`."""
        step = self._opened().current_step()
        return {"traceparent": step.traceparent} if step is not None else {}

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Let libraries that trace themselves find the step's tracer."""
        if context.run is not None and not self.disabled:
            self._opened()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Write what was traced to the event log."""
        if context.run is not None and self._provider is not None:
            self._provider.finish(context.run.run_id)

    @property
    def telemetry(self) -> Telemetry:
        """The settings, for modules that know no Dagster resources."""
        settings = {field.name: getattr(self, field.name) for field in fields(Telemetry)}
        return Telemetry(**settings)

    def _opened(self) -> "StepTracerProvider":
        if self._provider is None:
            from ledgerline.traces.step_tracing import provider_for

            self._provider = provider_for(self.telemetry)
        return self._provider
