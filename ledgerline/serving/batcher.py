"""Adaptive batching: a thread that predicts for several requests at once where that is faster.

answering.py decides which requests reach it. Clipper, MLServer and Triton (dynamic batching) do the same with
fixed limits; here the measured costs of earlier predictions decide.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from ledgerline.cleaning.texts import clean
from ledgerline.errors import LedgerlineError
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.rows import Rows, joined

# Larger batches save hardly any time, and delay the requests behind them.
MAX_BATCH_ROWS = 1024
# Maximum time to wait for each further request of a batch, as a share of the mean duration of a prediction.
MAX_WAIT_SHARE = 0.25
# Upper limit of that time for slow models. It is enough for clients that send the next request immediately.
MAX_WAIT_SECONDS = 0.01
# Share of their weight that measured costs lose with each prediction, so that about the last hundred count.
DECAY = 0.01

logger = logging.getLogger(__name__)


class RequestRowsError(LedgerlineError):
    """A model that predicts its own example raises on the rows of a request."""


class ModelFailedError(LedgerlineError):
    """A model raises on every request, also on its own example."""


class OverdueError(LedgerlineError):
    """The deadline of a request passed in the queue."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for a request.

    Attributes:
        started: Time at which the model was called, in seconds since the epoch.
        seconds: Duration of the call, for the whole batch.
    """

    loaded: LoadedModel
    outputs: Rows
    started: float
    seconds: float
    batch_rows: int


class BatchCosts:
    """Linear costs of a prediction, by weighted least squares: seconds for each call, and for each row.

    Example:
        >>> costs = BatchCosts()
        >>> for rows in (1, 2, 4, 8):
        ...     costs.add(rows, seconds=0.010 + 0.001 * rows)
        >>> costs.favour_batching(rows=2)  # 0.002 s for the rows, 0.010 s for the call
        True
        >>> costs.favour_batching(rows=20)
        False
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0

    def add(self, rows: int, seconds: float) -> None:
        """Add a measured prediction."""
        keep = 1 - DECAY
        self._weight = keep * self._weight + 1
        self._rows = keep * self._rows + rows
        self._seconds = keep * self._seconds + seconds
        self._rows_rows = keep * self._rows_rows + rows * rows
        self._rows_seconds = keep * self._rows_seconds + rows * seconds

    def favour_batching(self, rows: float) -> bool:
        """Return whether one batch answers requests of this size sooner than single predictions do.

        With a seconds for each call and b for the rows of one request, a batch of k requests takes a + k b.
        Single predictions end after a + b, 2 (a + b), ..., on average after (k + 1) / 2 (a + b). The batch is
        faster where b < a.
        """
        if self._weight == 0:
            return True
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_rows / self._weight - mean_rows**2
        if variance < 1e-9 * max(1.0, mean_rows**2):
            return True  # the cost of a row is unknown until a batch is tried
        per_row = (self._rows_seconds / self._weight - mean_rows * mean_seconds) / variance
        return per_row * rows < mean_seconds - per_row * mean_rows

    @property
    def mean_seconds(self) -> float:
        """The mean duration of a prediction."""
        return self._seconds / self._weight if self._weight else 0.0


@dataclass(frozen=True)
class _QueuedRequest:
    loaded: LoadedModel
    rows: Rows
    deadline: float
    future: "asyncio.Future[Prediction]"
    loop: asyncio.AbstractEventLoop

    @property
    def is_wanted(self) -> bool:
        """True if the client still waits for the response."""
        return self.deadline >= time.monotonic() and not self.future.cancelled()


