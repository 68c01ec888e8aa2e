"""Declares the variables that pipelines and serving share: local state, pages for links, and traces."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, InstanceOf

from ledgerline.settings.declaration import OFF, DeclaredSettings, PlaceOrOff, Whole, setting
from ledgerline.settings.project import Project


def is_server(uri: str) -> bool:
    """Return whether the URI of MLflow is the URL of a server; otherwise it is that of a database."""
    return uri.startswith(("http://", "https://"))


def _home(path: Path) -> Path:
    if any(character in str(path.absolute()) for character in "?#%"):
        raise ValueError(
            "choose a folder without ?, # and %, which the address of the MLflow database cannot hold"
        )
    return path.absolute()


def _local(folder: str) -> str:
    if "://" in folder:
        raise ValueError("set it to a folder of this machine, or off")
    return folder


def _template(url: str) -> str:
    try:
        url.format(trace_id="", mlflow_trace_id="", experiment_id="")
    except (KeyError, IndexError, ValueError):
        raise ValueError(
            "it may have {trace_id}, {mlflow_trace_id} and {experiment_id}, and no other braces"
        ) from None
    return url


def _mlflow_page(data: dict[str, Any]) -> str:
    tracking_uri: str = data["tracking_uri"]
    return tracking_uri if is_server(tracking_uri) else f"http://127.0.0.1:{data['mlflow_port']}"


Port = Annotated[Whole, Field(ge=0, le=65_535)]
Template = Annotated[str, AfterValidator(_template)]


class HomeVariables(DeclaredSettings):
    """Local state."""

    project: InstanceOf[Project]
    home: Annotated[Path, AfterValidator(_home)] = setting(
        "LEDGERLINE_HOME",
        "Folder for all local state.",
        lambda data: data["project"].root / ".ledgerline",
        default_text=".ledgerline",
        validate_default=True,
    )


class StoreVariables(HomeVariables):
    """MLflow, the request log, and the servers of `ledgerline dev`."""

    tracking_uri: str = setting(
        "MLFLOW_TRACKING_URI",
        "URL of an MLflow server, or URI of its database.",
        lambda data: f"sqlite:///{data['home']}/mlflow.db",
        default_text="sqlite:///$LEDGERLINE_HOME/mlflow.db",
        hides="password",
    )
    dagster_port: Port = setting(
        "LEDGERLINE_DAGSTER_PORT", "Port of the Dagster UI under `ledgerline dev`, on 127.0.0.1.", 3000
    )
    mlflow_port: Port = setting(
        "LEDGERLINE_MLFLOW_PORT", "Port of the MLflow UI under `ledgerline dev`, on 127.0.0.1.", 5000
    )
    serving_port: Port = setting(
        "LEDGERLINE_SERVING_PORT", "Port that `ledgerline serve` listens on; 0 is any free port.", 8080
    )
    request_log_folder: Annotated[PlaceOrOff, AfterValidator(_local)] = setting(
        "LEDGERLINE_REQUEST_LOG",
        "Folder in which `ledgerline serve` logs requests and responses, for the jobs that replay and "
        "compare them; off logs none.",
        lambda data: str(data["home"] / "serving" / "requests"),
        default_text="$LEDGERLINE_HOME/serving/requests",
    )
    webhook_secret: str | None = setting(
        "LEDGERLINE_WEBHOOK_SECRET",
        "Secret that MLflow signs its webhooks with, for `ledgerline registry webhook` and `listen`, and for "
        "serving. Create one with: openssl rand -hex 32. The MLflow server of `ledgerline dev` reads it when "
        "it starts. Without a secret, webhooks are refused.",
        hides="value",
    )

    @property
    def request_log(self) -> Path | None:
        """The folder of the request log; None if requests are not logged."""
        return None if self.request_log_folder == OFF else Path(self.request_log_folder)


class PageVariables(StoreVariables):
    """Pages that links lead to."""

    dagster_url: str | None = setting(
        "LEDGERLINE_DAGSTER_URL",
        "URL of the Dagster UI, for links.",
        lambda data: f"http://127.0.0.1:{data['dagster_port']}",
        default_text="http://127.0.0.1:$LEDGERLINE_DAGSTER_PORT",
    )
    mlflow_url: str = setting(
        "LEDGERLINE_MLFLOW_URL",
        "URL of the MLflow UI, for links.",
        _mlflow_page,
        default_text="MLFLOW_TRACKING_URI if that is a server, else http://127.0.0.1:$LEDGERLINE_MLFLOW_PORT",
        hides="password",
    )
    jaeger_url: str | None = setting(
        "LEDGERLINE_JAEGER_URL",
        "URL of a Jaeger server, for links to traces. Without it, links lead to the traces of MLflow.",
    )
    trace_url: Template | None = setting(
        "LEDGERLINE_TRACE_URL",
        "URL of the page of a trace, with {trace_id}, {mlflow_trace_id} or {experiment_id} in it. It wins "
        "over LEDGERLINE_JAEGER_URL.",
    )


class TraceVariables(DeclaredSettings):
    """Traces.

    These are OpenTelemetry's own variables, and two more. A value that cannot be used is ignored with a
    warning, as OpenTelemetry's specification asks for.
    """

    # These remain texts, which traces/telemetry.py parses.
    endpoint: str | None = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "URL of an OpenTelemetry collector that traces are sent to. Without it, they are stored in MLflow.",
    )
    traces_endpoint: str | None = setting(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "URL that traces are sent to, with its whole path. It wins over OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    protocol: str | None = setting(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "Protocol of the collector: http/protobuf or grpc.",
        default_text="http/protobuf",
    )
    traces_protocol: str | None = setting(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "Protocol for traces. It wins over OTEL_EXPORTER_OTLP_PROTOCOL.",
    )
    sampler: str | None = setting(
        "OTEL_TRACES_SAMPLER",
        "Which traces are recorded: always_on, always_off, or traceidratio for a share of them.",
        default_text="always_on",
    )
    sampler_argument: str | None = setting(
        "OTEL_TRACES_SAMPLER_ARG",
        "Share of the traces that traceidratio records, from 0 to 1.",
        default_text="1",
    )
    keep_failed_runs: str | None = setting(
        "LEDGERLINE_KEEP_FAILED_RUNS",
        "Whether the traces of failed runs are kept besides those that the sampler keeps: true or false. "
        "They are sent when the run has ended. Set it for the steps, too, or they do not record what they "
        "trace.",
        default_text="false",
    )
    keep_runs_over_seconds: str | None = setting(
        "LEDGERLINE_KEEP_RUNS_OVER_SECONDS",
        "Duration from which the trace of a run is kept besides those that the sampler keeps. Without it, "
        "the duration does not count.",
        unit="seconds",
    )
    sdk_disabled: str | None = setting(
        "OTEL_SDK_DISABLED", "Whether no traces are recorded at all: true or false.", default_text="false"
    )
    exporter: str | None = setting(
        "OTEL_TRACES_EXPORTER", "Exporter of traces: otlp, or none to record none.", default_text="otlp"
    )


class SharedVariables(TraceVariables, PageVariables):
    """All variables that pipelines and serving share."""
