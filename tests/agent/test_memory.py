"""Tests that entries are recalled by similarity, recorded as spans, and deleted on request."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ledgerline.agent import conventions as names
from ledgerline.agent.language_model import ServerAbsentError
from ledgerline.agent.memory import Memory, MemoryUnusableError
from ledgerline.agent.recording import Recorder
from ledgerline.agent.vector_store import Entry
from tests.agent.concurrent_writers import write_at_once
from tests.project import PROJECT_ROOT

TODAY = datetime.now(UTC)
SILENT = Recorder()
TEXTS = {
    "carrier": "Which carrier had the most delayed arrivals in March? ExpressJet.",
    "snow": "How many flights were cancelled on February 8? 472, for a snowstorm.",
    "production": "Which model version is in production? Version 3.",
    "gate": "Why did version 4 fail the promotion gate? Its AUC was too low.",
    "jfk": "What is the average departure delay from JFK? 12 minutes.",
}

WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from ledgerline.agent.memory import Memory
from ledgerline.agent.vector_store import Entry

memory, name = Memory(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    text = f"question {number} of {name}"
    memory.remember([Entry(f"{name} {number}", "answer", text, "", datetime.now(UTC))])
"""


@dataclass
class FakeEmbedder:
    """An embedder of two dimensions, about snow and about planes. It can be out of order."""

    name: str = "fake:weather"
    is_absent: bool = False
    asked: list[str] = field(default_factory=list)

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        if self.is_absent:
            raise ServerAbsentError("Nobody answers.", "Start the server.")
        self.asked += texts
        return [(float("snow" in text), float("plane" in text)) for text in texts]


def entry(key: str, text: str = "", days: float = 0, kind: str = "answer") -> Entry:
    assert kind in ("answer", "report")
    return Entry(key, kind, text or TEXTS[key], f"http://127.0.0.1/{key}", TODAY - timedelta(days=days))


def some(count: int, of: str = "flight") -> list[Entry]:
    return [entry(f"{of} {number}", f"{of} number {number} was late") for number in range(count)]


