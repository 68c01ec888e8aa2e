"""The Prometheus metrics of the service. accounting.py, follower.py, service.py and shadow.py set them."""

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

# In seconds: most requests take milliseconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384)


class Metrics:
    """The metrics of a process, in a separate Prometheus registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        counter = partial(Counter, namespace="ledgerline", registry=self._registry)
        gauge = partial(Gauge, namespace="ledgerline", registry=self._registry)
        seconds = partial(Histogram, namespace="ledgerline", registry=self._registry, buckets=BUCKETS)
        sizes = partial(Histogram, namespace="ledgerline", registry=self._registry, buckets=ROW_BUCKETS)
        model, version = ["model"], ["model", "version"]

        self.requests = counter("requests", "Responses.", ["route", "status", "model", "version"])
        duration = "Time from the first byte of a request to the last byte of its response."
        self.request_seconds = seconds("request_seconds", duration, ["route", "model"])
        self.requests_now = gauge("requests_now", "Requests in progress.")
        self.predict_seconds = seconds("predict_seconds", "Duration of a prediction.", model)
        self.predict_rows = sizes("predict_rows", "Rows in a batch.", model)
        self.predict_requests = sizes("predict_requests", "Requests in a batch.", model)
        labels = ["model", "alias", "version", "sha256", "training_run_id"]
        self.model_info = gauge("model_info", "1 for the active version.", labels)
        self.swaps = counter("swaps", "Activations of a version in place of another.", model)
        self.refusals = counter("refusals", "Refused activations.", model)
        self.refused_version = gauge(
            "refused_version", "The version that has the alias and was refused; 0 if none was.", model
        )
        self.registry_up = gauge(
            "registry_up", "1 if the registry responded to the last poll, else 0.", model
        )
        self.registry_poll = gauge(
            "registry_poll_timestamp_seconds", "When the registry responded last.", model
        )
        self.shadow_rows = counter("shadow_rows", "Rows that staging predicted, too.", version)
        self.shadow_disagreements = counter(
            "shadow_disagreements", "Rows that staging decides differently.", version
        )
        self.shadow_seconds = seconds("shadow_seconds", "Duration of a prediction of staging.", model)
        self.shadow_skipped = counter(
            "shadow_skipped", "Requests that staging did not predict, or failed on.", ["model", "reason"]
        )
        self.logged_rows = counter("logged_rows", "Rows in the request log.")
        self.unlogged_rows = counter("unlogged_rows", "Rows that were dropped from the request log.")

    def text(self) -> bytes:
        """Return the metrics in the format of Prometheus."""
        return generate_latest(self._registry)
