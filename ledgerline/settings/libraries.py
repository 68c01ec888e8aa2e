"""Declares the variables that MLflow and OpenTelemetry read themselves and that projects often set."""

from ledgerline.settings.declaration import DeclaredSettings, setting
from ledgerline.settings.library_defaults import MLFLOW_DEFAULTS


class LibraryVariables(DeclaredSettings):
    """Variables of libraries.

    MLflow and OpenTelemetry read these themselves. The defaults are this library's: with MLflow's own, one
    call to a server that is down blocks for 247 seconds.
    """

    max_retries: str = setting(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "Attempts of a call to the MLflow server after the first. `ledgerline serve` makes none.",
        MLFLOW_DEFAULTS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"],
    )
    backoff_factor: str = setting(
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
        "Time before the second attempt, doubled for each further one.",
        MLFLOW_DEFAULTS["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"],
        unit="seconds",
    )
    request_timeout: str = setting(
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "Maximum time of each attempt. `ledgerline serve` waits 10 seconds.",
        MLFLOW_DEFAULTS["MLFLOW_HTTP_REQUEST_TIMEOUT"],
        unit="seconds",
    )
    otlp_headers: str | None = setting(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers of requests to the collector: name=value, separated by commas.",
        hides="value",
    )
    otlp_timeout: str | None = setting(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "Maximum time of a request to the collector.",
        default_text="10",
        unit="seconds",
    )
    service_name: str | None = setting(
        "OTEL_SERVICE_NAME", "Name of the service in traces.", default_text="ledgerline"
    )
    resource_attributes: str | None = setting(
        "OTEL_RESOURCE_ATTRIBUTES", "Further attributes of the service: name=value, separated by commas."
    )