def recalled(memory: Memory, question: str, limit: int = 4) -> list[str]:
    return [found.entry.key for found in memory.recall(question, SILENT, limit=limit)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def memory(folder: Path) -> Memory:
    return Memory(folder)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def recorder(exporter: InMemorySpanExporter, *, captures: bool) -> Recorder:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Recorder(provider.get_tracer("test"), captures=captures)


# Remembered and recalled


def test_an_empty_memory_recalls_nothing_and_creates_nothing(memory: Memory, folder: Path) -> None:
    memory.remember([])
    memory.reembed()
    assert recalled(memory, "anything") == []
    assert memory.count == 0
    assert list(memory.entries()) == []
    assert memory.forget(["any"]) == 0
    assert not folder.exists()


def test_an_empty_memory_loads_no_library(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from ledgerline.agent.memory import Memory; from ledgerline.agent.recording import Recorder;"
        "memory = Memory(Path(sys.argv[1])); memory.recall('?', Recorder()); memory.forget(['x']);"
        "sys.exit(str({'lancedb', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules) or ''))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_question_in_similar_words_recalls_its_entry(memory: Memory) -> None:
    memory.remember([entry(key) for key in TEXTS])
    assert recalled(memory, "cancelled flights in the snowstorm") == ["snow"]
    assert recalled(memory, "the version of the model in production")[0] == "production"
    assert recalled(memory, "What is the capital of France?") == []
    (found,) = memory.recall("departure delays at JFK", SILENT, limit=1)
    assert found.entry == entry("jfk")
    assert 0.2 < found.relevance <= 1
    assert 0 < found.score <= found.relevance


def test_a_new_entry_is_recalled_by_another_memory_at_once(memory: Memory, folder: Path) -> None:
    other = Memory(folder)
    for key in TEXTS:
        memory.remember([entry(key)])
        assert recalled(other, TEXTS[key])[0] == key
    assert other.count == len(TEXTS)


def test_an_entry_replaces_the_one_of_the_same_key(memory: Memory) -> None:
    memory.remember([entry("snow", "an old text"), entry("snow")])
    memory.remember([entry("snow", "cancelled for fog")])
    assert [found.text for found in memory.entries()] == ["cancelled for fog"]
    assert recalled(memory, "fog") == ["snow"]


def test_the_newest_entries_are_first(memory: Memory) -> None:
    memory.remember([entry(key, days=days) for days, key in enumerate(TEXTS)])
    assert [found.key for found in memory.entries(2)] == list(TEXTS)[:2]


def test_only_the_requested_kinds_are_recalled(memory: Memory) -> None:
    memory.remember([entry("answer", "gate AUC"), entry("report", "gate AUC", kind="report")])
    found = memory.recall("gate AUC", SILENT, kinds=["report"])
    assert [one.entry.key for one in found] == ["report"]


def test_the_newer_of_two_equal_entries_is_first(memory: Memory) -> None:
    memory.remember([entry("old", TEXTS["jfk"], days=400), entry("new", TEXTS["jfk"])])
    assert recalled(memory, "departure delay from JFK") == ["new", "old"]


# Forgotten


def test_a_forgotten_entry_is_neither_recalled_nor_on_the_disk(memory: Memory, folder: Path) -> None:
    memory.remember([entry(key) for key in TEXTS])
    assert memory.forget(["snow", "never there"]) == 1
    assert recalled(memory, TEXTS["snow"]) == []
    assert memory.count == len(TEXTS) - 1
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert any(b"ExpressJet" in content for content in files)
    assert not any(b"snowstorm" in content or b"/snow" in content for content in files)


def test_everything_can_be_forgotten_and_remembered_again(memory: Memory) -> None:
    memory.remember([entry("snow"), entry("gate")])
    assert memory.forget(["snow", "gate"]) == 2
    assert recalled(memory, TEXTS["snow"]) == []
    memory.remember([entry("snow")])
    assert recalled(memory, TEXTS["snow"]) == ["snow"]


def test_entries_can_be_forgotten_without_their_embedder(folder: Path) -> None:
    Memory(folder, FakeEmbedder()).remember([entry("snow")])
    assert Memory(folder, FakeEmbedder("fake:other", is_absent=True)).forget(["snow"]) == 1


# Embedders


def test_a_local_embedder_is_fitted_again_when_the_entries_have_doubled(memory: Memory, folder: Path) -> None:
    learned = []
    for one in [*some(8), *some(8)]:
        memory.remember([one])
        learned.append(json.loads((folder / "current.json").read_text())["embedder"])
    assert [learned.index(name) + 1 for name in dict.fromkeys(learned)] == [1, 2, 4, 8]
    assert len(list(folder.glob("entries-*"))) == 1


def test_a_given_embedder_is_used(folder: Path) -> None:
    embedder = FakeEmbedder()
    memory = Memory(folder, embedder)
    memory.remember([entry("a", "snow today"), entry("b", "a plane")])
    assert recalled(memory, "is there snow?") == ["a"]
    assert embedder.asked == ["snow today", "a plane", "is there snow?"]


def test_another_embedder_recalls_nothing_until_vectors_are_computed_again(folder: Path) -> None:
    Memory(folder).remember([entry("snow"), entry("gate")])
    memory = Memory(folder, FakeEmbedder())
    assert recalled(memory, "snow") == []
    assert memory.count == 2
    memory.reembed()
    assert recalled(memory, "snow") == ["snow"]
    assert recalled(Memory(folder), TEXTS["snow"]) == []
    Memory(folder).remember([entry("jfk")])
    assert recalled(Memory(folder), TEXTS["snow"]) == ["snow"]
    assert Memory(folder).count == 3


@pytest.mark.parametrize(("before", "now"), [("", ":latest"), (":latest", "")])
def test_another_form_of_the_same_models_name_recalls_the_entries(
    folder: Path, before: str, now: str
) -> None:
    Memory(folder, FakeEmbedder(f"ollama:weather{before}")).remember([entry("snow"), entry("gate")])
    assert recalled(Memory(folder, FakeEmbedder(f"ollama:weather{now}")), "snow") == ["snow"]
    assert recalled(Memory(folder, FakeEmbedder("ollama:weather:1b")), "snow") == []


def test_a_new_entry_with_another_embedder_computes_all_vectors_again(folder: Path) -> None:
    Memory(folder).remember([entry("snow")])
    memory = Memory(folder, FakeEmbedder())
    memory.remember([entry("plane", "a plane")])
    assert recalled(memory, "snow") == ["snow"]
    assert recalled(memory, "plane") == ["plane"]


def test_an_interrupted_write_leaves_the_existing_entries(folder: Path) -> None:
    memory = Memory(folder)
    memory.remember([entry("snow")])
    with pytest.raises(MemoryUnusableError, match="Nobody answers"):
        Memory(folder, FakeEmbedder(is_absent=True)).reembed()
    assert len(list(folder.glob("entries-*"))) == 2
    assert recalled(memory, TEXTS["snow"]) == ["snow"]
    assert memory.forget([]) == 0
    assert len(list(folder.glob("entries-*"))) == 1


def test_other_files_in_the_folder_are_left_alone(memory: Memory, folder: Path) -> None:
    (folder / "entries-of-mine").mkdir(parents=True)
    (folder / "entries-of-mine" / "note.txt").write_text("keep")
    memory.remember([entry("snow")])
    memory.remember([entry("gate")])
    memory.forget(["gate"])
    assert (folder / "entries-of-mine" / "note.txt").read_text() == "keep"


# Unusable


def test_an_unavailable_embedder_is_reported_with_a_remedy(folder: Path) -> None:
    embedder = FakeEmbedder()
    memory = Memory(folder, embedder)
    memory.remember([entry("snow")])
    embedder.is_absent = True
    with pytest.raises(MemoryUnusableError) as error:
        memory.recall("snow", SILENT)
    assert (error.value.problem, error.value.remedy) == ("Nobody answers.", "Start the server.")
    with pytest.raises(MemoryUnusableError):
        memory.remember([entry("gate")])
    assert memory.count == 1


@pytest.mark.parametrize("pattern", ["current.json", "embedder.npz", "*.manifest", "data/*.lance"])
def test_a_damaged_memory_is_unusable(memory: Memory, folder: Path, pattern: str) -> None:
    memory.remember([entry(key) for key in TEXTS])
    for file in folder.rglob(pattern):
        file.write_bytes(b"not this")
    with pytest.raises(MemoryUnusableError) as error:
        Memory(folder).recall(TEXTS["snow"], SILENT)
    assert str(folder) in error.value.problem
    assert error.value.remedy


def test_a_memory_whose_entries_are_missing_is_unusable(memory: Memory, folder: Path) -> None:
    memory.remember([entry("snow")])
    (generation,) = folder.glob("entries-*")
    shutil.rmtree(generation)
    with pytest.raises(MemoryUnusableError, match="incomplete"):
        memory.recall("snow", SILENT)
    with pytest.raises(MemoryUnusableError, match="incomplete"):
        memory.remember([entry("gate")])


def test_a_local_embedder_whose_file_is_lost_is_fitted_again(memory: Memory, folder: Path) -> None:
    memory.remember([entry(key) for key in TEXTS])
    for file in folder.rglob("embedder.npz"):
        file.write_bytes(b"not this")
    again = Memory(folder)
    again.remember([entry("more", "something else")])
    assert recalled(again, TEXTS["snow"])[0] == "snow"
    assert again.count == len(TEXTS) + 1


# Several at once


def test_fifty_questions_at_once_are_answered(memory: Memory) -> None:
    memory.remember([entry(key) for key in TEXTS])
    asked = [list(TEXTS)[number % len(TEXTS)] for number in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda key: recalled(memory, TEXTS[key], limit=1), asked))
    assert answers == [[key] for key in asked]


def test_a_concurrent_recall_reads_the_old_or_the_new_vectors(memory: Memory, folder: Path) -> None:
    memory.remember([entry("snow")])
    done = threading.Event()

    def ask(reader: Memory) -> int:
        times = 0
        while not done.is_set() or times == 0:
            assert recalled(reader, TEXTS["snow"], limit=1) == ["snow"]
            assert reader.count > 0
            times += 1
        return times

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(ask, reader) for reader in (memory, memory, Memory(folder))]
        try:
            for one in some(20, of="gate"):
                memory.remember([one])
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    assert memory.count == 21


