"""Keeps an agent's entries with their vectors in a folder, and finds the nearest: LanceDB, in this process.

Who makes the vectors, and which of the entries found are worth recalling, is not known here: memory.py.
"""

import fcntl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

Kind = Literal["answer", "report"]
Found = TypeVar("Found")

TABLE = "entries"
COLUMNS = ["key", "kind", "text", "source", "created"]

# Below, comparing with every vector takes a few milliseconds, and an index would only make it inexact.
INDEXED_FROM = 10_000
# What an index does not hold is compared one by one, and each write leaves files: tidied up after so many.
UNINDEXED_ROWS = 2_000
SCATTERED_WRITES = 40
# Measured over 100,000 entries: smaller ones lose neighbours, larger ones take longer.
ROWS_OF_A_PARTITION = 800
SEARCHED_PARTITIONS = 20
# Of learning where the partitions are. More takes time, and finds the same neighbours.
KMEANS_ROUNDS, KMEANS_ROWS_OF_A_PARTITION = 10, 128
# 0 would make LanceDB warn of readers it may disturb: here, they try again.
AT_ONCE = timedelta(milliseconds=1)
READ_ATTEMPTS = 4
REMEDY = (
    "See that the folder can be written and its disk has space; if it is damaged, put back a copy of it, or "
    "delete it to start with an empty memory."
)
ASKED_AT_ONCE = 1_000  # keys


