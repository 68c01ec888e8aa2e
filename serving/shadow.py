"""Asking staging what production was asked, in the background, and counting where they differ."""

import logging
import queue
import random
import threading
import time
from dataclasses import dataclass, field

from registry.disagreement import disagreement
from serving.follower import Served
from serving.metrics import Metrics
from serving.predictor import Prediction
from serving.rows import Rows

# Who waits for staging waits in vain when more come than it can take.
MOST_WAITING = 64

logger = logging.getLogger(__name__)


@dataclass
class Shadow:
    """Asks staging. It never delays an answer: what it has no time for is skipped, and counted.

    Attributes:
        share: Share of the requests, 0 to 1.
        metrics: What it tells.
    """

    share: float
    metrics: Metrics
    _waiting: "queue.Queue[tuple[Served, Rows, Prediction] | None]" = field(
        default_factory=lambda: queue.Queue(MOST_WAITING), init=False
    )
    _thread: threading.Thread | None = field(default=None, init=False)
    _failed: set[tuple[str, int]] = field(default_factory=set, init=False)

    def start(self) -> None:
        """Start the thread, if any request is to be taken."""
        if self.share > 0:
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread; at most for so long."""
        if self._thread is not None:
            try:
                self._waiting.put(None, timeout=seconds)
            except queue.Full:
                return
            self._thread.join(seconds)

    def offer(self, served: Served, rows: Rows, prediction: Prediction) -> None:
        """Take a request that was answered, if it is among the share and there is time for it."""
        if self._thread is None or served.staging is None or random.random() >= self.share:  # noqa: S311
            return
        try:
            self._waiting.put_nowait((served, rows, prediction))
        except queue.Full:
            self.metrics.shadow_skipped.labels(served.followed.name, "busy").inc()

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            self._ask(*waiting)

    def _ask(self, served: Served, rows: Rows, prediction: Prediction) -> None:
        staging = served.staging
        if staging is None or staging is prediction.loaded:
            return  # it was promoted meanwhile
        name, number = staging.name, staging.version.number
        started = time.perf_counter()
        try:
            # Staging may take other columns: those are what its clients would have to send.
            outputs = staging.predict(rows)
            found = disagreement(prediction.outputs.columns, outputs.columns)
        except BaseException as error:  # noqa: BLE001 (models raise anything: a panic in Rust is no Exception)
            self.metrics.shadow_skipped.labels(name, "failed").inc()
            if (name, number) not in self._failed:
                self._failed.add((name, number))
                logger.warning("%s version %s, in staging, fails on a request: %s", name, number, error)
            return
        self.metrics.shadow_seconds.labels(name).observe(time.perf_counter() - started)
        self.metrics.shadow_rows.labels(name, str(number)).inc(found.rows)
        self.metrics.shadow_disagreements.labels(name, str(number)).inc(found.decided_differently)
