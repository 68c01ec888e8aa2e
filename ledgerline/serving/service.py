"""The parts of the service, which are started and stopped together. The endpoints are in app.py."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ledgerline.serving import tracing
from ledgerline.serving.batcher import Batcher
from ledgerline.serving.cache import Cache
from ledgerline.serving.follower import START_SECONDS, Follower, Served
from ledgerline.serving.metrics import Metrics
from ledgerline.serving.request_logging import RequestLogger
from ledgerline.serving.settings import ServingSettings, allow_unpickling
from ledgerline.serving.shadow import Shadow
from ledgerline.serving.tracing import Tracing

# Maximum time for loading the first versions, before requests are accepted without them.
FIRST_VERSIONS_SECONDS = 10.0
# Maximum time for each part to end.
STOP_SECONDS = 3.0

logger = logging.getLogger(__name__)


@dataclass
class Service:
    """The parts of the service: a follower and a batcher for each model by name, and what models share.

    Attributes:
        served: The models by name; the first is the default.
        request_logger: Writes the request log; None if requests are not logged.
    """

    settings: ServingSettings
    served: dict[str, Served]
    followers: dict[str, Follower]
    batchers: dict[str, Batcher]
    shadow: Shadow
    request_logger: RequestLogger | None
    tracing: Tracing
    metrics: Metrics

    @property
    def default(self) -> Served:
        """The model for requests that name no model."""
        return next(iter(self.served.values()))

    def answers(self, name: str) -> bool:
        """Return whether a model has an active version that does not hang."""
        is_stuck = self.batchers[name].predicting_seconds > self.settings.timeout_seconds
        return self.served[name].current is not None and not is_stuck

    def is_ready(self) -> bool:
        """Return whether at least one model, and each model with a version in its stage, can answer.

        A model without a version in its stage does not make the service unready.
        """
        states = {name: self.answers(name) for name in self.served}
        silent = [self.served[name] for name, answers in states.items() if not answers]
        return any(states.values()) and all(served.has_nothing_to_serve for served in silent)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the parts until the end of the `with` block.

        The block begins when each model has an active version, or its first poll has failed.
        """
        if self.request_logger is not None:
            self.request_logger.start()
        parts = [self.shadow, *self.batchers.values(), *self.followers.values()]
        for part in parts:
            part.start()
        deadline = time.monotonic() + START_SECONDS + FIRST_VERSIONS_SECONDS
        for follower in self.followers.values():
            follower.wait_until_started(max(0.0, deadline - time.monotonic()))
        try:
            yield
        finally:
            for part in reversed(parts):
                part.stop(STOP_SECONDS)
            if self.request_logger is not None:
                self.request_logger.stop()
            self.tracing.stop()

    def notify(self, model: str) -> None:
        """Poll the registry now, for one model or, if the name is empty, for all."""
        for name, follower in self.followers.items():
            if not model or name == model:
                follower.notify()


def service_for(settings: ServingSettings) -> Service:
    """Return the parts of a service without starting them."""
    # Threads that import MLflow at the same time can deadlock.
    import mlflow.artifacts
    import mlflow.models
    import mlflow.sklearn  # noqa: F401

    if settings.unpickled:
        allow_unpickling()
    metrics = Metrics()
    served = {followed.name: Served(followed) for followed in settings.models}
    followers = {
        name: Follower(
            served=one,
            cache=Cache(settings.cache, name),
            tracking_uri=settings.tracking_uri,
            poll_seconds=settings.poll_seconds,
            metrics=metrics,
            unpickle=name in settings.unpickled,
            allow_other_clients=settings.signature == "any",
        )
        for name, one in served.items()
    }
    request_logger = None
    if settings.request_log is not None:
        request_logger = RequestLogger(
            settings.request_log,
            settings.redacted,
            settings.request_log_bytes,
            on_dropped=metrics.unlogged_rows.inc,
            on_written=metrics.logged_rows.inc,
        )
    exporter = tracing.exporter_for(settings.telemetry, settings.tracking_uri)
    return Service(
        settings=settings,
        served=served,
        followers=followers,
        batchers={name: Batcher(partial(_count_prediction, metrics, name)) for name in served},
        shadow=Shadow(settings.shadow_share, metrics),
        request_logger=request_logger,
        tracing=Tracing(exporter, settings.telemetry.keeps, settings.traces_per_second),
        metrics=metrics,
    )


def _count_prediction(metrics: Metrics, model: str, rows: int, requests: int, seconds: float) -> None:
    metrics.predict_rows.labels(model).observe(rows)
    metrics.predict_requests.labels(model).observe(requests)
    metrics.predict_seconds.labels(model).observe(seconds)
