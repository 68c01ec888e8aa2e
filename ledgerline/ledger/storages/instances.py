"""Opens the storages of Dagster instances for an observer, some of them read-only.

config.py reads the configuration of an instance; sqlite.py and postgres.py open its storages.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from ledgerline.ledger.cursors import CursorFolder, CursorStore
from ledgerline.ledger.dagster_internals import (
    DagsterStorage,
    InstanceType,
    LocalArtifactStorage,
    NoOpComputeLogManager,
)
from ledgerline.ledger.storages.config import CONFIG_FILE, InstanceError, StorageConfig, storages_of
from ledgerline.ledger.storages.copied import UnsteadyError
from ledgerline.ledger.storages.sqlite import KINDS, SqliteInstanceStorage

# Every DAGSTER_HOME contains at least one of these.
MARKS = (CONFIG_FILE, "history")
TABLES = ("runs", "event_logs")  # a table that exists in each of the two storages of every instance
POSTGRES = "dagster_postgres"
MAX_PROBLEM_LENGTH = 300


@dataclass(frozen=True)
class ObservedInstance:
    """An instance that was opened for an observer.

    Attributes:
        only_read: Reason why the instance is opened read-only; None if it is also written.
    """

    instance: dg.DagsterInstance
    cursor_store: CursorStore
    only_read: str | None


class ReadOnlyInstance(dg.DagsterInstance):
    """An instance that drops the events that are reported to it."""

    def report_dagster_event(self, *args: Any, **kwargs: Any) -> None:
        """Drop the event."""


class InstanceStorage(Protocol):
    """A storage of an instance that has not been opened yet."""

    @property
    def identity(self) -> str:
        """The address of the storage, without user and password."""
        ...

    def why_only_read(self) -> str | None:
        """Return the reason why it is only read; None if it can be written.

        Raises:
            InstanceError: The storage does not exist.
        """
        ...

    def made(self) -> Any:
        """Open it as Dagster does, which creates missing tables and files."""
        ...

    def opened(self) -> Any:
        """Open it."""
        ...

    def opened_to_read(self) -> Any:
        """Open it read-only."""
        ...


@contextmanager
def own_instance(home: Path) -> Iterator[ObservedInstance]:
    """Open the instance of this project, which is created if it does not exist.

    Raises:
        InstanceError: It cannot be opened.
    """
    with _configured(home) as storages, _opened(home, *(each.made() for each in storages)) as observed:
        yield observed


@contextmanager
def foreign_instance(home: Path, cursors: Path) -> Iterator[ObservedInstance]:
    """Open the instance of another project, read-only if it cannot, or must not, be written.

    Args:
        home: DAGSTER_HOME of the instance.
        cursors: Folder of the cursors of instances that are only read.

    Raises:
        InstanceError: The instance does not exist, or cannot be opened.
    """
    with _existing(home) as storages:
        reasons = [reason for storage in storages if (reason := storage.why_only_read()) is not None]
        with (
            _opened_to_read(home, storages, cursors, reasons[0])
            if reasons
            else _opened(home, *(storage.opened() for storage in storages))
        ) as observed:
            yield observed


@contextmanager
def only_read_instance(home: Path, cursors: Path) -> Iterator[ObservedInstance]:
    """Open an instance read-only: no events, cursors, tables or files are written to it.

    Raises:
        InstanceError: The instance does not exist, or cannot be opened.
    """
    with _existing(home) as storages:
        for storage in storages:
            storage.why_only_read()  # This raises an error if the storage does not exist.
        with _opened_to_read(home, storages, cursors, "--read-only") as observed:
            yield observed


@contextmanager
def _existing(home: Path) -> Iterator[list[InstanceStorage]]:
    """Yield the storages of an existing instance without opening them."""
    try:
        is_instance = any((home / mark).exists() for mark in MARKS)
    except OSError as error:
        raise InstanceError(f"{home} cannot be read: {error.strerror}.") from error
    if not is_instance:
        raise InstanceError(
            f"{home} is not a Dagster instance: it has no {' and no '.join(MARKS)}.",
            "Give --dagster-home the DAGSTER_HOME of an instance.",
        )
    with _configured(home) as storages:
        yield storages


@contextmanager
def _configured(home: Path) -> Iterator[list[InstanceStorage]]:
    """Yield the storages of runs and events that dagster.yaml configures, without opening them."""
    configured = zip(storages_of(home), TABLES, strict=True)
    with tempfile.TemporaryDirectory(prefix="ledgerline-") as scratch:
        try:
            yield [_storage(config, table, Path(scratch)) for config, table in configured]
        except Exception as error:
            if not _is_of_storage(error):
                raise
            problem = " ".join(str(getattr(error, "orig", None) or error).split())[:MAX_PROBLEM_LENGTH]
            raise InstanceError(f"The runs of {home} cannot be read: {problem}") from error


def _opened_to_read(
    home: Path, storages: list[InstanceStorage], cursors: Path, reason: str
) -> AbstractContextManager[ObservedInstance]:
    identities = "\n".join(storage.identity for storage in storages)
    folder = cursors / hashlib.sha256(identities.encode()).hexdigest()[:16]
    runs, events = (storage.opened_to_read() for storage in storages)
    return _opened(home, runs, events, CursorFolder(folder), reason)


@contextmanager
def _opened(
    home: Path,
    runs: Any,
    events: Any,
    cursor_store: CursorStore | None = None,
    only_read: str | None = None,
) -> Iterator[ObservedInstance]:
    """Yield an instance with these storages, after a first query has succeeded."""
    # DagsterInstance requires a coordinator, a compute log manager and a launcher, which an observer never
    # uses.
    instance = (dg.DagsterInstance if only_read is None else ReadOnlyInstance)(
        instance_type=InstanceType.PERSISTENT,
        local_artifact_storage=LocalArtifactStorage(str(home)),
        run_storage=runs,
        event_storage=events,
        run_coordinator=dg.QueuedRunCoordinator(),
        compute_log_manager=NoOpComputeLogManager(),
        run_launcher=dg.DefaultRunLauncher(),
    )
    with instance:
        for record in instance.get_run_records(limit=1):
            instance.get_records_for_run(record.dagster_run.run_id, limit=1)
        yield ObservedInstance(instance, cursor_store or instance.run_storage, only_read)


def _storage(config: StorageConfig, table: str, scratch: Path) -> InstanceStorage:
    if config.storage in KINDS:
        return SqliteInstanceStorage(config, scratch)
    if config.storage.__module__.startswith(POSTGRES):
        from ledgerline.ledger.storages.postgres import PostgresInstanceStorage

        return PostgresInstanceStorage(config, table)
    return OtherStorage(config, table)


@dataclass(frozen=True)
class OtherStorage:
    """A storage of another package, which is opened by its own class."""

    config: StorageConfig
    table: str

    @property
    def identity(self) -> str:
        """The setting and the class of the storage, because its address is unknown."""
        return f"{self.config.setting}: {self.config.storage.__qualname__}"

    def why_only_read(self) -> str | None:
        """Return None, because only a write can show whether the storage can be written."""
        return None

    def made(self) -> Any:
        """Open it as Dagster does."""
        storage = self.config.storage.from_config_value(None, self.config.value)
        if isinstance(storage, DagsterStorage):
            return storage.run_storage if self.table == TABLES[0] else storage.event_log_storage
        return storage

    opened = opened_to_read = made


def _is_of_storage(error: Exception) -> bool:
    """Return whether an error comes from a storage; each kind of storage has its own classes of errors."""
    return isinstance(error, SQLAlchemyError | UnsteadyError) or type(error).__module__.startswith(POSTGRES)
