"""Reads Dagster's SQLite storages from copies, so that the databases remain unchanged.

Each database is copied, and copied again after it has changed. SQLite cannot read without writing: opening a
database with a write-ahead log creates files beside it, and closing the last connection writes the database.
"""

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import Connection

from ledgerline.ledger.dagster_internals import (
    INDEX_SHARD_NAME,
    SQLITE_EVENT_LOG_FILENAME,
    ConsolidatedSqliteEventLogStorage,
    SqliteEventLogStorage,
    SqliteRunStorage,
    create_db_conn_string,
)
from ledgerline.ledger.storages.config import InstanceError

RUNS = "runs"
# Files beside the database contain the changes that have not been written to it yet.
SUFFIXES = ("", "-wal", "-journal")
MADE_BY_READING = "-shm"
# File systems store times at this precision, so two writes within it may have the same time.
TICK_SECONDS = 0.1
TRIES = 20
MAX_COPIES = 64

Stamp = tuple[tuple[int, int, int] | None, ...]


class UnsteadyError(InstanceError):
    """A database changes so often that no consistent copy of it can be made."""

    is_transient = True


@dataclass
class Copies:
    """Copies of the databases of a folder.

    Attributes:
        originals: Folder of the databases, which is not written.
        folder: Folder of the copies, of which the oldest are deleted.
    """

    originals: Path
    folder: Path
    _stamps: OrderedDict[str, Stamp | None] = field(default_factory=OrderedDict, init=False)
    # The lock is held while a copy is read, so that the copy does not change.
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def current(self, name: str) -> Iterator[None]:
        """Provide a current copy of a database, which does not change inside the `with` block."""
        with self._lock:
            self._renew(name)
            yield

    def _renew(self, name: str) -> None:
        for _ in range(TRIES):
            before = self._stamp(name)
            if before[0] is None or self._stamps.get(name) == before:
                return  # If the original does not exist, Dagster creates an empty copy.
            self._remove(name)
            for suffix, part in zip(SUFFIXES, before, strict=True):
                if part is not None:
                    # SQLite may have just merged the file into the database; the stamp then differs.
                    with suppress(FileNotFoundError):
                        shutil.copyfile(
                            self._path(self.originals, name, suffix), self._path(self.folder, name, suffix)
                        )
            if self._stamp(name) == before:
                self._note(name, before)
                return
        raise UnsteadyError(
            f"{self.originals / name}.db changed during each attempt to copy it.", "Try again."
        )

    def _note(self, name: str, stamp: Stamp) -> None:
        changed = max(part[1] for part in stamp if part is not None) / 1e9
        self._stamps[name] = stamp if time.time() - changed > TICK_SECONDS else None
        self._stamps.move_to_end(name)
        while len(self._stamps) > MAX_COPIES:
            oldest, _ = self._stamps.popitem(last=False)
            self._remove(oldest)

    def _remove(self, name: str) -> None:
        for suffix in (*SUFFIXES, MADE_BY_READING):
            self._path(self.folder, name, suffix).unlink(missing_ok=True)

    def _stamp(self, name: str) -> Stamp:
        return tuple(self._stamp_of(self._path(self.originals, name, suffix)) for suffix in SUFFIXES)

    @staticmethod
    def _stamp_of(file: Path) -> tuple[int, int, int] | None:
        try:
            status = file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @staticmethod
    def _path(folder: Path, name: str, suffix: str) -> Path:
        return folder / f"{name}.db{suffix}"


class CopiedRunStorage(SqliteRunStorage):
    """Runs, read from a copy."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        super().__init__(create_db_conn_string(str(copies.folder), RUNS))

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Connect to an up-to-date copy of the database."""
        with self._copies.current(RUNS), super().connect() as connection:
            yield connection


class CopiedEventLogStorage(SqliteEventLogStorage):
    """Event logs, one database for each run, read from copies."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        with copies.current(INDEX_SHARD_NAME):
            super().__init__(str(copies.folder))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._copies.current(shard), super()._connect(shard) as connection:
            yield connection


class CopiedConsolidatedEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """Event logs of all runs in one database, read from a copy."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        with copies.current(SQLITE_EVENT_LOG_FILENAME):
            super().__init__(str(copies.folder))

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._copies.current(SQLITE_EVENT_LOG_FILENAME), super()._connect() as connection:
            yield connection
