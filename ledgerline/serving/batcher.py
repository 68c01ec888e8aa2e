"""The thread that asks a model, for several requests at once where that is faster. Who may ask: app.py."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from ledgerline.cleaning.texts import clean
from ledgerline.serving.loaded import LoadedModel
from ledgerline.serving.rows import Rows, joined

# More together save nothing worth having, and keep who comes next waiting.
MAX_BATCH_ROWS = 1024
# How long the next of several that are likely to come is waited for, as a share of a prediction.
PATIENCE = 0.25
# And at most: a client that asks again at once does so within this, however slow the model is.
LONGEST_PATIENCE_SECONDS = 0.01
# How much of what was known of the costs is forgotten with each prediction: the last hundred count.
FORGOTTEN = 0.01

logger = logging.getLogger(__name__)


class RequestRowsError(Exception):
    """A model that answers its own example raises on the rows of a request."""


class ModelFailedError(Exception):
    """A model does not answer, not even its own example."""


class OverdueError(Exception):
    """The time for an answer was over before the model was asked."""


@dataclass(frozen=True)
class Prediction:
    """What a model said.

    Attributes:
        loaded: Who said it.
        outputs: What it said.
        started: When it was asked, in seconds since the epoch.
        seconds: How long it took, for all that was asked together.
        batch_rows: Rows of all requests that were asked together.
    """

    loaded: LoadedModel
    outputs: Rows
    started: float
    seconds: float
    batch_rows: int


class Costs:
    """What asking costs: so much each time, and so much for each row; by weighted least squares."""

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0

    def add(self, rows: int, seconds: float) -> None:
        """Take in a prediction."""
        keep = 1 - FORGOTTEN
        self._weight = keep * self._weight + 1
        self._rows = keep * self._rows + rows
        self._seconds = keep * self._seconds + seconds
        self._rows_rows = keep * self._rows_rows + rows * rows
        self._rows_seconds = keep * self._rows_seconds + rows * seconds

    def favour_asking_together(self, rows: float) -> bool:
        """Whether requests of so many rows are answered sooner together than one after another.

        Asking for k of them takes a + k b together, where a is what asking costs and b what the rows of one
        do. One after another they are done at a + b, 2 (a + b), ..., on average (k + 1) / 2 (a + b). The
        former is less where b < a.
        """
        if self._weight == 0:
            return True
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_rows / self._weight - mean_rows**2
        if variance < 1e-9 * max(1.0, mean_rows**2):
            return True  # nothing is known of the rows yet: only asking for several tells
        per_row = (self._rows_seconds / self._weight - mean_rows * mean_seconds) / variance
        return per_row * rows < mean_seconds - per_row * mean_rows

    @property
    def mean_seconds(self) -> float:
        """How long a prediction takes, about."""
        return self._seconds / self._weight if self._weight else 0.0


@dataclass(frozen=True)
class _Asked:
    loaded: LoadedModel
    rows: Rows
    deadline: float
    future: "asyncio.Future[Prediction]"
    loop: asyncio.AbstractEventLoop


@dataclass
class Batcher:
    """Asks models, in a thread of its own, in the order in which requests came.

    Requests that come while a model is at work wait; then all of them are asked together, if that is faster.
    Who comes alone is not kept waiting for company. After several were answered at once their clients are
    likely to ask again at once: then the first waits for the others, as long as they keep coming.
    A request is answered by the version that it came for, also when another took over meanwhile.

    Attributes:
        observe: Told of each prediction: rows, requests, seconds.
    """

    observe: Callable[[int, int, float], None] = lambda rows, requests, seconds: None
    # None: the last one.
    _came: "SimpleQueue[_Asked | None]" = field(default_factory=SimpleQueue, init=False)
    _waiting: deque[_Asked] = field(default_factory=deque, init=False)  # the thread's own
    _costs: Costs = field(default_factory=Costs, init=False)
    # Who was answered last, and who waited then: their clients are about to ask again.
    _crowd: int = field(default=1, init=False)
    _asking_since: float | None = field(default=None, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="predictor", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Answer who waits, and end the thread; at most for so long."""
        self._came.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._came.qsize() + len(self._waiting)

    @property
    def seconds_at_work(self) -> float:
        """Since when a model has been thinking about what it was asked; 0: none is."""
        since = self._asking_since
        return 0.0 if since is None else time.monotonic() - since

    async def predict(self, loaded: LoadedModel, rows: Rows, deadline: float) -> Prediction:
        """Ask a model about some rows.

        Args:
            loaded: The model.
            rows: The rows.
            deadline: When nobody waits for the answer any more, by `time.monotonic`.

        Raises:
            RequestRowsError: The model cannot take these rows.
            ModelFailedError: It cannot take any.
            OverdueError: The deadline has passed before it was asked.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Prediction] = loop.create_future()
        self._came.put(_Asked(loaded, rows, deadline, future, loop))
        return await future

    def _work(self) -> None:
        last = False
        while not (last and not self._waiting):
            # Only who has nothing to do waits for the next; who came meanwhile may join the others.
            while not last and (not self._waiting or not self._came.empty()):
                asked = self._came.get()
                if asked is None:
                    last = True
                else:
                    self._waiting.append(asked)
            if not last and len(self._waiting) < self._crowd:
                last = self._wait_for_company()
            if together := self._next():
                self._asking_since = time.monotonic()
                self._ask(together)
                self._asking_since = None
                self._crowd = len(together) + self.waiting

    def _wait_for_company(self) -> bool:
        """Wait until all are back who were there; returns whether the end was asked for meanwhile.

        They come one after another, as fast as requests are read. Once nobody comes, nobody is waited for.
        """
        if not self._costs.favour_asking_together(1):
            return False
        patience = min(PATIENCE * self._costs.mean_seconds, LONGEST_PATIENCE_SECONDS)
        until = time.monotonic() + self._costs.mean_seconds
        while len(self._waiting) < self._crowd and time.monotonic() < until:
            try:
                asked = self._came.get(timeout=patience)
            except Empty:
                return False
            if asked is None:
                return True
            self._waiting.append(asked)
        return False

    def _next(self) -> list[_Asked]:
        """The first who wait for the same version, as far as it is faster to ask for them together."""
        together: list[_Asked] = []
        rows = 0
        while self._waiting:
            asked = self._waiting[0]
            if not _is_wanted(asked):
                _deliver([(self._waiting.popleft(), OverdueError())])
                continue
            if together:
                if asked.loaded is not together[0].loaded or rows + asked.rows.count > MAX_BATCH_ROWS:
                    break
                if not self._costs.favour_asking_together((rows + asked.rows.count) / (len(together) + 1)):
                    break
            together.append(self._waiting.popleft())
            rows += asked.rows.count
        return together

    def _ask(self, together: Sequence[_Asked]) -> None:
        began, started = time.time(), time.perf_counter()
        try:
            # Arrays of any length in another axis than the rows need not fit together.
            rows = joined([asked.rows for asked in together])
            outputs = together[0].loaded.predict(rows)
        except BaseException as error:  # noqa: BLE001 (models raise anything: a panic in Rust is no Exception)
            self._ask_one_by_one(together, error)
            return
        seconds = time.perf_counter() - started
        self._costs.add(rows.count, seconds)
        delivered: list[tuple[_Asked, Prediction | Exception]] = []
        first = 0
        for asked in together:
            part = outputs.part(first, first + asked.rows.count)
            delivered.append((asked, Prediction(asked.loaded, part, began, seconds, rows.count)))
            first += asked.rows.count
        _deliver(delivered)
        self.observe(rows.count, len(together), seconds)

    def _ask_one_by_one(self, together: Sequence[_Asked], error: BaseException) -> None:
        """One of them has rows that the model cannot take: the others are answered all the same."""
        if len(together) > 1:
            for asked in together:
                if _is_wanted(asked):
                    self._ask([asked])
                else:
                    _deliver([(asked, OverdueError())])
            return
        asked = together[0]
        logger.warning(
            "%s version %s fails on a request.",
            asked.loaded.name,
            asked.loaded.version.number,
            exc_info=error,
        )
        at_fault = RequestRowsError if asked.loaded.answers_its_example() else ModelFailedError
        _deliver([(asked, at_fault(clean(str(error))))])


def _is_wanted(asked: _Asked) -> bool:
    """Whether somebody still waits for the answer."""
    return asked.deadline >= time.monotonic() and not asked.future.cancelled()


def _deliver(answers: Sequence[tuple[_Asked, Prediction | Exception]]) -> None:
    """Hand answers to the event loop, in one go: waking it is what costs."""

    def set_results() -> None:
        for asked, answer in answers:
            if asked.future.done():
                continue  # nobody waits any more
            if isinstance(answer, Exception):
                asked.future.set_exception(answer)
            else:
                asked.future.set_result(answer)

    try:
        answers[0][0].loop.call_soon_threadsafe(set_results)
    except RuntimeError:
        logger.debug("The event loop has ended; nobody waits for %s answers.", len(answers))