def test_two_processes_that_write_entries_at_once_lose_nothing(memory: Memory, folder: Path) -> None:
    write_at_once(WRITER, folder)
    assert memory.count == 20
    assert recalled(memory, "question 7 of second", limit=1) == ["second 7"]


# Recorded


def spans_of(memory: Memory, exporter: InMemorySpanExporter, *, captures: bool) -> dict[str, ReadableSpan]:
    memory.recall("delays at JFK", recorder(exporter, captures=captures), k=3, limit=2)
    return {span.name: span for span in exporter.get_finished_spans()}


def test_recalling_is_recorded_as_spans(memory: Memory, folder: Path, exporter: InMemorySpanExporter) -> None:
    memory.remember([entry(key) for key in TEXTS])
    embedder = json.loads((folder / "current.json").read_text())["embedder"]
    spans = spans_of(memory, exporter, captures=False)
    assert set(spans) == {names.RETRIEVE_MEMORY, names.VECTOR_SEARCH, names.RANKING}
    whole, search = spans[names.RETRIEVE_MEMORY], spans[names.VECTOR_SEARCH]
    assert dict(whole.attributes or {}) == {
        names.OPERATION: "retrieval",
        names.DATA_SOURCE: "memory",
        names.SPAN_TYPE: "RETRIEVER",
        names.EMBEDDER: embedder,
        names.RECALLED: 1,
    }
    attributes = dict(search.attributes or {})
    distances = attributes.pop(names.DISTANCES)
    assert attributes == {names.NEAREST: 3}
    assert isinstance(distances, tuple)
    assert len(distances) == 3
    assert list(distances) == sorted(round(float(str(distance)), 4) for distance in distances)
    assert whole.context is not None
    for name in (names.VECTOR_SEARCH, names.RANKING):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == whole.context.span_id


