"""Runs a model's SQL over some tables. The allowed constructs are listed in sql_check.py.

There are three layers of protection: a query may use only the constructs listed in sql_check.py; it runs in a
read-only transaction; and the database is in memory, without access to files, network, extensions or
settings. The database still runs in this process, and the memory for a single row of a query is not limited.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledgerline.agent.sql_check import QueryError, message_for_model, single_select, tables_read
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MAX_SQL_CHARACTERS = 4000  # characters
CUT = "…"
AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class Column:
    """A column, as it is described to the model.

    Attributes:
        type: DuckDB's name of the type.
        description: Content of the column, with its unit.
    """

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Table:
    """A table that may be queried.

    Attributes:
        name: Name in SQL, in lower case.
        description: Meaning of a row.
        read: Function that returns the rows; it is called once, when a query first needs them. The message
            of a ToolError that it raises is returned to the model.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    read: "Callable[[], pa.Table]"


@dataclass(frozen=True)
class Limits:
    """The limits of a query.

    Attributes:
        rows: Maximum number of rows of the result.
        columns: Maximum number of columns of the result.
        characters: Maximum length of a cell.
        bytes: Maximum size of all cells in UTF-8; the first row is returned in any case.
        seconds: Time limit, without reading a table for the first time.
        megabytes: Maximum memory of the tables and all concurrent queries.
        threads: Number of DuckDB's own threads for all queries, besides the threads that call it.
    """

    rows: int = 50
    columns: int = 60
    characters: int = 200
    bytes: int = 16_000
    seconds: float = 5
    megabytes: int = 512
    threads: int = 1


@dataclass(frozen=True)
class QueryResult:
    """The result of a query.

    Attributes:
        rows: Cells as texts of DuckDB, None for NULL; a cell that is too long is cut and ends with "…".
        has_more: True if there are more rows than these.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    has_more: bool
    has_cut_cells: bool

    @property
    def is_cut(self) -> bool:
        """True if this is only a part of the result."""
        return self.has_more or self.has_cut_cells


class SqlSandbox:
    """A database in memory, into which tables are copied when a query first needs them.

    Tables are copied because DuckDB filters its own tables several times faster than Arrow's and aggregates
    them as fast, and because a query then needs no function that reads raw memory. Safe to use from several
    threads at once.
    """

    def __init__(self, tables: tuple[Table, ...], limits: Limits | None = None) -> None:
        self.tables = tables
        self.limits = limits or Limits()
        self._by_name = {table.name: table for table in tables}
        self._lock = threading.Lock()
        self._database: _Database | None = None

    def run(self, sql: str, seconds: float) -> QueryResult:
        """Run one SELECT statement in DuckDB's dialect, within the time limit.

        Raises:
            QueryError: The query was refused, or failed; the message is for the model.
            ToolError: A table cannot be read.
        """
        if len(sql) > MAX_SQL_CHARACTERS:
            raise QueryError(f"The SQL is longer than {MAX_SQL_CHARACTERS} characters.")
        until = time.monotonic() + seconds
        database = self._opened()
        with self._translated_errors(database), database.connection.cursor() as cursor:
            # The parenthesis is on a separate line, because the last line of the SQL may end with a comment.
            query = f"(\n{single_select(sql, cursor)}\n)"
            single_select(query, cursor)
            self._load(database, tables_read(query, self._by_name, cursor), until)
            left = min(self.limits.seconds, until - time.monotonic())
            with _interrupted_after(cursor, left):
                return self._run(cursor, query)

    def close(self) -> None:
        """Release the memory; a later query reads its tables again."""
        with self._lock:
            if self._database is not None:
                self._database.connection.close()
                self._database = None

    def _opened(self) -> "_Database":
        with self._lock:
            if self._database is None:
                self._database = _Database(isolated_database(self.limits))
            return self._database

    def _load(self, database: "_Database", names: set[str], until: float) -> None:
        if names <= database.loaded:
            return
        if not database.loading.acquire(timeout=max(until - time.monotonic(), 0)):
            raise QueryError("The tables are still being read.", "Try again later.")
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

    def _run(self, cursor: "duckdb.DuckDBPyConnection", query: str) -> QueryResult:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        described = cursor.execute(f"DESCRIBE FROM {query}").fetchall()
        if len(described) > self.limits.columns:
            raise QueryError(f"{len(described)} columns are too many.", "Select those that you need.")
        # DuckDB itself casts and cuts the values, so Python never holds a long text or a value of an unknown
        # type.
        cursor.execute(
            f"SELECT left(CAST(COLUMNS(*) AS VARCHAR), {self.limits.characters + 1}) "  # noqa: S608 (checked)
            f"FROM {query} LIMIT {self.limits.rows + 1}"
        )
        fetched = cursor.fetchmany(self.limits.rows + 1)
        rows = []
        size = 0
        for row in fetched[: self.limits.rows]:
            cut = tuple(map(self._cut, row))
            size += sum(len(cell.encode()) for cell in cut if cell is not None)
            if rows and size > self.limits.bytes:
                break
            rows.append(cut)
        return QueryResult(
            columns=tuple(column[0] for column in described),
            rows=tuple(rows),
            has_more=len(rows) < len(fetched),
            has_cut_cells=any(rows[number] != row for number, row in enumerate(fetched[: len(rows)])),
        )

    def _cut(self, cell: str | None) -> str | None:
        if cell is None or len(cell) <= self.limits.characters:
            return cell
        return cell[: self.limits.characters] + CUT

    @contextmanager
    def _translated_errors(self, database: "_Database") -> Iterator[None]:
        """Translate DuckDB's errors into errors for the model."""
        import duckdb

        try:
            yield
        except duckdb.InterruptException as error:
            raise QueryError(
                "The query took too long and was stopped.", "Filter or aggregate more."
            ) from error
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            raise QueryError(
                f"The query needs more than the available {self.limits.megabytes} MB of memory.",
                "Filter or aggregate more.",
            ) from error
        except (duckdb.FatalException, duckdb.InternalException) as error:
            # After such an error, DuckDB refuses all further queries.
            with self._lock:
                if self._database is database:
                    self._database = None
            raise QueryError("The database failed at this query.", "Write it in another way.") from error
        except duckdb.Error as error:
            raise QueryError(message_for_model(error)) from error


@dataclass(frozen=True, eq=False)
class _Database:
    connection: "duckdb.DuckDBPyConnection"
    loaded: set[str] = field(default_factory=set)
    loading: threading.Lock = field(default_factory=threading.Lock)


def isolated_database(limits: Limits) -> "duckdb.DuckDBPyConnection":
    """Return a database without access to files and network, following DuckDB's documentation on security."""
    require("agent", "SQL over tables")
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "python_enable_replacements": False,  # otherwise, queries can read Python's variables as tables
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
    # The order matters, because each setting prevents changes of the previous one.
    connection.execute("SET temp_directory = ''")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def _interrupted_after(cursor: "duckdb.DuckDBPyConnection", seconds: float) -> Iterator[None]:
    """Interrupt the cursor's query when the time limit is over, until the end of the block."""
    done = threading.Event()

    def interrupt() -> None:
        if not done.wait(max(seconds, 0)):
            cursor.interrupt()
            # An interrupt between two statements has no effect, so it is repeated.
            while not done.wait(AGAIN_SECONDS):
                cursor.interrupt()

    watch = threading.Thread(target=interrupt, name="sql-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
