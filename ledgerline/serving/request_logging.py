"""Answers on their way to the request log, written by a thread. Files and rows: requests/request_log.py."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerline.requests import request_log
from ledgerline.requests.logged_rows import to_table
from ledgerline.serving.rows import Rows, joined

if TYPE_CHECKING:
    import pyarrow as pa

# What is not written yet, at most: the rest is dropped, so that a full disk does not fill the memory, too.
MAX_ROWS = 200_000
# So many do not wait for the next flush.
FLUSH_ROWS = 50_000
# Whoever ends the service gives it some seconds, and the answers under way need these, too.
STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)


def _nothing(_rows: int) -> None:
    pass


@dataclass(frozen=True)
class Answered:
    """A request and its answer.

    Attributes:
        at: When the request came, in seconds since the epoch.
        request_id: Its id.
        model: The registered model.
        version: The version that answered.
        trace_id: Its trace, 32 hexadecimal digits; empty without.
        seconds: How long the answer took.
        inputs: What the model was given.
        outputs: What it answered.
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
    """Takes answers without ever waiting or raising, and writes them from a thread of its own.

    Attributes:
        folder: Where the log is.
        redacted: Columns of inputs and outputs whose values are not written.
        max_bytes: What the files may take; the oldest are deleted.
        flush_seconds: How often is written.
        on_dropped: Told how many rows will not be written.
        on_written: Told how many rows were written.
        most_rows: Rows that are not written yet, at most.
        flush_rows: So many rows do not wait for the next flush.
        stop_seconds: What stopping may take.
    """

    folder: Path
    redacted: frozenset[str]
    max_bytes: int
    flush_seconds: float = 10.0
    on_dropped: Callable[[int], None] = _nothing
    on_written: Callable[[int], None] = _nothing
    most_rows: int = MAX_ROWS
    flush_rows: int = FLUSH_ROWS
    stop_seconds: float = STOP_SECONDS
    _waiting: deque[Answered] = field(default_factory=deque, init=False, repr=False)
    _rows: int = field(default=0, init=False, repr=False)
    _being_written: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _wake: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _stopped: bool = field(default=False, init=False, repr=False)
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)
    _problem: str | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Begin to write; what was logged before waits."""
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()

    def log(self, answered: Answered) -> None:
        """Take an answer, if there is room for it."""
        count = answered.inputs.count
        # Held by the other thread for a few instructions only, never while it writes.
        with self._lock:
            taken = not self._stopped and self._rows + count <= self.most_rows
            if taken:
                self._waiting.append(answered)
                self._rows += count
            is_urgent = self._rows - self._being_written >= self.flush_rows
        if not taken:
            self._tell(self.on_dropped, count)
        if is_urgent:
            self._wake.set()

    def stop(self) -> None:
        """Write what is left, if that takes no longer than some seconds; nothing is taken afterwards."""
        with self._lock:
            already, self._stopped = self._stopped, True
        if already:
            return
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self.stop_seconds)
        with self._lock:
            left = self._rows
        if left:
            logger.warning("%d rows of requests were not written in time, and are lost.", left)
            self._tell(self.on_dropped, left)

    def _run(self) -> None:
        # Now, while nobody waits for an answer: imported at the first flush, it would delay some.
        import pyarrow.parquet  # noqa: F401

        self._guarded(lambda: request_log.remove_leftovers(self.folder))
        while not self._stopped:
            self._wake.wait(self.flush_seconds)
            self._wake.clear()
            self._flush()
        # What came between the last flush and the end.
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            batch = list(self._waiting)
            self._waiting.clear()
            self._being_written = self._rows
        if not batch:
            return
        problem = None
        for group in _groups(batch):
            rows = sum(answered.inputs.count for answered in group)
            failed = self._guarded(lambda group=group: self._write(group))
            problem = problem or failed
            with self._lock:
                self._rows -= rows
                self._being_written -= rows
            self._tell(self.on_dropped if failed else self.on_written, rows)
        problem = problem or self._guarded(lambda: request_log.keep_within(self.folder, self.max_bytes))
        self._report(problem)

    def _write(self, group: Sequence[Answered]) -> None:
        request_log.write(self.folder, group[0].model, _table(group, self.redacted))

    def _report(self, problem: str | None) -> None:
        """Say that something is wrong, and that it no longer is: each once."""
        if problem is not None and self._problem is None:
            logger.error("Requests are not logged in %s: %s. The service goes on.", self.folder, problem)
        elif problem is None and self._problem is not None:
            logger.info("Requests are logged in %s again.", self.folder)
        self._problem = problem

    def _guarded(self, action: Callable[[], object]) -> str | None:
        """What went wrong, if something did: the thread must outlive it."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 (a full disk, values that Parquet does not know, ...)
            return f"{type(error).__name__}: {error}"
        return None

    def _tell(self, listener: Callable[[int], None], rows: int) -> None:
        try:
            listener(rows)
        except Exception:
            logger.exception("Whoever counts the rows of the request log failed.")


def _groups(batch: Iterable[Answered]) -> list[list[Answered]]:
    """Answers that one file can hold: of the same version, with the same columns."""
    groups: dict[Any, list[Answered]] = {}
    for answered in batch:
        shapes = tuple(
            (name, values.shape[1:])
            for rows in (answered.inputs, answered.outputs)
            for name, values in rows.columns.items()
        )
        groups.setdefault((answered.model, answered.version, shapes), []).append(answered)
    return list(groups.values())


def _table(group: Sequence[Answered], redacted: frozenset[str]) -> "pa.Table":
    import numpy as np

    counts = [answered.inputs.count for answered in group]

    def repeated(values: list[Any], dtype: str) -> Any:
        return np.repeat(np.array(values, dtype), counts)

    fixed = {
        "at": repeated([round(answered.at * 1e6) for answered in group], "int64"),
        "request_id": repeated([answered.request_id for answered in group], "object"),
        "row": np.concatenate([np.arange(count, dtype="int32") for count in counts]),
        "version": repeated([answered.version for answered in group], "int64"),
        "trace_id": repeated([answered.trace_id for answered in group], "object"),
        "seconds": repeated([answered.seconds for answered in group], "float64"),
    }
    inputs = joined([answered.inputs for answered in group])
    outputs = joined([answered.outputs for answered in group])
    return to_table(fixed, inputs.columns, outputs.columns, redacted)