@dataclass
class Batcher:
    """Predicts in a thread, in the order in which requests arrive, and batches them where that is faster.

    Requests that arrive during a prediction form the next batch. A single request is never delayed. After a
    batch, its clients are likely to send their next requests at once: then the first of these waits for the
    others, as long as they keep arriving. A request is predicted by the version that was active when it
    arrived.

    Attributes:
        observe: Callback for each prediction, with its rows, requests and seconds.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> doubling = SimpleNamespace(  # in the place of a LoadedModel
        ...     predict=lambda rows: Rows({"": 2 * rows.columns["hour"]}, rows.count)
        ... )
        >>> batcher = Batcher(lambda rows, requests, seconds: None)
        >>> batcher.start()
        >>> rows = Rows({"hour": np.array([7, 22])}, count=2)
        >>> asyncio.run(batcher.predict(doubling, rows, time.monotonic() + 10)).outputs
        Rows(columns={'': array([14, 44])}, count=2)
        >>> batcher.stop(seconds=1)
    """

    observe: Callable[[int, int, float], None] = lambda rows, requests, seconds: None
    # None ends the thread.
    _queue: "SimpleQueue[_QueuedRequest | None]" = field(default_factory=SimpleQueue, init=False)
    _pending: deque[_QueuedRequest] = field(default_factory=deque, init=False)  # used only by the thread
    _costs: BatchCosts = field(default_factory=BatchCosts, init=False)
    # The last batch and the requests that were queued then. Their clients will soon send the next requests.
    _expected_requests: int = field(default=1, init=False)
    _predicting_since: float | None = field(default=None, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Predict the queued requests, and end the thread; wait for it for at most this many seconds."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def queued(self) -> int:
        """The number of requests in the queue."""
        return self._queue.qsize() + len(self._pending)

    @property
    def predicting_seconds(self) -> float:
        """The duration so far of the prediction in progress; 0 without one."""
        since = self._predicting_since
        return 0.0 if since is None else time.monotonic() - since

    async def predict(self, loaded: LoadedModel, rows: Rows, deadline: float) -> Prediction:
        """Queue the rows of a request, and return their prediction.

        The client waits until the deadline, a time on the clock of `time.monotonic`.

        Raises:
            RequestRowsError: The model fails on these rows.
            ModelFailedError: The model fails on all rows.
            OverdueError: The deadline passed in the queue.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Prediction] = loop.create_future()
        self._queue.put(_QueuedRequest(loaded, rows, deadline, future, loop))
        return await future

    def _work(self) -> None:
        is_ending = False
        while not (is_ending and not self._pending):
            # Block only if nothing is pending; what has arrived meanwhile may join the batch.
            while not is_ending and (not self._pending or not self._queue.empty()):
                request = self._queue.get()
                if request is None:
                    is_ending = True
                else:
                    self._pending.append(request)
            if not is_ending and len(self._pending) < self._expected_requests:
                is_ending = self._wait_for_expected()
            if batch := self._next_batch():
                self._predicting_since = time.monotonic()
                self._predict_batch(batch)
                self._predicting_since = None
                self._expected_requests = len(batch) + self.queued

    def _wait_for_expected(self) -> bool:
        """Wait for the expected requests while they keep arriving; return True if the thread must end.

        They arrive one after another, as fast as the event loop reads them. The first pause ends the wait.
        """
        if not self._costs.favour_batching(1):
            return False
        max_wait = min(MAX_WAIT_SHARE * self._costs.mean_seconds, MAX_WAIT_SECONDS)
        until = time.monotonic() + self._costs.mean_seconds
        while len(self._pending) < self._expected_requests and time.monotonic() < until:
            try:
                request = self._queue.get(timeout=max_wait)
            except Empty:
                return False
            if request is None:
                return True
            self._pending.append(request)
        return False

    def _next_batch(self) -> list[_QueuedRequest]:
        """Take the first requests for the same version, as many as are faster in one batch."""
        batch: list[_QueuedRequest] = []
        rows = 0
        while self._pending:
            request = self._pending[0]
            if not request.is_wanted:
                _deliver([(self._pending.popleft(), _overdue())])
                continue
            if batch:
                if request.loaded is not batch[0].loaded or rows + request.rows.count > MAX_BATCH_ROWS:
                    break
                if not self._costs.favour_batching((rows + request.rows.count) / (len(batch) + 1)):
                    break
            batch.append(self._pending.popleft())
            rows += request.rows.count
        return batch

    def _predict_batch(self, batch: Sequence[_QueuedRequest]) -> None:
        began, started = time.time(), time.perf_counter()
        try:
            # Arrays whose other axes have any length cannot always be joined.
            rows = joined([request.rows for request in batch])
            outputs = batch[0].loaded.predict(rows)
        except BaseException as error:  # noqa: BLE001 (models raise anything: a panic in Rust is not an Exception)
            self._predict_one_by_one(batch, error)
            return
        seconds = time.perf_counter() - started
        self._costs.add(rows.count, seconds)
        results: list[tuple[_QueuedRequest, Prediction | Exception]] = []
        first = 0
        for request in batch:
            part = outputs.part(first, first + request.rows.count)
            results.append((request, Prediction(request.loaded, part, began, seconds, rows.count)))
            first += request.rows.count
        _deliver(results)
        self.observe(rows.count, len(batch), seconds)

    def _predict_one_by_one(self, batch: Sequence[_QueuedRequest], error: BaseException) -> None:
        """Predict for each request of a failed batch, so that invalid rows fail only their own request."""
        if len(batch) > 1:
            for request in batch:
                if request.is_wanted:
                    self._predict_batch([request])
                else:
                    _deliver([(request, _overdue())])
            return
        request = batch[0]
        name, number = request.loaded.name, request.loaded.version.number
        logger.warning("%s version %s fails on a request.", name, number, exc_info=error)
        failure = RequestRowsError if request.loaded.predicts_its_example() else ModelFailedError
        _deliver([(request, failure(clean(str(error))))])


def _overdue() -> OverdueError:
    return OverdueError("The deadline of the request passed in the queue.")


def _deliver(results: Sequence[tuple[_QueuedRequest, Prediction | Exception]]) -> None:
    """Pass all results to the event loop in one call, because each call takes time."""

    def set_results() -> None:
        for request, result in results:
            if request.future.done():
                continue  # the client has disconnected
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    try:
        results[0][0].loop.call_soon_threadsafe(set_results)
    except RuntimeError:
        logger.debug("The event loop ended before %s results were delivered.", len(results))
