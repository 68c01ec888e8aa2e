"""Runs SQL that a model wrote over some tables, and nothing else. What is let through: sql_check.py.

Three walls stand behind each other: a query has only what is listed in sql_check.py; it runs in a read-only
transaction; and the database is in memory, without files, network, extensions or settings. Still it is part
of this process: no wall is around the memory that a single row of a query needs.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledgerline.agent.sql_check import QueryError, explained, one_select, tables_of
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LONGEST_SQL = 4000  # characters
CUT = "…"
AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class Column:
    """A column as the model is told of it.

    Attributes:
        name: As in SQL.
        type: DuckDB's name of it.
        description: What it holds, with the unit.
    """

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Table:
    """A table that may be queried.

    Attributes:
        name: As in SQL, in small letters.
        description: What a row is.
        columns: What the model is told of.
        read: Gives the rows; called once, when a query first needs them. A ToolError of it is told the model.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    read: "Callable[[], pa.Table]"


@dataclass(frozen=True)
class Limits:
    """What a query may use.

    Attributes:
        rows: Of the answer.
        columns: Of the answer.
        characters: Of one cell.
        bytes: Of all cells, in UTF-8; the first row is given in any case.
        seconds: To run; reading a table for the first time is not counted.
        megabytes: Of memory, for the tables and all queries that run at once.
        threads: Of DuckDB's own, for all queries; each also has the one that runs it.
        longest: Characters of the SQL.
    """

    rows: int = 50
    columns: int = 60
    characters: int = 200
    bytes: int = 16_000
    seconds: float = 5
    megabytes: int = 512
    threads: int = 1
    longest: int = LONGEST_SQL


