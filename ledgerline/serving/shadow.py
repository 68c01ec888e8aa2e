"""Asking staging what production was asked, in the background, and counting where they differ."""

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

# Nobody waits for what staging says. Asked about many requests in one go, it takes hardly longer than for
# one; asked about each, it would take half of the interpreter from those who are waited for.
GATHER_SECONDS = 1.0
MAX_WAITING = 1024

Offered = tuple[Served, Rows, Prediction]

logger = logging.getLogger(__name__)


@dataclass
class Shadow:
    """Asks staging, once a second about all that came. What it has no time for is skipped, and counted.

    Attributes:
        share: Share of the requests, 0 to 1.
        metrics: What it tells.
    """

    share: float
    metrics: Metrics
    # None: the last one.
    _waiting: "queue.Queue[Offered | None]" = field(
        default_factory=lambda: queue.Queue(MAX_WAITING), init=False
    )
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _failed: set[tuple[str, int]] = field(default_factory=set, init=False)

    def start(self) -> None:
        """Start the thread, if any request is to be taken."""
        if self.share > 0:
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread; at most for so long."""
        self._ended.set()
        # Where there is no room for this, the thread is not waiting for anything.
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        if self._thread is not None:
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
        while not self._ended.is_set() and (first := self._waiting.get()) is not None:
            self._ended.wait(GATHER_SECONDS)
            # As many as there are now: more are coming all the time.
            others = [self._waiting.get() for _ in range(self._waiting.qsize())]
            gathered = [first, *(offered for offered in others if offered is not None)]
            for group in _alike(gathered):
                self._ask(group)

    def _ask(self, group: Sequence[Offered]) -> None:
        """Ask staging about requests for the same model, which the same version answered."""
        served, _, prediction = group[0]
        staging = served.staging
        if staging is None or staging is prediction.loaded:
            return  # it was promoted meanwhile
        name, number = staging.name, staging.version.number
        started = time.perf_counter()
        try:
            rows = joined([rows for _, rows, _ in group])
            said = joined([prediction.outputs for _, _, prediction in group])
            found = disagreement(said.columns, staging.predict(rows).columns)
        except BaseException as error:  # noqa: BLE001 (models raise anything: a panic in Rust is no Exception)
            self._ask_one_by_one(group, error)
            return
        self.metrics.shadow_seconds.labels(name).observe(time.perf_counter() - started)
        self.metrics.shadow_rows.labels(name, str(number)).inc(found.rows)
        self.metrics.shadow_disagreements.labels(name, str(number)).inc(found.decided_differently)

    def _ask_one_by_one(self, group: Sequence[Offered], error: BaseException) -> None:
        """Staging fails on one of them, or on all."""
        if len(group) > 1:
            for offered in group:
                self._ask([offered])
            return
        served = group[0][0]
        staging = served.staging
        if staging is None:
            return
        name, number = staging.name, staging.version.number
        self.metrics.shadow_skipped.labels(name, "failed").inc()
        if (name, number) not in self._failed:
            self._failed.add((name, number))
            logger.warning("%s version %s, in staging, fails on a request: %s", name, number, error)


def _alike(offered: Sequence[Offered]) -> Iterator[list[Offered]]:
    """Requests that can be asked about in one go: neighbours that the same version answered."""
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
