"""Stores entries with their vectors in a folder, and searches the nearest ones, with LanceDB in this process.

Vectors are computed, and entries for the prompt are selected, in memory.py.
"""

import fcntl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ledgerline.errors import LedgerlineError
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

Kind = Literal["answer", "report"]
Result = TypeVar("Result")

TABLE = "entries"
COLUMNS = ["key", "kind", "text", "source", "created"]

# With fewer entries, comparing all vectors takes milliseconds, and an index would only make the result
# inexact.
INDEXED_FROM = 10_000
# Rows outside the index are compared one by one, and each write leaves files, so the table is optimised after
# this many unindexed rows or writes.
UNINDEXED_ROWS = 2_000
SCATTERED_WRITES = 40
# In a measurement with 100,000 entries, smaller partitions lost neighbours and larger ones took longer.
ROWS_OF_A_PARTITION = 800
SEARCHED_PARTITIONS = 20
# More rounds of k-means take longer, and lead to the same neighbours.
KMEANS_ROUNDS, KMEANS_ROWS_OF_A_PARTITION = 10, 128
# LanceDB would warn about concurrent readers if this were 0; readers retry here.
AT_ONCE = timedelta(milliseconds=1)
READ_ATTEMPTS = 4
REMEDY = (
    "Make sure that the folder is writable and its disk has space; if it is damaged, restore a copy of it, "
    "or delete it to start with an empty memory."
)


class VectorStoreError(LedgerlineError):
    """The folder of entries cannot be read or written."""


@dataclass(frozen=True)
class Entry:
    """A text that an agent can recall.

    Attributes:
        key: Unique key; a later entry with the same key replaces this one.
        kind: "answer" for a question with its answer, "report" for a report of the project.
        text: Text that is compared with a question, and that the prompt contains.
        source: Origin for readers: a URL, a path, the id of a run.
        created: Time of creation, with a time zone.
    """

    key: str
    kind: Kind
    text: str
    source: str
    created: datetime


@dataclass(frozen=True)
class Hit:
    """An entry in the result of a search.

    Attributes:
        distance: Cosine distance: 0 for the same direction, 1 for orthogonal vectors, 2 for opposite ones.
        vector: Vector of the entry.
    """

    entry: Entry
    distance: float
    vector: Sequence[float]