@dataclass(frozen=True)
class Found:
    """What a query found.

    Attributes:
        columns: Their names.
        types: Their types, by DuckDB's names.
        rows: Cells as DuckDB writes them, None for NULL; a longer cell is cut and ends with "…".
        has_more: Whether there are more rows than these.
        has_cut_cells: Whether a cell was cut.
        seconds: It took, reading tables for the first time included.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    has_more: bool
    has_cut_cells: bool
    seconds: float

    @property
    def is_cut(self) -> bool:
        """Whether there is more than this."""
        return self.has_more or self.has_cut_cells


class SqlSandbox:
    """A database in memory, with tables that are copied into it when a query first needs them.

    They are copied: DuckDB aggregates its own tables as fast as Arrow's and filters them several times
    faster, and a query then needs no function that reads raw memory. Any number of threads may use it.
    """

    def __init__(self, tables: tuple[Table, ...], limits: Limits | None = None) -> None:
        self.tables = tables
        self.limits = limits or Limits()
        self._by_name = {table.name: table for table in tables}
        self._lock = threading.Lock()
        self._database: _Database | None = None

    def run(self, sql: str, seconds: float) -> Found:
        """Run one SELECT statement.

        Args:
            sql: In DuckDB's dialect.
            seconds: What is left of the execution's time.

        Raises:
            QueryError: It was refused, or could not be run; the message is for the model.
            ToolError: A table cannot be read.
        """
        if len(sql) > self.limits.longest:
            raise QueryError(f"The SQL is longer than {self.limits.longest} characters.")
        started = time.monotonic()
        database = self._opened()
        with self._explaining(database), database.connection.cursor() as cursor:
            # The parenthesis is on a line of its own: the last one may end with a comment.
            query = f"(\n{one_select(sql, cursor)}\n)"
            one_select(query, cursor)
            self._load(database, tables_of(query, self._by_name, cursor), started + seconds)
            left = min(self.limits.seconds, started + seconds - time.monotonic())
            with _interrupted_after(cursor, left):
                return self._run(cursor, query, started)

    def close(self) -> None:
        """Give the memory back; a later query reads its tables again."""
        with self._lock:
            if self._database is not None:
                self._database.connection.close()
                self._database = None

    def _opened(self) -> "_Database":
        with self._lock:
            if self._database is None:
                self._database = _Database(closed_database(self.limits))
            return self._database

    def _load(self, database: "_Database", names: set[str], until: float) -> None:
        if names <= database.loaded:
            return
        if not database.loading.acquire(timeout=max(until - time.monotonic(), 0)):
            raise QueryError("The tables are still being read: ask again later.")
        try:
            for name in sorted(names - database.loaded):
                table = self._by_name[name]
                columns = ", ".join(f'"{column.name}"' for column in table.columns)
                with database.connection.cursor() as owner:
                    owner.register("rows_read", table.read())
                    owner.execute(f'CREATE TABLE "{name}" AS SELECT {columns} FROM rows_read')  # noqa: S608 (ours)
                    owner.unregister("rows_read")
                database.loaded.add(name)
        finally:
            database.loading.release()

    def _run(self, cursor: "duckdb.DuckDBPyConnection", query: str, started: float) -> Found:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        described = cursor.execute(f"DESCRIBE FROM {query}").fetchall()
        if len(described) > self.limits.columns:
            raise QueryError(f"{len(described)} columns are too many: select those that you need.")
        # Texts are cut where they are made: Python holds no long one, nor a value that it has no type for.
        cursor.execute(
            f"SELECT left(CAST(COLUMNS(*) AS VARCHAR), {self.limits.characters + 1}) "  # noqa: S608 (checked)
            f"FROM {query} LIMIT {self.limits.rows + 1}"
        )
        found = cursor.fetchmany(self.limits.rows + 1)
        rows = []
        size = 0
        for row in found[: self.limits.rows]:
            cut = tuple(map(self._cut, row))
            size += sum(len(cell.encode()) for cell in cut if cell is not None)
            if rows and size > self.limits.bytes:
                break
            rows.append(cut)
        return Found(
            columns=tuple(column[0] for column in described),
            types=tuple(column[1] for column in described),
            rows=tuple(rows),
            has_more=len(rows) < len(found),
            has_cut_cells=any(rows[number] != row for number, row in enumerate(found[: len(rows)])),
            seconds=time.monotonic() - started,
        )

    def _cut(self, cell: str | None) -> str | None:
        if cell is None or len(cell) <= self.limits.characters:
            return cell
        return cell[: self.limits.characters] + CUT

    @contextmanager
    def _explaining(self, database: "_Database") -> Iterator[None]:
        """Turn DuckDB's errors into the model's."""
        import duckdb

        try:
            yield
        except duckdb.InterruptException as error:
            raise QueryError("The query took too long and was ended: filter or aggregate more.") from error
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            raise QueryError(
                f"The query needs more than the {self.limits.megabytes} MB of memory that there are: "
                "filter or aggregate more."
            ) from error
        except (duckdb.FatalException, duckdb.InternalException) as error:
            # Such a database answers nothing any more.
            with self._lock:
                if self._database is database:
                    self._database = None
            raise QueryError("The database failed at this query: write it in another way.") from error
        except duckdb.Error as error:
            raise QueryError(explained(error)) from error


@dataclass(frozen=True, eq=False)
class _Database:
    connection: "duckdb.DuckDBPyConnection"
    loaded: set[str] = field(default_factory=set)
    loading: threading.Lock = field(default_factory=threading.Lock)


def closed_database(limits: Limits) -> "duckdb.DuckDBPyConnection":
    """A database without a way out, after DuckDB's pages on securing it."""
    require("agent", "SQL over tables")
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "python_enable_replacements": False,  # otherwise Python's variables are tables
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "allow_community_extensions": False,
            "allow_extension_repositories": "forbidden",
            "allow_persistent_secrets": False,
            "max_temp_directory_size": "0B",
            "memory_limit": f"{limits.megabytes}MB",
            "threads": limits.threads,
        },
    )
    # In this order: each forbids to set the one before it.
    connection.execute("SET temp_directory = ''")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def _interrupted_after(cursor: "duckdb.DuckDBPyConnection", seconds: float) -> Iterator[None]:
    """Interrupt what a cursor does once the time is over, until the end of the block."""
    done = threading.Event()

    def interrupt() -> None:
        if not done.wait(max(seconds, 0)):
            cursor.interrupt()
            # Between two statements there is nothing to interrupt, and the next one would run on.
            while not done.wait(AGAIN_SECONDS):
                cursor.interrupt()

    watch = threading.Thread(target=interrupt, name="sql-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
