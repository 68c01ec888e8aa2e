"""Queues answered requests, and writes them to the request log in a thread."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ledgerline.requests import request_log
from ledgerline.requests.logged_rows import to_table
from ledgerline.serving.rows import Rows, joined

# Maximum number of rows in memory. Further rows are dropped, so that a full disk does not fill the memory,
# too.
MAX_ROWS = 200_000
# Number of rows that are flushed at once.
FLUSH_ROWS = 50_000
# Process managers allow a few seconds for the shutdown, and requests in progress need some of them.
STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnsweredRequest:
    """A request and its prediction.

    Attributes:
        at: Arrival time of the request, in seconds since the epoch.
        trace_id: Id of its trace, as 32 hexadecimal digits; empty if it has no trace.
    """

    at: float
    request_id: str
    model: str
    version: int
    trace_id: str
    seconds: float
    inputs: Rows
    outputs: Rows


@dataclass
class RequestLogger:
    """Queues answered requests without waiting or raising, and writes them in a thread.

    Attributes:
        redacted: Columns of inputs and outputs whose values are not written.
        max_bytes: Maximum size of all files together; the oldest are deleted.
        flush_seconds: Interval of the flushes.
        on_dropped: Callback with the number of rows that are dropped.
        on_written: Callback with the number of rows that were written.
        max_rows: Maximum number of rows in memory.
        flush_rows: Number of rows that are flushed at once.
    """

    folder: Path
    redacted: frozenset[str]
    max_bytes: int
    flush_seconds: float = 10.0
    on_dropped: Callable[[int], None] = lambda rows: None
    on_written: Callable[[int], None] = lambda rows: None
    max_rows: int = MAX_ROWS
    flush_rows: int = FLUSH_ROWS
    stop_seconds: float = STOP_SECONDS
    _queue: deque[AnsweredRequest] = field(default_factory=deque, init=False, repr=False)
    _rows: int = field(default=0, init=False, repr=False)
    _rows_in_flush: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _flush_now: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _stopped: bool = field(default=False, init=False, repr=False)
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)
    _problem: str | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()

    def log(self, request: AnsweredRequest) -> None:
        """Queue a request if there is room for it."""
        count = request.inputs.count
        # The other thread holds the lock for a few instructions only, and never while it writes.
        with self._lock:
            is_queued = not self._stopped and self._rows + count <= self.max_rows
            if is_queued:
                self._queue.append(request)
                self._rows += count
            is_urgent = self._rows - self._rows_in_flush >= self.flush_rows
        if not is_queued:
            self._notify(self.on_dropped, count)
        if is_urgent:
            self._flush_now.set()

    def stop(self) -> None:
        """Write the queued rows, for at most `stop_seconds`; later requests are dropped."""
        with self._lock:
            self._stopped = True
        self._flush_now.set()
        if self._thread is not None:
            self._thread.join(self.stop_seconds)
        with self._lock:
            left = self._rows
        if left:
            logger.warning("%d rows were not written to the request log in time, and are lost.", left)
            self._notify(self.on_dropped, left)

    def _run(self) -> None:
        # Import it before the first request: during one, the import would delay responses.
        import pyarrow.parquet  # noqa: F401

        self._guarded(lambda: request_log.remove_leftovers(self.folder))
        while not self._stopped:
            self._flush_now.wait(self.flush_seconds)
            self._flush_now.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            batch = list(self._queue)
            self._queue.clear()
            self._rows_in_flush = self._rows
        if not batch:
            return
        problem = None
        for group in _groups(batch):
            rows = sum(request.inputs.count for request in group)
            failed = self._guarded(lambda group=group: _write(group, self.folder, self.redacted))
            problem = problem or failed
            with self._lock:
                self._rows -= rows
                self._rows_in_flush -= rows
            self._notify(self.on_dropped if failed else self.on_written, rows)
        problem = problem or self._guarded(lambda: request_log.keep_within(self.folder, self.max_bytes))
        self._report(problem)

    def _report(self, problem: str | None) -> None:
        """Log a problem once, and log once when it is solved."""
        if problem is not None and self._problem is None:
            message = "The request log in %s cannot be written: %s. The service continues without it."
            logger.error(message, self.folder, problem)
        elif problem is None and self._problem is not None:
            logger.info("The request log in %s is written again.", self.folder)
        self._problem = problem

    def _guarded(self, action: Callable[[], object]) -> str | None:
        """Run an action and return its error, because the thread must survive any error."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 (a full disk, values that Parquet does not know, ...)
            return f"{type(error).__name__}: {error}"
        return None

    def _notify(self, listener: Callable[[int], None], rows: int) -> None:
        try:
            listener(rows)
        except Exception:
            logger.exception("A callback of the request log failed.")


def _groups(batch: Iterable[AnsweredRequest]) -> list[list[AnsweredRequest]]:
    """Group requests that one file can hold: those of the same version, with the same columns."""
    groups: dict[Any, list[AnsweredRequest]] = {}
    for request in batch:
        shapes = tuple(
            (name, values.shape[1:])
            for rows in (request.inputs, request.outputs)
            for name, values in rows.columns.items()
        )
        groups.setdefault((request.model, request.version, shapes), []).append(request)
    return list(groups.values())


def _write(group: Sequence[AnsweredRequest], folder: Path, redacted: frozenset[str]) -> None:
    counts = [request.inputs.count for request in group]

    def repeated(values: list[Any], dtype: str) -> Any:
        return np.repeat(np.array(values, dtype), counts)

    fixed = {
        "at": repeated([round(request.at * 1e6) for request in group], "int64"),
        "request_id": repeated([request.request_id for request in group], "object"),
        "row": np.concatenate([np.arange(count, dtype="int32") for count in counts]),
        "version": repeated([request.version for request in group], "int64"),
        "trace_id": repeated([request.trace_id for request in group], "object"),
        "seconds": repeated([request.seconds for request in group], "float64"),
    }
    inputs = joined([request.inputs for request in group])
    outputs = joined([request.outputs for request in group])
    table = to_table(fixed, inputs.columns, outputs.columns, redacted)
    request_log.write(folder, group[0].model, table)
