"""Tests entries with vectors in a real LanceDB: concurrent writes, searches and deletions."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledgerline.agent.vector_store import (
    INDEXED_FROM,
    SCATTERED_WRITES,
    UNINDEXED_ROWS,
    Entry,
    VectorStore,
    VectorStoreError,
)
from tests.agent.concurrent_writers import write_at_once

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EAST, NORTH, WEST = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)
SECRET = "the launch code is tangerine"
STRANGE_KEYS = [
    "it's",
    "100%",
    "a\nline",
    '"double"',
    "back\\slash",
    "'; DROP TABLE entries; --",
    "_",
    "ü 飛",
    "",
]

WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from ledgerline.agent.vector_store import Entry, VectorStore

store, name = VectorStore(Path(sys.argv[1])), sys.argv[2]
at = datetime(2026, 3, 1, tzinfo=UTC)
print("ready", flush=True)
sys.stdin.readline()
for number in range(12):
    for key in (f"{name} {number}", f"shared {number}"):
        store.upsert([Entry(key, "answer", name, "", at)], [(1.0, 0.0, 0.0)])
    if number % 4 == 3:
        store.delete([f"{name} {number}"])
"""


def entry(key: str, text: str = "", **fields: Any) -> Entry:
    return Entry(
        **{"key": key, "kind": "answer", "text": text, "source": "a test", "created": NOON, **fields}
    )


def keys(entries: Sequence[Entry]) -> list[str]:
    return [found.key for found in entries]


def texts(store: VectorStore) -> dict[str, str]:
    return {entry.key: entry.text for entry in store.list()}


