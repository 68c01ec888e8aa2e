"""What Prometheus is told, by name. Who tells it: app.py, follower.py, shadow.py."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

# Seconds; a request takes milliseconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384)


class Metrics:
    """All metrics of a process, in a registry of their own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "ledgerline_requests", "Answers.", ["route", "status", "model", "version"], registry=registry
        )
        self.request_seconds = Histogram(
            "ledgerline_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.requests_now = Gauge(
            "ledgerline_requests_now", "Requests that are being answered.", registry=registry
        )
        self.predict_seconds = Histogram(
            "ledgerline_predict_seconds", "A model at work.", ["model"], buckets=BUCKETS, registry=registry
        )
        self.predict_rows = Histogram(
            "ledgerline_predict_rows",
            "Rows that a model was asked about together.",
            ["model"],
            buckets=ROW_BUCKETS,
            registry=registry,
        )
        self.predict_requests = Histogram(
            "ledgerline_predict_requests",
            "Requests that shared a prediction.",
            ["model"],
            buckets=ROW_BUCKETS,
            registry=registry,
        )
        self.model_info = Gauge(
            "ledgerline_model_info",
            "1 for the version that answers.",
            ["model", "alias", "version", "sha256", "training_run_id"],
            registry=registry,
        )
        self.swaps = Counter(
            "ledgerline_swaps", "Versions that took over from another.", ["model"], registry=registry
        )
        self.refusals = Counter(
            "ledgerline_refusals", "Times that a version could not take over.", ["model"], registry=registry
        )
        self.refused_version = Gauge(
            "ledgerline_refused_version",
            "The version that should answer, and was refused; 0: none.",
            ["model"],
            registry=registry,
        )
        self.registry_up = Gauge(
            "ledgerline_registry_up", "Whether the registry answered last time.", ["model"], registry=registry
        )
        self.registry_look = Gauge(
            "ledgerline_registry_look_timestamp_seconds",
            "When the registry answered last.",
            ["model"],
            registry=registry,
        )
        self.shadow_rows = Counter(
            "ledgerline_shadow_rows",
            "Rows that staging was asked, too.",
            ["model", "version"],
            registry=registry,
        )
        self.shadow_disagreements = Counter(
            "ledgerline_shadow_disagreements",
            "Rows that staging decides otherwise.",
            ["model", "version"],
            registry=registry,
        )
        self.shadow_seconds = Histogram(
            "ledgerline_shadow_seconds", "Staging at work.", ["model"], buckets=BUCKETS, registry=registry
        )
        self.shadow_skipped = Counter(
            "ledgerline_shadow_skipped",
            "Requests that staging was not asked, or failed on.",
            ["model", "reason"],
            registry=registry,
        )
        self.logged_rows = Counter("ledgerline_logged_rows", "Rows in the request log.", registry=registry)
        self.unlogged_rows = Counter(
            "ledgerline_unlogged_rows", "Rows that the request log lost.", registry=registry
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