class VectorStoreError(Exception):
    """The folder cannot be read or written.

    Args:
        problem: What is wrong, naming the folder.
        remedy: What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Entry:
    """Something to be recalled.

    Attributes:
        key: Chosen by whoever writes it: a later entry of the same key replaces it.
        kind: A question with its answer, or a report of the project.
        text: What is compared with a question, and what the agent is told.
        source: Where it comes from, for people: a URL, a path, the id of a run.
        created: When; with a time zone.
    """

    key: str
    kind: Kind
    text: str
    source: str
    created: datetime


@dataclass(frozen=True)
class Hit:
    """An entry that is near.

    Attributes:
        entry: The entry.
        distance: Cosine distance: 0 for the same direction, 1 if nothing is in common, 2 for the opposite.
        vector: The entry's.
    """

    entry: Entry
    distance: float
    vector: Sequence[float]


class VectorStore:
    """Entries in a folder, with vectors that all come from one embedder.

    Any number of threads and processes may use a folder: writers wait for each other, and readers see what
    was there before a write or after it. Nothing is created before the first entry is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opening = threading.Lock()
        self._opened: Table | None = None

    @property
    def exists(self) -> bool:
        """Whether an entry was ever written."""
        return (self._folder / f"{TABLE}.lance").is_dir()

    def upsert(self, entries: Sequence[Entry], vectors: Sequence[Sequence[float]]) -> None:
        """Write entries; one whose key is known replaces what is there.

        Args:
            entries: Of different keys.
            vectors: One for each, all of the length of those that are there.

        Raises:
            VectorStoreError: They cannot be written.
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
            _tidy_up(table, written.num_inserted_rows)

    def delete(self, keys: Sequence[str]) -> int:
        """Delete entries so that neither they nor their keys are left on the disk; how many there were.

        All others are written anew: LanceDB itself would keep a deleted row in its file until a tenth of the
        file is deleted. Interrupted, it is finished by the next deletion, whatever is deleted then.

        Raises:
            VectorStoreError: They cannot be deleted.
        """
        if not self.exists:
            return 0
        with self._writing():
            import pyarrow as pa

            table = self._table()
            if table is None:
                return 0
            unwanted = set(keys)
            deleted = len(unwanted.intersection(_scan(table, ["key"])["key"].to_pylist()))
            if deleted:
                rows = table.to_arrow()
                is_kept = pa.array([key not in unwanted for key in rows["key"].to_pylist()], pa.bool_())
                table.add(rows.filter(is_kept), mode="overwrite")
            table.optimize(cleanup_older_than=AT_ONCE, delete_unverified=True)
            _tidy_up(table, 0)
            return deleted

    def get(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """Those of these entries that are there, by key."""
        return {entry.key: entry for some in _batches(keys) for entry in self._some(some)}

    def list(self, limit: int | None = None) -> Sequence[Entry]:
        """The entries, the newest first."""
        found = self._read(lambda table: _scan(table, COLUMNS))
        if found is None:
            return []
        newest = found.sort_by([("created", "descending"), ("key", "ascending")])
        return _entries(newest.slice(0, limit))

    def count(self) -> int:
        """How many entries there are."""
        return self._read(lambda table: table.count_rows()) or 0

    def nearest(self, vector: Sequence[float], k: int, kinds: Sequence[Kind] | None = None) -> Sequence[Hit]:
        """The entries whose vectors point most nearly the same way, the nearest first.

        Exact below INDEXED_FROM entries; above, one of ten or fewer may be missed.

        Args:
            vector: What to compare with, from the embedder of the entries.
            k: How many at most.
            kinds: Only of these; None: of any.

        Raises:
            VectorStoreError: The folder is damaged, or its vectors are of another length.
        """
        found = self._read(lambda table: _search(table, vector, k, kinds))
        if found is None or not len(found):
            return []
        # Exact, where those of an index are not. A vector of zeros has no direction, and is left out.
        vectors = found["vector"].to_pylist()
        distances = _cosine_distances(vectors, vector)
        hits = map(Hit, _entries(found), distances, vectors)
        return sorted((hit for hit in hits if hit.distance >= 0), key=lambda hit: hit.distance)

    def _some(self, keys: Sequence[str]) -> Sequence[Entry]:
        found = self._read(lambda table: _scan(table, COLUMNS, _one_of("key", keys)))
        return [] if found is None else _entries(found)

    def _table(self) -> "Table | None":
        """The table, as it is now at each use; None if there is none."""
        with self._opening:
            if self._opened is None and self.exists:
                self._opened = _connected(self._folder).open_table(TABLE)
            return self._opened

    def _created(self, dimensions: int) -> "Table":
        import pyarrow as pa

        schema = pa.schema(
            [
                pa.field("key", pa.string(), nullable=False),
                pa.field("kind", pa.string(), nullable=False),
                pa.field("text", pa.string(), nullable=False),
                pa.field("source", pa.string(), nullable=False),
                pa.field("created", pa.timestamp("us", tz="UTC"), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            ]
        )
        with self._opening:
            table = self._opened = _connected(self._folder).create_table(TABLE, schema=schema)
            return table

    def _read(self, read: "Callable[[Table], Found]") -> Found | None:
        """What is read; None if there is no table. Files may go, replaced by new ones, while it is read."""
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                table = self._table()
                return None if table is None else read(table)
            except Exception as error:  # LanceDB's are of any type
                with self._opening:
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
                with self._opening:
                    self._opened = None
                raise _unusable(self._folder, error) from error


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Keep other threads and processes out of the block while it runs.

    Args:
        lock: A file for this alone; it and its folder are created.

    Raises:
        VectorStoreError: It cannot be written.
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
    columns = [[getattr(entry, column) for entry in entries] for column in COLUMNS]
    arrays = [
        pa.array(column, schema.field(name).type) for name, column in zip(COLUMNS, columns, strict=True)
    ]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dimensions))
    return pa.Table.from_arrays(arrays, schema=schema)


def _entries(rows: "pa.Table") -> list[Entry]:
    read = rows.select(COLUMNS).to_pylist()
    return [Entry(**{**row, "created": row["created"].astimezone(UTC)}) for row in read]


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), ASKED_AT_ONCE):
        yield keys[start : start + ASKED_AT_ONCE]


def _scan(table: "Table", columns: list[str], only: Any = None) -> "pa.Table":
    query = table.search().select(columns)
    return (query if only is None else query.where(only)).to_arrow()


def _one_of(column: str, values: Sequence[str]) -> Any:
    from lancedb.expr import col

    return col(column).isin(values)


def _search(table: "Table", vector: Sequence[float], k: int, kinds: Sequence[Kind] | None) -> "pa.Table":
    import numpy as np

    query: Any = table.search(np.asarray(vector, dtype=np.float32), vector_column_name="vector")
    # More partitions than these where it may find nearer ones there, or a filter leaves too few.
    query = query.minimum_nprobes(SEARCHED_PARTITIONS).maximum_nprobes(0)
    query = query.distance_type("cosine").limit(k).select([*COLUMNS, "vector", "_distance"])
    if kinds is not None:
        query = query.where(_one_of("kind", kinds), prefilter=True)
    try:
        return query.to_arrow()
    except Exception:  # LanceDB's are of any type
        dimensions = table.schema.field("vector").type.list_size
        if len(vector) != dimensions:
            raise _other_length(len(vector), dimensions) from None
        raise


def _cosine_distances(vectors: Sequence[Sequence[float]], vector: Sequence[float]) -> Sequence[float]:
    """Of each vector; not a number where there is no direction."""
    import numpy as np

    matrix, one = np.asarray(vectors, dtype=np.float64), np.asarray(vector, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        cosines = matrix @ one / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(one))
    return (1 - np.clip(cosines, -1, 1)).tolist()


def _tidy_up(table: "Table", added: int) -> None:
    """Index what is to be indexed, and join what is in many small files.

    Args:
        table: After a write.
        added: How many rows more there are for it.
    """
    from lancedb.index import IvfSq

    index = next(iter(table.list_indices()), None)
    rows = table.count_rows()
    # Of twice as many rows, an index is made anew: its partitions would become too large.
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
        f"The embedder makes vectors of {length:,} dimensions, and made those in memory with {expected:,}.",
        "Give the embedder another name where it is another model, or delete the memory's folder.",
    )


def _unusable(folder: Path, error: Exception) -> VectorStoreError:
    if isinstance(error, VectorStoreError):
        return error
    said = str(error).strip().splitlines()
    why = said[0].rstrip(".") if said else type(error).__name__
    return VectorStoreError(f"The memory in {folder} cannot be used: {why}.", REMEDY)
