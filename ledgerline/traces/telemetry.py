"""Reads the settings of traces, such as endpoint and sampling, from OpenTelemetry's OTEL_* variables.

Reading the variables never raises an error: an invalid value is ignored with a warning, as OpenTelemetry's
specification requires. Only opening an exporter over gRPC may fail.
"""

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ledgerline.ledger import ids
from ledgerline.settings.shared import TraceVariables

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.trace.export import SpanExporter

HTTP, GRPC = "http/protobuf", "grpc"
SERVICE = "ledgerline"
LIMIT = 128  # limit for attributes, events and links, as in OpenTelemetry's specification

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Telemetry:
    """The settings of traces.

    Attributes:
        disabled: True if no traces are exported (OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none).
        endpoint: URL of the receiver (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT, to
            which HTTP adds /v1/traces); None if no variable is set.
        protocol: "http/protobuf" or "grpc" (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL).
        ratio: Share of traces that is sampled, from 0 to 1 (OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG).
        keeps_failed_runs: True if the traces of all failed runs are kept (LEDGERLINE_KEEP_FAILED_RUNS).
        slow_run_seconds: Minimum duration of a run whose trace is always kept; None if the duration does not
            matter (LEDGERLINE_KEEP_RUNS_OVER_SECONDS).
    """

    disabled: bool = False
    endpoint: str | None = None
    protocol: str = HTTP
    ratio: float = 1.0
    keeps_failed_runs: bool = False
    slow_run_seconds: float | None = None

    @classmethod
    def of(cls, settings: TraceVariables) -> Self:
        """Return the settings that these variables contain."""
        exporter = (settings.exporter or "").strip().lower()
        if exporter not in ("", "otlp", "none"):
            logger.warning("OTEL_TRACES_EXPORTER is %r; only otlp and none are known. Using otlp.", exporter)
        protocol = settings.traces_protocol or settings.protocol or HTTP
        if protocol not in (HTTP, GRPC):
            logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %r; using %s.", protocol, HTTP)
            protocol = HTTP
        endpoint = settings.traces_endpoint or settings.endpoint
        if endpoint and not settings.traces_endpoint and protocol == HTTP:
            endpoint = f"{endpoint.rstrip('/')}/v1/traces"
        return cls(
            disabled=_is_true(settings.sdk_disabled) or exporter == "none",
            endpoint=endpoint,
            protocol=protocol,
            ratio=_ratio(settings),
            keeps_failed_runs=_is_true(settings.keep_failed_runs),
            slow_run_seconds=_number(
                "LEDGERLINE_KEEP_RUNS_OVER_SECONDS",
                settings.keep_runs_over_seconds,
                math.inf,
                "not a number of seconds; it is ignored",
            ),
        )

    def keeps(self, trace_id: int) -> bool:
        """Return whether a trace is sampled regardless of the outcome of the run."""
        return not self.disabled and ids.is_sampled(trace_id, self.ratio)

    def keeps_run(self, *, failed: bool, seconds: float) -> bool:
        """Return whether a trace is kept because of the status or the duration of its run."""
        is_slow = self.slow_run_seconds is not None and seconds >= self.slow_run_seconds
        return not self.disabled and ((failed and self.keeps_failed_runs) or is_slow)

    def may_keep(self, trace_id: int) -> bool:
        """Return whether a trace is sampled, or may be kept at the end of its run."""
        return self.keeps(trace_id) or self.keeps_run(failed=True, seconds=math.inf)


def resource() -> "Resource":
    """Return the OpenTelemetry resource of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES."""
    from opentelemetry.sdk.resources import Resource

    from ledgerline.traces.span_bounds import bounded_resource

    described = Resource.create()  # This reads both variables.
    if str(described.attributes.get("service.name", "")).startswith("unknown_service"):
        described = described.merge(Resource({"service.name": SERVICE}))
    return bounded_resource(described)


def span_limits() -> "SpanLimits":
    """Return the limits from OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and similar variables, or the defaults."""
    from opentelemetry.sdk.trace import SpanLimits

    try:
        return SpanLimits()
    except ValueError as error:
        logger.warning("%s; using the default limits of spans.", error)
        return SpanLimits(
            max_attributes=LIMIT,
            max_events=LIMIT,
            max_links=LIMIT,
            max_span_attributes=LIMIT,
            max_event_attributes=LIMIT,
            max_link_attributes=LIMIT,
            max_attribute_length=SpanLimits.UNSET,
            max_span_attribute_length=SpanLimits.UNSET,
        )


def otlp_exporter(telemetry: Telemetry) -> "SpanExporter":
    """Return an exporter to the endpoint. It reads headers, timeouts and certificates from the variables.

    The exporter raises an error for a response that rejects spans (otlp_responses.py).

    Raises:
        Exception: The exporter over gRPC rejects the address, the timeout or the compression.
    """
    if telemetry.protocol == GRPC:
        from ledgerline.traces.otlp_grpc import GrpcExporter

        return GrpcExporter(endpoint=telemetry.endpoint)
    from ledgerline.traces.otlp_http import HttpExporter

    return HttpExporter(telemetry.endpoint)


def _is_true(value: str | None) -> bool:
    return (value or "").strip().lower() == "true"


def _ratio(settings: TraceVariables) -> float:
    # The prefix "parentbased_" makes no difference, because the root span of a run has no parent.
    name = (settings.sampler or "").strip().lower().removeprefix("parentbased_")
    if name == "always_off":
        return 0.0
    if name == "traceidratio":
        problem = "not a number from 0 to 1; keeping all traces"
        ratio = _number("OTEL_TRACES_SAMPLER_ARG", settings.sampler_argument, 1.0, problem)
        return 1.0 if ratio is None else ratio
    if name not in ("", "always_on"):
        logger.warning("OTEL_TRACES_SAMPLER is %r; keeping all traces.", name)
    return 1.0


def _number(variable: str, value: str | None, highest: float, problem: str) -> float | None:
    """Return the value of a variable; None if it is not set, or not a number from 0 on."""
    text = (value or "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if 0.0 <= number <= highest:
        return number
    logger.warning("%s is %r, %s.", variable, text, problem)
    return None
