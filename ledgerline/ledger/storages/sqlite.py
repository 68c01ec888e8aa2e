"""Opens Dagster's storages in SQLite, and checks that they exist and can be written."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ledgerline.ledger.dagster_internals import (
    INDEX_SHARD_NAME,
    SQLITE_EVENT_LOG_FILENAME,
    ConsolidatedSqliteEventLogStorage,
    SqliteEventLogStorage,
    SqliteRunStorage,
)
from ledgerline.ledger.storages.config import InstanceError, StorageConfig
from ledgerline.ledger.storages.copied import (
    RUNS,
    CopiedConsolidatedEventLogStorage,
    CopiedEventLogStorage,
    CopiedRunStorage,
    Copies,
)
from ledgerline.ledger.storages.schema import READ_REVISION, REVISIONS, difference

# For each storage class: a database of every instance, a table in it, and the class that reads from copies.
KINDS: dict[type[Any], tuple[str, str, type[Any]]] = {
    SqliteRunStorage: (RUNS, "runs", CopiedRunStorage),
    SqliteEventLogStorage: (INDEX_SHARD_NAME, "event_logs", CopiedEventLogStorage),
    ConsolidatedSqliteEventLogStorage: (
        SQLITE_EVENT_LOG_FILENAME,
        "event_logs",
        CopiedConsolidatedEventLogStorage,
    ),
}


class SqliteInstanceStorage:
    """A storage of an instance, in a folder of SQLite databases.

    Args:
        config: Configuration of the storage.
        scratch: Folder for copies, which the caller deletes.
    """

    def __init__(self, config: StorageConfig, scratch: Path) -> None:
        self._config = config
        self._folder = Path(config.value["base_dir"]).absolute()
        self._database, self._table, self._reading = KINDS[config.storage]
        self._copies = Copies(self._folder, scratch / self._table)

    @property
    def identity(self) -> str:
        """The folder of the databases."""
        return str(self._folder)

    def why_only_read(self) -> str | None:
        """Return the reason why it is only read; None if it can be written.

        Raises:
            InstanceError: It does not exist, or is not a storage of Dagster.
        """
        file = self._folder / f"{self._database}.db"
        tables, revision = self._schema(file)
        if self._table not in tables:
            raise InstanceError(f"{file} is not a database of Dagster: it has no table {self._table}.")
        different = difference(tables, revision) if self._table == RUNS else None
        if different is not None:
            return f"{file} {different}"
        unwritable = [
            path for path in (self._folder, file) if not os.access(path, os.W_OK, effective_ids=True)
        ]
        return f"{unwritable[0]} cannot be written" if unwritable else None

    def made(self) -> Any:
        """Open it as Dagster does, which creates missing files."""
        return self._config.storage.from_config_value(None, self._config.value)

    opened = made  # An existing storage has no missing files.

    def opened_to_read(self) -> Any:
        """Open it read-only, without changes in its folder."""
        return self._reading(self._copies)

    def _schema(self, file: Path) -> tuple[set[str], str | None]:
        """Return the tables of a database, and the revision of its schema."""
        try:
            if not file.exists():
                raise InstanceError(
                    f"{self._folder} contains no runs of Dagster ({self._config.setting}): "
                    f"{file.name} does not exist."
                )
            with (
                self._copies.current(self._database),
                closing(sqlite3.connect(self._copies.folder / file.name)) as connection,
            ):
                rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                tables = {name for (name,) in rows}
                revision = connection.execute(READ_REVISION).fetchone() if REVISIONS in tables else None
        except OSError as error:
            raise InstanceError(f"{error.filename or file} cannot be read: {error.strerror}.") from error
        except sqlite3.DatabaseError as error:
            raise InstanceError(f"{file} cannot be read as a SQLite database: {error}.") from error
        return tables, revision[0] if revision else None