def holding(folder: Path, text: str) -> list[Path]:
    """The files that hold a text."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if text.encode() in file.read_bytes()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> VectorStore:
    return VectorStore(folder)


# Written and read


def test_nothing_is_created_before_the_first_entry(store: VectorStore, folder: Path) -> None:
    store.upsert([], [])
    assert store.count() == 0
    assert list(store.list()) == list(store.nearest(EAST, 5)) == []
    assert store.keys() == set()
    assert store.delete(["any"]) == 0
    assert not store.exists
    assert not folder.exists()


def test_an_entry_is_read_as_it_was_written(store: VectorStore) -> None:
    written = entry("a", "Why?\nBecause.", kind="report", source="http://127.0.0.1/runs/1")
    store.upsert([written], [EAST])
    assert list(store.list()) == [written]
    assert store.keys() == {"a"}
    assert store.count() == 1


def test_an_entry_replaces_the_one_of_the_same_key(store: VectorStore) -> None:
    store.upsert([entry("a", "old"), entry("b")], [EAST, EAST])
    store.upsert([entry("a", "new"), entry("c")], [NORTH, NORTH])
    assert store.count() == 3
    assert texts(store)["a"] == "new"
    assert keys([hit.entry for hit in store.nearest(EAST, 1)]) == ["b"]


def test_the_newest_are_listed_first(store: VectorStore) -> None:
    written = [entry(str(number), created=NOON + timedelta(days=number % 7)) for number in range(30)]
    store.upsert(written, [EAST] * 30)
    newest = sorted(written, key=lambda one: (-one.created.timestamp(), one.key))
    assert list(store.list()) == newest
    assert list(store.list(4)) == newest[:4]


@pytest.mark.parametrize("key", STRANGE_KEYS)
def test_any_text_is_a_key(store: VectorStore, key: str) -> None:
    store.upsert([entry(key, "old"), entry("another")], [EAST, EAST])
    store.upsert([entry(key, "new")], [EAST])
    assert texts(store)[key] == "new"
    assert store.delete([key]) == 1
    assert keys(store.list()) == ["another"]


def test_an_entry_of_one_store_is_read_by_another_at_once(store: VectorStore, folder: Path) -> None:
    other = VectorStore(folder)
    assert other.count() == 0
    store.upsert([entry("a")], [EAST])
    assert other.count() == 1
    other.upsert([entry("b")], [EAST])
    assert store.count() == 2
    store.delete(["a"])
    assert keys(other.list()) == ["b"]


# Result


def test_the_nearest_are_found_with_their_cosine_distances(store: VectorStore) -> None:
    store.upsert([entry("north"), entry("east"), entry("west")], [NORTH, (5.0, 0.0, 0.0), WEST])
    hits = store.nearest((2.0, 0.0, 0.0), 5)
    assert keys([hit.entry for hit in hits]) == ["east", "north", "west"]
    assert [hit.distance for hit in hits] == pytest.approx([0, 1, 2], abs=1e-6)
    assert list(hits[0].vector) == [5, 0, 0]
    assert len(store.nearest(EAST, 2)) == 2


def test_only_the_requested_kinds_are_found(store: VectorStore) -> None:
    store.upsert([entry("a"), entry("b", kind="report")], [EAST, NORTH])
    assert keys([hit.entry for hit in store.nearest(EAST, 1, kinds=["report"])]) == ["b"]
    assert len(store.nearest(EAST, 5, kinds=["report", "answer"])) == 2


def test_a_vector_without_direction_is_never_near(store: VectorStore) -> None:
    store.upsert([entry("zero"), entry("east")], [(0.0, 0.0, 0.0), EAST])
    assert keys([hit.entry for hit in store.nearest(EAST, 5)]) == ["east"]


def test_vectors_of_another_length_are_refused(store: VectorStore) -> None:
    store.upsert([entry("a")], [EAST])
    with pytest.raises(VectorStoreError, match="2 dimensions, and those in memory have 3"):
        store.upsert([entry("b")], [(1.0, 0.0)])
    with pytest.raises(VectorStoreError, match="2 dimensions, and those in memory have 3"):
        store.nearest((1.0, 0.0), 5)
    assert keys(store.list()) == ["a"]


def test_with_an_index_nearly_all_of_the_nearest_are_found(store: VectorStore) -> None:
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(150, 16))
    near = centres[chance.integers(0, 150, INDEXED_FROM + UNINDEXED_ROWS)]
    vectors: Any = (near + 0.4 * chance.normal(size=near.shape)).astype(np.float32)
    entries = [entry(str(number)) for number in range(len(vectors))]
    store.upsert(entries[:INDEXED_FROM], vectors[:INDEXED_FROM])
    assert index_of(store).num_unindexed_rows == 0
    store.upsert(entries[INDEXED_FROM:-1], vectors[INDEXED_FROM:-1])
    store.upsert(entries[-1:], vectors[-1:])
    assert index_of(store).num_unindexed_rows < UNINDEXED_ROWS

    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for asked in range(0, len(vectors), 400):
        exact = set(np.argsort(-(directions @ directions[asked]))[:10].tolist())
        found = {int(hit.entry.key) for hit in store.nearest(vectors[asked], 10)}
        shares.append(len(exact & found) / 10)
    assert np.mean(shares) > 0.95
    assert store.delete([entries[0].key]) == 1
    assert store.nearest(vectors[0], 1)[0].entry.key != entries[0].key
    assert index_of(store).num_unindexed_rows == 0


def index_of(store: VectorStore) -> Any:
    table = store._table()
    assert table is not None
    (index,) = table.list_indices()
    return table.index_stats(index.name)


# Deleted


def test_a_deleted_entry_is_not_on_the_disk(store: VectorStore, folder: Path) -> None:
    others = [entry(f"other {number}", f"text {number}") for number in range(99)]
    store.upsert([*others, entry("secret key", SECRET)], [EAST] * 100)
    assert holding(folder, SECRET)
    assert store.delete(["secret key", "other 5", "never there"]) == 2
    assert store.count() == 98
    assert holding(folder, SECRET) == holding(folder, "secret key") == []
    assert holding(folder, "text 6")


def test_a_replaced_entry_is_removed_by_the_next_deletion(store: VectorStore, folder: Path) -> None:
    store.upsert([entry("a", SECRET)], [EAST])
    store.upsert([entry("a", "harmless"), entry("b")], [EAST, EAST])
    assert store.delete(["b"]) == 1
    assert holding(folder, SECRET) == []
    assert texts(store)["a"] == "harmless"


def test_an_interrupted_deletion_is_finished_by_the_next(store: VectorStore, folder: Path) -> None:
    store.upsert([entry("a", SECRET), entry("b", "kept")], [EAST, EAST])
    table = store._table()
    assert table is not None
    table.add(table.to_arrow().slice(1), mode="overwrite")  # as far as it got
    assert holding(folder, SECRET)
    assert store.delete([]) == 0
    assert holding(folder, SECRET) == []
    assert keys(store.list()) == ["b"]


def test_everything_can_be_deleted_and_written_again(store: VectorStore) -> None:
    store.upsert([entry("a"), entry("b")], [EAST, EAST])
    assert store.delete(["a", "b"]) == 2
    assert store.count() == 0
    assert list(store.nearest(EAST, 5)) == []
    store.upsert([entry("a")], [EAST])
    assert keys(store.list()) == ["a"]


# Several at once


def test_two_processes_that_write_at_once_lose_nothing(store: VectorStore, folder: Path) -> None:
    write_at_once(WRITER, folder)
    kept = [number for number in range(12) if number % 4 != 3]
    own = {f"{name} {number}" for name in ("first", "second") for number in kept}
    assert sorted(keys(store.list())) == sorted(own | {f"shared {number}" for number in range(12)})


def test_threads_that_write_at_once_lose_nothing(folder: Path) -> None:
    shared = VectorStore(folder)

    def write(writer: int) -> None:
        store = shared if writer % 2 else VectorStore(folder)
        for number in range(6):
            store.upsert([entry(f"{writer} {number}"), entry("shared", str(writer))], [EAST, NORTH])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted(keys(shared.list())) == sorted(
        ["shared", *(f"{a} {b}" for a in range(8) for b in range(6))]
    )


def test_many_small_writes_are_joined(store: VectorStore, folder: Path) -> None:
    for number in range(SCATTERED_WRITES + 5):
        store.upsert([entry(str(number))], [EAST])
    assert store.count() == SCATTERED_WRITES + 5
    assert len(list(folder.rglob("*.lance"))) < SCATTERED_WRITES


def test_deletions_do_not_disturb_a_reader(store: VectorStore, folder: Path) -> None:
    store.upsert([entry(str(number)) for number in range(40)], [EAST] * 40)
    done = threading.Event()

    def read() -> int:
        reader, times = VectorStore(folder), 0
        while not done.is_set() or times == 0:
            found = keys([hit.entry for hit in reader.nearest(EAST, 50)])
            assert "39" in found
            assert {"39"} <= reader.keys()
            times += 1
        return times

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for number in range(20):
                assert store.delete([str(number)]) == 1
        finally:
            done.set()
        assert all(reader.result() for reader in readers)


# Damaged


def damaged(folder: Path, pattern: str) -> VectorStore:
    files = list(folder.rglob(pattern))
    assert files
    for file in files:
        file.write_bytes(b"not this")
    return VectorStore(folder)


@pytest.mark.parametrize("pattern", ["*.manifest", "data/*.lance"])
def test_a_damaged_folder_is_reported_as_unusable(store: VectorStore, folder: Path, pattern: str) -> None:
    store.upsert([entry("a")], [EAST])
    broken = damaged(folder, pattern)
    with pytest.raises(VectorStoreError) as error:
        broken.nearest(EAST, 5)
    assert str(folder) in error.value.problem
    assert "delete it" in error.value.remedy
    with pytest.raises(VectorStoreError):
        broken.delete(["a"])


def test_a_table_of_another_program_is_reported_as_unusable(folder: Path) -> None:
    import lancedb

    lancedb.connect(folder).create_table("entries", [{"name": "something else"}])
    with pytest.raises(VectorStoreError):
        VectorStore(folder).nearest(EAST, 5)
    with pytest.raises(VectorStoreError):
        VectorStore(folder).upsert([entry("a")], [EAST])


def test_a_folder_that_cannot_be_created_is_reported_as_unusable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VectorStoreError, match="cannot be used"):
        VectorStore(tmp_path / "file" / "store").upsert([entry("a")], [EAST])