def test_queries_and_results_are_recorded_only_if_the_switch_is_on(
    memory: Memory, exporter: InMemorySpanExporter
) -> None:
    memory.remember([entry(key) for key in TEXTS])
    attributes = dict(spans_of(memory, exporter, captures=True)[names.RETRIEVE_MEMORY].attributes or {})
    assert attributes[names.RETRIEVAL_QUERY] == "delays at JFK"
    assert attributes[names.MLFLOW_OUTPUTS] == attributes[names.RETRIEVED]
    first = json.loads(str(attributes[names.MLFLOW_OUTPUTS]))[0]
    assert (first["id"], first["page_content"]) == ("jfk", TEXTS["jfk"])
    assert first["metadata"]["doc_uri"] == "http://127.0.0.1/jfk"


def test_an_empty_memory_is_recorded_as_one_span(memory: Memory, exporter: InMemorySpanExporter) -> None:
    spans = spans_of(memory, exporter, captures=False)
    assert set(spans) == {names.RETRIEVE_MEMORY}
    assert (spans[names.RETRIEVE_MEMORY].attributes or {})[names.RECALLED] == 0


def test_an_unusable_memory_is_recorded_as_an_error(folder: Path, exporter: InMemorySpanExporter) -> None:
    embedder = FakeEmbedder()
    memory = Memory(folder, embedder)
    memory.remember([entry("snow")])
    embedder.is_absent = True
    with pytest.raises(MemoryUnusableError):
        memory.recall("snow", recorder(exporter, captures=True))
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert (span.attributes or {})["error.type"] == "MemoryUnusableError"


def test_warming_up_finds_and_changes_nothing(tmp_path: Path) -> None:
    empty, full = Memory(tmp_path / "empty"), Memory(tmp_path / "full")
    full.remember([Entry("a", "answer", "How late was it? 5 minutes.", "", datetime.now(UTC))])
    empty.warm_up()
    full.warm_up()

    assert not (tmp_path / "empty").exists()
    assert full.count == 1
    assert [found.entry.key for found in full.recall("How late was it?", Recorder())] == ["a"]