class VectorStore:
    """Entries in a folder, with vectors that all come from one embedder.

    Any number of threads and processes may use a folder: writers wait for each other, and readers see the
    state before a write or after it. The folder is created when the first entry is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opening = threading.Lock()
        self._opened: Table | None = None

    @property
    def exists(self) -> bool:
        """True if an entry was ever written."""
        return (self._folder / f"{TABLE}.lance").is_dir()

    def upsert(self, entries: Sequence[Entry], vectors: Sequence[Sequence[float]]) -> None:
        """Write entries with different keys; an entry replaces an existing one with the same key.

        Raises:
            VectorStoreError: The entries cannot be written, or their vectors have another length than before.
        """
        if not entries:
            return
        with self._writing():
            table = self._table()
            if table is None:
                table = self._created(len(vectors[0]))
            rows = _rows(entries, vectors, table)
            merge = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            written = merge.execute(rows)
            _optimize(table, written.num_inserted_rows)

    def delete(self, keys: Sequence[str]) -> int:
        """Delete entries with their keys from the disk, and return how many existed.

        All other entries are rewritten, because LanceDB keeps a deleted row in its file until a tenth of the
        file is deleted. The next deletion completes one that was interrupted.

        Raises:
            VectorStoreError: The entries cannot be deleted.
        """
        if not self.exists:
            return 0
        with self._writing():
            import pyarrow as pa

            table = self._table()
            if table is None:
                return 0
            unwanted = set(keys)
            deleted = len(unwanted & _keys(table))
            if deleted:
                rows = table.to_arrow()
                is_kept = pa.array([key not in unwanted for key in rows["key"].to_pylist()], pa.bool_())
                table.add(rows.filter(is_kept), mode="overwrite")
            table.optimize(cleanup_older_than=AT_ONCE, delete_unverified=True)
            _optimize(table, 0)
            return deleted

    def keys(self) -> set[str]:
        """Return the keys of all entries."""
        return self._read(_keys) or set()

    def list(self, limit: int | None = None) -> Sequence[Entry]:
        """Return the entries, the newest first."""
        rows = self._read(lambda table: _scan(table, COLUMNS))
        if rows is None:
            return []
        newest = rows.sort_by([("created", "descending"), ("key", "ascending")])
        return _entries(newest.slice(0, limit))

    def count(self) -> int:
        """Return the number of entries."""
        return self._read(lambda table: table.count_rows()) or 0

    def nearest(self, vector: Sequence[float], k: int, kinds: Sequence[Kind] | None = None) -> Sequence[Hit]:
        """Return the entries with the smallest cosine distance to a vector, the nearest first.

        The search is exact below INDEXED_FROM entries; with more, it may miss up to one of ten nearest
        entries. The kinds of entries may be limited.

        Raises:
            VectorStoreError: The folder is damaged, or its vectors have another length.
        """
        rows = self._read(lambda table: _search(table, vector, k, kinds))
        if rows is None or not len(rows):
            return []
        # The distances of an index are inexact, so they are computed here. Vectors of zeros are skipped.
        vectors = rows["vector"].to_pylist()
        distances = _cosine_distances(vectors, vector)
        hits = map(Hit, _entries(rows), distances, vectors)
        return sorted((hit for hit in hits if hit.distance >= 0), key=lambda hit: hit.distance)

    def _table(self) -> "Table | None":
        """Return the table, which always reads the latest state; None if it does not exist."""
        with self._opening:
            # A read that fails in another thread resets the attribute at any time.
            table = self._opened
            if table is None and self.exists:
                table = self._opened = _connected(self._folder).open_table(TABLE)
            return table

    def _created(self, dimensions: int) -> "Table":
        import pyarrow as pa

        types = dict.fromkeys(COLUMNS, pa.string()) | {
            "created": pa.timestamp("us", tz="UTC"),
            "vector": pa.list_(pa.float32(), dimensions),
        }
        schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])
        table = self._opened = _connected(self._folder).create_table(TABLE, schema=schema)
        return table

    def _read(self, read: "Callable[[Table], Result]") -> Result | None:
        """Return the result of a read; None without a table. It is repeated if files are replaced."""
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                table = self._table()
                return None if table is None else read(table)
            except Exception as error:  # LanceDB's errors have many types
                self._opened = None
                if not self.exists:
                    return None
                if attempt == READ_ATTEMPTS or isinstance(error, VectorStoreError):
                    raise _unusable(self._folder, error) from error
        return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with exclusive(self._folder / "writing.lock"):
            try:
                yield
            except Exception as error:
                self._opened = None
                raise _unusable(self._folder, error) from error


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Keep other threads and processes out of the block. The lock file is created together with its folder.

    Raises:
        VectorStoreError: The file cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise _unusable(lock.parent, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _connected(folder: Path) -> Any:
    require("agent", "An agent's memory")
    import lancedb

    return lancedb.connect(folder, read_consistency_interval=timedelta(0))


def _rows(entries: Sequence[Entry], vectors: Sequence[Sequence[float]], table: "Table") -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    schema = table.schema
    dimensions = schema.field("vector").type.list_size
    matrix = np.asarray(vectors, dtype=np.float32)
    if matrix.shape != (len(entries), dimensions):
        raise _other_length(matrix.shape[-1], dimensions)
    arrays = [
        pa.array([getattr(entry, name) for entry in entries], schema.field(name).type) for name in COLUMNS
    ]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dimensions))
    return pa.Table.from_arrays(arrays, schema=schema)


def _entries(rows: "pa.Table") -> list[Entry]:
    read = rows.select(COLUMNS).to_pylist()
    return [Entry(**{**row, "created": row["created"].astimezone(UTC)}) for row in read]


def _scan(table: "Table", columns: list[str]) -> "pa.Table":
    return table.search().select(columns).to_arrow()


def _keys(table: "Table") -> set[str]:
    return set(_scan(table, ["key"])["key"].to_pylist())


def _search(table: "Table", vector: Sequence[float], k: int, kinds: Sequence[Kind] | None) -> "pa.Table":
    import numpy as np
    from lancedb.expr import col

    query: Any = table.search(np.asarray(vector, dtype=np.float32), vector_column_name="vector")
    # It searches more partitions if they may have nearer entries, or if a filter leaves too few.
    query = query.minimum_nprobes(SEARCHED_PARTITIONS).maximum_nprobes(0)
    query = query.distance_type("cosine").limit(k).select([*COLUMNS, "vector", "_distance"])
    if kinds is not None:
        query = query.where(col("kind").isin(kinds), prefilter=True)
    try:
        return query.to_arrow()
    except Exception:  # LanceDB's errors have many types
        dimensions = table.schema.field("vector").type.list_size
        if len(vector) != dimensions:
            raise _other_length(len(vector), dimensions) from None
        raise


def _cosine_distances(vectors: Sequence[Sequence[float]], vector: Sequence[float]) -> Sequence[float]:
    """Return the distance of each vector; NaN if it has only zeros."""
    import numpy as np

    matrix, one = np.asarray(vectors, dtype=np.float64), np.asarray(vector, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        cosines = matrix @ one / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(one))
    return (1 - np.clip(cosines, -1, 1)).tolist()


def _optimize(table: "Table", added: int) -> None:
    """Index the rows, and compact small files, if that is due after a write that has added rows."""
    from lancedb.index import IvfSq

    index = next(iter(table.list_indices()), None)
    rows = table.count_rows()
    # When the number of rows has doubled, a new index is created, because the partitions of the old one would
    # become too large.
    if _doublings(rows) > (0 if index is None else _doublings(rows - added)):
        config = IvfSq(
            distance_type="cosine",
            num_partitions=rows // ROWS_OF_A_PARTITION,
            max_iterations=KMEANS_ROUNDS,
            sample_rate=KMEANS_ROWS_OF_A_PARTITION,
        )
        table.create_index("vector", config=config)
        return
    statistics = None if index is None else table.index_stats(index.name)
    is_unindexed = statistics is not None and statistics.num_unindexed_rows >= UNINDEXED_ROWS
    if is_unindexed or table.version % SCATTERED_WRITES == 0:
        table.optimize(cleanup_older_than=AT_ONCE, delete_unverified=True)


def _doublings(rows: int) -> int:
    return (rows // INDEXED_FROM).bit_length()


def _other_length(length: int, expected: int) -> VectorStoreError:
    return VectorStoreError(
        f"The embedder creates vectors of {length:,} dimensions, and those in memory have {expected:,}.",
        "Give the embedder another name if it is another model, or delete the memory's folder.",
    )


def _unusable(folder: Path, error: Exception) -> VectorStoreError:
    if isinstance(error, VectorStoreError):
        return error
    lines = str(error).strip().splitlines()
    why = lines[0].rstrip(".") if lines else type(error).__name__
    return VectorStoreError(f"The memory in {folder} cannot be used: {why}.", REMEDY)
