"""Creates a span for each request, in the caller's trace, with a link to the trace of the training run."""

import time
from collections.abc import Callable, Mapping, Sequence

from mlflow import MlflowClient
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from ledgerline.cleaning.texts import clean, shortened
from ledgerline.ledger import ids
from ledgerline.mlflow_store import store
from ledgerline.serving.batcher import Prediction
from ledgerline.serving.loaded import LoadedModel
from ledgerline.traces import attributes, exporting, telemetry
from ledgerline.traces.telemetry import Telemetry

EXPERIMENT = "serving"  # the MLflow experiment of the traces, unless OTEL variables name another target
TRACEPARENT = "traceparent"
METHOD = "http.request.method"
MAX_PATH_LENGTH = 1000  # characters

# Interval of the exports. An outage of the target must delay neither responses nor the end of the process.
SCHEDULE_MILLISECONDS = 1000

_propagator = TraceContextTextMapPropagator()


class SomePerSecond(Sampler):
    """Samples traces of predictions by their ids, and no more than a maximum number in a second.

    A service answers hundreds of requests in a second; MLflow could not store a trace for each.

    Args:
        keeps: Function that returns whether a trace is sampled, by its id.
        per_second: Maximum number of traces in a second.
    """

    def __init__(self, keeps: Callable[[int], bool], per_second: float) -> None:
        self._keeps = keeps
        self._per_second = per_second
        self._allowance = per_second
        self._at = time.monotonic()

    def should_sample(  # noqa: PLR0917 (as OpenTelemetry has it)
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        """Decide whether a trace without a caller is sampled."""
        # Only predictions are POST requests; health checks would use up the limit.
        if attributes is None or attributes.get(METHOD) != "POST":
            return SamplingResult(Decision.DROP, trace_state=trace_state)
        now = time.monotonic()
        # The limit is at least one, because a rate below one in a second would allow no traces.
        limit = max(1.0, self._per_second)
        self._allowance = min(limit, self._allowance + (now - self._at) * self._per_second)
        self._at = now
        if self._allowance < 1 or self._per_second == 0 or not self._keeps(trace_id):
            return SamplingResult(Decision.DROP, trace_state=trace_state)
        self._allowance -= 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)

    def get_description(self) -> str:
        """Return the name and rate of the sampler."""
        return f"SomePerSecond({self._per_second:g})"


class Tracing:
    """Creates the spans of requests, samples those without a caller, and exports them with an exporter."""

    def __init__(
        self, exporter: SpanExporter | None, keeps: Callable[[int], bool], per_second: float
    ) -> None:
        self._exporter = exporter
        self._provider = TracerProvider(
            sampler=ParentBased(SomePerSecond(keeps, per_second if exporter is not None else 0)),
            resource=telemetry.resource(),
            shutdown_on_exit=False,
        )
        if exporter is not None:
            self._provider.add_span_processor(
                BatchSpanProcessor(
                    exporter,
                    schedule_delay_millis=SCHEDULE_MILLISECONDS,
                    export_timeout_millis=exporting.EXPORT_SECONDS * 1000,
                )
            )
        self._tracer = self._provider.get_tracer("ledgerline.serving")

    def begin(self, method: str, headers: Mapping[str, str]) -> Span:
        """Start the span of a request, in the trace of its caller if it has a traceparent."""
        parent = _propagator.extract(headers, context=Context()) if TRACEPARENT in headers else Context()
        return self._tracer.start_span(method, parent, SpanKind.SERVER, {METHOD: method})

    def stop(self) -> None:
        """Export the last spans, for a limited time, and end."""
        exporting.end(self._provider, self._exporter)


def traceparent(span: Span) -> str | None:
    """Return the header of a span by https://www.w3.org/TR/trace-context/; None if tracing is off."""
    context = span.get_span_context()
    if not context.is_valid:
        return None  # OTEL_SDK_DISABLED
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def record_model(span: Span, loaded: LoadedModel, alias: str) -> None:
    """Set the attributes of the active version, and link to the trace of the run that trained it."""
    if not span.is_recording():
        return
    run_id = loaded.training_run_id
    span.set_attributes(
        {
            attributes.MODEL: loaded.name,
            attributes.MODEL_VERSION: loaded.version.number,
            attributes.MODEL_ALIAS: alias,
            attributes.MODEL_SHA256: loaded.sha256,
            attributes.TRAINING_RUN_ID: run_id,
        }
    )
    if run_id:
        root = SpanContext(
            ids.trace_id(run_id), ids.run_span_id(run_id), is_remote=True, trace_flags=TraceFlags(1)
        )
        span.add_link(root, {attributes.LINK: "training run"})


def record_prediction(span: Span, prediction: Prediction, arrived: float) -> None:
    """Set the attributes of the prediction for a request that arrived at a time since the epoch."""
    if span.is_recording():
        span.set_attributes(
            {
                attributes.ANSWERED_ROWS: prediction.outputs.count,
                attributes.ROWS_TOGETHER: prediction.batch_rows,
                attributes.WAITED_SECONDS: max(0.0, prediction.started - arrived),
                attributes.PREDICT_SECONDS: prediction.seconds,
            }
        )


def end(span: Span, method: str, route: str, path: str, status: int) -> None:
    """End the span of a request, by OpenTelemetry's conventions for HTTP servers."""
    if span.is_recording():
        span.update_name(f"{method} {route}" if route else method)
        span.set_attributes(
            {
                METHOD: method,
                "http.response.status_code": status,
                "url.path": shortened(clean(path), MAX_PATH_LENGTH),
                "url.scheme": "http",
                **({"http.route": route} if route else {}),
                # MLflow lists this type beside the name.
                attributes.SPAN_TYPE: attributes.TASK,
            }
        )
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))
        else:
            # Without a status, MLflow shows the trace as in progress.
            span.set_status(Status(StatusCode.OK))
    span.end()


def exporter_for(settings: Telemetry, tracking_uri: str) -> SpanExporter | None:
    """Return the exporter for the settings, which is MLflow's by default; None if tracing is off."""

    def experiment() -> tuple[MlflowClient, str]:
        client = store.connect(tracking_uri)
        return client, store.experiment_id(client, EXPERIMENT, None)

    return exporting.exporter_for(settings, experiment)
