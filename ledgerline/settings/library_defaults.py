"""Sets variables that libraries read when they are imported. It does not declare Ledgerline's settings."""

import logging
import re
from collections.abc import MutableMapping

OTEL_LIMIT = re.compile(r"OTEL_\w+_LIMIT")

# A value that is already set is kept.
MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # With MLflow's own defaults, one call to a server that is down blocks for 247 s.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # MLflow would print the URLs of the runs that steps and observers write.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The progress bars of artifact transfers would be written to the step logs.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

logger = logging.getLogger(__name__)


def set_in(environment: MutableMapping[str, str]) -> None:
    """Set the variables that are not set, and remove values that would make an import fail."""
    for name, value in MLFLOW_DEFAULTS.items():
        environment.setdefault(name, value)
    # MLflow imports OpenTelemetry, whose import fails if a limit is invalid. Then every step would fail.
    for name, value in list(environment.items()):
        if OTEL_LIMIT.fullmatch(name) and value.strip() and not value.strip().isdecimal():
            logger.warning("%s is %r, which is not a whole number; it is ignored.", name, value)
            del environment[name]
