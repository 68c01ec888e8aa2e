"""Sets variables that libraries read when they are imported. The settings of Ledgerline are not here."""

import logging
import re
from collections.abc import MutableMapping

OTEL_LIMIT = re.compile(r"OTEL_\w+_LIMIT")

# A value that is already set is kept.
MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # One call against a dead server blocks for 247 s with MLflow's own numbers.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # It would print the addresses of runs that steps and observers write.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Progress bars of artifact transfers would end up in the step logs.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

logger = logging.getLogger(__name__)


def set_in(environment: MutableMapping[str, str]) -> None:
    """Set the variables that are not set, and remove values that would make an import fail."""
    for name, value in MLFLOW_DEFAULTS.items():
        environment.setdefault(name, value)
    # OpenTelemetry raises at import for a wrong limit, and MLflow imports it: every step would fail.
    for name, value in list(environment.items()):
        if OTEL_LIMIT.fullmatch(name) and value.strip() and not value.strip().isdecimal():
            logger.warning("%s is %r, which is not a whole number; it is ignored.", name, value)
            del environment[name]
