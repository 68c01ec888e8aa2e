"""Shadow predictions: the version in staging predicts requests of production, and differences are counted."""

import logging
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ledgerline.evaluation.disagreement import disagreement
from ledgerline.serving.batcher import MAX_BATCH_ROWS, Prediction
from ledgerline.serving.follower import Served
from ledgerline.serving.metrics import Metrics
from ledgerline.serving.rows import Rows, joined

# No client waits for these predictions. A batch takes hardly longer than a single request; one prediction for
# each request would take half of the interpreter's time from the requests themselves.
GATHER_SECONDS = 1.0
MAX_QUEUED = 1024

Offered = tuple[Served, Rows, Prediction]

logger = logging.getLogger(__name__)


@dataclass
class Shadow:
    """Predicts a share of the requests, 0 to 1, with the versions in staging, once a second.

    Requests that do not fit its queue are counted.
    """

    share: float
    metrics: Metrics
    # None ends the thread.
    _queue: "queue.Queue[Offered | None]" = field(default_factory=lambda: queue.Queue(MAX_QUEUED), init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _failed: set[tuple[str, int]] = field(default_factory=set, init=False)

    def start(self) -> None:
        """Start the thread, unless the share is 0."""
        if self.share > 0:
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread; wait for it for at most this many seconds."""
        self._ended.set()
        # If the queue is full, the thread is not blocked, and checks the event.
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def offer(self, served: Served, rows: Rows, prediction: Prediction) -> None:
        """Queue an answered request if it is in the share, and the queue is not full."""
        if self._thread is None or served.staging is None or random.random() >= self.share:  # noqa: S311
            return
        try:
            self._queue.put_nowait((served, rows, prediction))
        except queue.Full:
            self.metrics.shadow_skipped.labels(served.followed.name, "busy").inc()

    def _work(self) -> None:
        while not self._ended.is_set() and (first := self._queue.get()) is not None:
            self._ended.wait(GATHER_SECONDS)
            # Only the requests that are queued now are taken, because more arrive all the time.
            others = [self._queue.get() for _ in range(self._queue.qsize())]
            gathered = [first, *(offered for offered in others if offered is not None)]
            for group in _alike(gathered):
                self._predict(group)

    def _predict(self, group: Sequence[Offered]) -> None:
        """Predict requests that were answered by the same version."""
        served, _, prediction = group[0]
        staging = served.staging
        if staging is None or staging is prediction.loaded:
            return  # it was promoted in the meantime
        name, number = staging.name, staging.version.number
        started = time.perf_counter()
        try:
            rows = joined([rows for _, rows, _ in group])
            outputs = joined([prediction.outputs for _, _, prediction in group])
            differences = disagreement(outputs.columns, staging.predict(rows).columns)
        except BaseException as error:  # noqa: BLE001 (models raise anything: a panic in Rust is not an Exception)
            if len(group) > 1:
                # Only requests with invalid rows count as failed.
                for offered in group:
                    self._predict([offered])
                return
            self.metrics.shadow_skipped.labels(name, "failed").inc()
            if (name, number) not in self._failed:
                self._failed.add((name, number))
                logger.warning("%s version %s, in staging, fails on a request: %s", name, number, error)
            return
        self.metrics.shadow_seconds.labels(name).observe(time.perf_counter() - started)
        self.metrics.shadow_rows.labels(name, str(number)).inc(differences.rows)
        self.metrics.shadow_disagreements.labels(name, str(number)).inc(differences.decided_differently)


def _alike(offered: Sequence[Offered]) -> Iterator[list[Offered]]:
    """Yield batches of successive requests that were answered by the same version."""
    group: list[Offered] = []
    rows = 0
    for one in offered:
        if group and (one[2].loaded is not group[0][2].loaded or rows + one[1].count > MAX_BATCH_ROWS):
            yield group
            group, rows = [], 0
        group.append(one)
        rows += one[1].count
    if group:
        yield group
