"""The Prometheus metrics of the service. accounting.py, follower.py, service.py and shadow.py set them."""

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
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "ledgerline_requests", "Responses.", ["route", "status", "model", "version"], registry=registry
        )
        self.request_seconds = Histogram(
            "ledgerline_request_seconds",
            "Time from the first byte of a request to the last byte of its response.",
            ["route", "model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.requests_now = Gauge("ledgerline_requests_now", "Requests in progress.", registry=registry)
        self.predict_seconds = Histogram(
            "ledgerline_predict_seconds",
            "Duration of a prediction.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.predict_rows = Histogram(
            "ledgerline_predict_rows",
            "Rows in a batch.",
            ["model"],
            buckets=ROW_BUCKETS,
            registry=registry,
        )
        self.predict_requests = Histogram(
            "ledgerline_predict_requests",
            "Requests in a batch.",
            ["model"],
            buckets=ROW_BUCKETS,
            registry=registry,
        )
        self.model_info = Gauge(
            "ledgerline_model_info",
            "1 for the active version.",
            ["model", "alias", "version", "sha256", "training_run_id"],
            registry=registry,
        )
        self.swaps = Counter(
            "ledgerline_swaps", "Activations of a version in place of another.", ["model"], registry=registry
        )
        self.refusals = Counter("ledgerline_refusals", "Refused activations.", ["model"], registry=registry)
        self.refused_version = Gauge(
            "ledgerline_refused_version",
            "The version that has the alias and was refused; 0 if none was.",
            ["model"],
            registry=registry,
        )
        self.registry_up = Gauge(
            "ledgerline_registry_up",
            "1 if the registry responded to the last poll, else 0.",
            ["model"],
            registry=registry,
        )
        self.registry_poll = Gauge(
            "ledgerline_registry_poll_timestamp_seconds",
            "When the registry responded last.",
            ["model"],
            registry=registry,
        )
        self.shadow_rows = Counter(
            "ledgerline_shadow_rows",
            "Rows that the version in staging predicted, too.",
            ["model", "version"],
            registry=registry,
        )
        self.shadow_disagreements = Counter(
            "ledgerline_shadow_disagreements",
            "Rows that the version in staging decides differently.",
            ["model", "version"],
            registry=registry,
        )
        self.shadow_seconds = Histogram(
            "ledgerline_shadow_seconds",
            "Duration of a prediction of the version in staging.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.shadow_skipped = Counter(
            "ledgerline_shadow_skipped",
            "Requests that the version in staging did not predict, or failed on.",
            ["model", "reason"],
            registry=registry,
        )
        self.logged_rows = Counter("ledgerline_logged_rows", "Rows in the request log.", registry=registry)
        self.unlogged_rows = Counter(
            "ledgerline_unlogged_rows", "Rows that were dropped from the request log.", registry=registry
        )

    def text(self) -> bytes:
        """Return the metrics in the format of Prometheus."""
        return generate_latest(self._registry)
