"""What an agent remembers: questions with their answers, and reports of the project; found again by likeness.

How entries are kept: vector_store.py. Which of those found are recalled: ranking.py. Who writes them, and
what becomes of them in a prompt, is not known here.
"""

import json
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ledgerline.agent import conventions as names
from ledgerline.agent.language_model import Embedder, LanguageModelError
from ledgerline.agent.local_embedding import PREFIX, LocalEmbedder, UnreadableEmbedderError
from ledgerline.agent.ranking import Candidate, Preferences, chosen, relevance
from ledgerline.agent.recording import Recorder
from ledgerline.agent.vector_store import REMEDY, Entry, Hit, Kind, VectorStore, VectorStoreError, exclusive
from ledgerline.errors import LedgerlineError

CURRENT = "current.json"
LOCK = "writing.lock"
LEARNED = "embedder.npz"
GENERATION = re.compile("entries-[0-9a-f]{12}")
SECONDS_OF_A_DAY = 86_400
READ_ATTEMPTS = 4
PREFERENCES = Preferences()

Found = TypeVar("Found")


class MemoryUnusableError(LedgerlineError):
    """Memory cannot be asked, or not be written.

    Args:
        problem: What is wrong, naming the thing.
        remedy: What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Recalled:
    """An entry that has to do with the question.

    Attributes:
        entry: The entry.
        relevance: How much it has to do with the question, from 0 to 1.
        score: What it adds to those recalled before it.
    """

    entry: Entry
    relevance: float
    score: float


@dataclass(frozen=True)
class _Generation:
    """Entries with the vectors of one embedder, in a folder of their own."""

    folder: str
    embedder: str


class Memory:
    """Entries in a folder, each with a vector of one embedder.

    With no embedder given, one is learned from the entries (local_embedding.py), and again each time that
    there are twice as many. Where another embedder is given than the one which made the vectors, nothing is
    recalled until they are made again: by the next `remember`, or by `reembed`.

    Vectors of a new embedder are made in a folder beside, and current.json, which names the folder that
    counts, is replaced last. So whoever reads meanwhile, in any process, sees all of the old or all of the
    new, and what is interrupted leaves the old. Nothing is created, and no library loaded, before the first
    entry.

    Any number of threads and processes may use it.

    Args:
        folder: For this alone.
        embedder: Makes the vectors; None: learned from the entries.
        preferences: What makes an entry worth recalling.
    """

    def __init__(
        self, folder: Path, embedder: Embedder | None = None, preferences: Preferences = PREFERENCES
    ) -> None:
        self._folder = folder
        self._embedder = embedder
        self._preferences = preferences
        self._opening = threading.Lock()
        self._opened: tuple[_Generation, VectorStore] | None = None
        self._loaded: tuple[_Generation, LocalEmbedder] | None = None

    def remember(self, entries: Sequence[Entry]) -> None:
        """Write entries; one whose key is known replaces what is there, and of the same key the last counts.

        Returns when they can be recalled. Learning from twice as many entries takes a tenth of a second for
        ten, and ten seconds for a hundred thousand.

        Raises:
            MemoryUnusableError: They cannot be written, or the embedder does not answer.
        """
        if entries:
            self._write({entry.key: entry for entry in entries})

    def reembed(self) -> None:
        """Make the vectors anew if they are not of the embedder given.

        Raises:
            MemoryUnusableError: They cannot be written, or the embedder does not answer.
        """
        if self._current() is not None:
            self._write({})

    def forget(self, keys: Sequence[str]) -> int:
        """Delete entries from memory and disk; how many there were.

        What a local embedder has learned from them stays until it learns anew: which words are rare and which
        occur together, as numbers of hashed words.

        Raises:
            MemoryUnusableError: They cannot be deleted.
        """
        if self._current() is None:
            return 0
        with _told(), exclusive(self._folder / LOCK):
            current = self._current()
            self._sweep(current)
            return 0 if current is None else self._store(current).delete(keys)

    def recall(
        self,
        question: str,
        recorder: Recorder,
        k: int = 20,
        most: int = 4,
        kinds: Sequence[Kind] | None = None,
    ) -> tuple[Recalled, ...]:
        """The few entries that have most to do with a question, the best first.

        Args:
            question: In words.
            recorder: Of this execution.
            k: How many of the nearest are looked at.
            most: How many are recalled at most.
            kinds: Only of these; None: of any.

        Raises:
            MemoryUnusableError: The folder is damaged, or the embedder does not answer.
        """
        attributes = {
            names.OPERATION: names.RETRIEVAL,
            names.DATA_SOURCE: self._folder.name,
            names.SPAN_TYPE: names.RETRIEVER_TYPE,
        }
        with recorder.span(names.RETRIEVE_MEMORY, attributes) as span:
            span.content({names.RETRIEVAL_QUERY: question, names.MLFLOW_INPUTS: {"question": question}})
            current = self._current()
            recalled: tuple[Recalled, ...] = ()
            if current is not None:
                span.set({names.EMBEDDER: current.embedder})
                hits = self._read(lambda there: self._nearest(there, question, recorder, k, kinds), ())
                with recorder.span(names.RANKING):
                    recalled = self._ranked(hits, most)
            span.set({names.RECALLED: len(recalled)})
            documents = [_document(found) for found in recalled]
            span.content({names.RETRIEVED: documents, names.MLFLOW_OUTPUTS: documents})
            return recalled

    def warm_up(self) -> None:
        """Load what recalling needs, a few seconds of libraries, so that no execution waits for it.

        Raises:
            MemoryUnusableError: The folder is damaged, or the embedder does not answer.
        """
        self._read(lambda generation: self._nearest(generation, "", Recorder(), 1, None), ())

    def entries(self, limit: int | None = None) -> Sequence[Entry]:
        """What is remembered, the newest first.

        Raises:
            MemoryUnusableError: The folder is damaged.
        """
        return self._read(lambda generation: self._store(generation).list(limit), ())

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self._read(lambda generation: self._store(generation).count(), 0)

    def _nearest(
        self,
        generation: _Generation,
        question: str,
        recorder: Recorder,
        k: int,
        kinds: Sequence[Kind] | None,
    ) -> Sequence[Hit]:
        store, embedder = self._store(generation), self._embedder_of(generation)
        if embedder is None:
            return ()
        vector = embedder.embed([question])[0]
        with recorder.span(names.VECTOR_SEARCH, {names.NEAREST: k}) as span:
            hits = store.nearest(vector, k, kinds)
            span.set({names.DISTANCES: tuple(round(hit.distance, 4) for hit in hits)})
            return hits

    def _ranked(self, hits: Sequence[Hit], most: int) -> tuple[Recalled, ...]:
        now = datetime.now(UTC)
        candidates = [
            Candidate(
                relevance(hit.distance),
                (now - hit.entry.created).total_seconds() / SECONDS_OF_A_DAY,
                hit.vector,
            )
            for hit in hits
        ]
        return tuple(
            Recalled(hits[found.position].entry, candidates[found.position].relevance, found.score)
            for found in chosen(candidates, most, self._preferences)
        )

    def _read(self, read: Callable[[_Generation], Found], nothing: Found) -> Found:
        """What is read of the folder that counts before and after."""
        for _ in range(READ_ATTEMPTS):
            generation = self._current()
            if generation is None:
                return nothing
            try:
                with _told():
                    found = read(generation)
            except MemoryUnusableError:
                if self._current() == generation:
                    raise
            else:
                if self._current() == generation:
                    return found
        raise MemoryUnusableError(f"The memory in {self._folder} changes all the time.", "Try again.")

    def _write(self, new: Mapping[str, Entry]) -> None:
        with _told(), exclusive(self._folder / LOCK):
            current = self._current()
            self._sweep(current)
            if current is None:
                self._begin(new)
                return
            store = self._store(current)
            embedder = self._fitting(current, store, new)
            if embedder is None:
                self._begin({**{entry.key: entry for entry in store.list()}, **new})
            elif new:
                store.upsert(list(new.values()), embedder.embed([entry.text for entry in new.values()]))

    def _fitting(self, current: _Generation, store: VectorStore, new: Mapping[str, Entry]) -> Embedder | None:
        """The embedder that goes on; None if vectors are to be made anew."""
        try:
            embedder = self._embedder_of(current)
        except UnreadableEmbedderError:
            return None
        if not isinstance(embedder, LocalEmbedder) or not new:
            return embedder
        count = store.count() + len(new) - len(store.get(list(new)))
        return None if count >= 2 * embedder.texts else embedder

    def _begin(self, entries: Mapping[str, Entry]) -> None:
        """Make the vectors of all entries, and let them be those that count."""
        if not entries:
            (self._folder / CURRENT).unlink(missing_ok=True)
            self._sweep(None)
            return
        folder = f"entries-{uuid.uuid4().hex[:12]}"
        place = self._folder / folder
        place.mkdir(parents=True)
        texts = [entry.text for entry in entries.values()]
        embedder = self._embedder
        if embedder is None:
            embedder = LocalEmbedder.fitted(texts)
            embedder.save(place / LEARNED)
        VectorStore(place).upsert(list(entries.values()), embedder.embed(texts))
        begun = _Generation(folder, embedder.name)
        unfinished = place / CURRENT
        unfinished.write_text(json.dumps(asdict(begun)))
        unfinished.replace(self._folder / CURRENT)
        self._sweep(begun)

    def _sweep(self, current: _Generation | None) -> None:
        """Remove what does not count: replaced, or interrupted before it did."""
        for place in self._folder.iterdir():
            if GENERATION.fullmatch(place.name) and (current is None or place.name != current.folder):
                shutil.rmtree(place)

    def _current(self) -> _Generation | None:
        file = self._folder / CURRENT
        try:
            return _Generation(**json.loads(file.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise _unusable(f"{file} cannot be read: {error}.") from error

    def _store(self, generation: _Generation) -> VectorStore:
        with self._opening:
            if self._opened is None or self._opened[0] != generation:
                self._opened = generation, VectorStore(self._folder / generation.folder)
            store = self._opened[1]
        if not store.exists:
            raise _unusable(
                f"The memory in {self._folder} is incomplete: {generation.folder} has no entries."
            )
        return store

    def _embedder_of(self, generation: _Generation) -> Embedder | None:
        """The embedder that made its vectors; None if that is not the one which is wanted."""
        if self._embedder is not None:
            return self._embedder if _is_same(self._embedder.name, generation.embedder) else None
        if not generation.embedder.startswith(PREFIX):
            return None
        with self._opening:
            if self._loaded is None or self._loaded[0] != generation:
                learned = self._folder / generation.folder / LEARNED
                self._loaded = generation, LocalEmbedder.load(learned)
            return self._loaded[1]


def _is_same(embedder: str, other: str) -> bool:
    """Return whether two names mean one embedder: a model of Ollama without a tag is the latest."""
    return embedder.removesuffix(":latest") == other.removesuffix(":latest")


def _document(recalled: Recalled) -> Mapping[str, Any]:
    """As MLflow shows what a retriever found."""
    entry = recalled.entry
    return {
        "id": entry.key,
        "page_content": entry.text,
        "metadata": {
            "doc_uri": entry.source,
            "kind": entry.kind,
            "created": entry.created.isoformat(),
            "relevance": round(recalled.relevance, 4),
            "score": round(recalled.score, 4),
        },
    }


@contextmanager
def _told() -> Iterator[None]:
    """Say in one way what can go wrong in many."""
    try:
        yield
    except (VectorStoreError, LanguageModelError) as error:
        raise MemoryUnusableError(error.problem, error.remedy) from error
    except UnreadableEmbedderError as error:
        raise MemoryUnusableError(
            f"{error}.", "It is made anew when the next entry is remembered."
        ) from error
    except OSError as error:
        raise _unusable(f"The memory cannot be read or written: {error}.") from error


def _unusable(problem: str) -> MemoryUnusableError:
    return MemoryUnusableError(problem, REMEDY)
