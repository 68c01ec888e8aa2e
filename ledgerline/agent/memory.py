"""An agent's memory: entries with questions and answers, or reports, which are recalled by similarity.

Entries are stored in vector_store.py, and selected in ranking.py. The callers write them and use them in
prompts.
"""

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ledgerline.agent import conventions as names
from ledgerline.agent.language_model import Embedder, LanguageModelError
from ledgerline.agent.local_embedding import PREFIX, LocalEmbedder, UnreadableEmbedderError
from ledgerline.agent.ranking import Candidate, Preferences, relevance, select
from ledgerline.agent.recording import Recorder
from ledgerline.agent.vector_store import REMEDY, Entry, Hit, Kind, VectorStore, VectorStoreError, exclusive
from ledgerline.errors import LedgerlineError

CURRENT = "current.json"
LOCK = "writing.lock"
LEARNED = "embedder.npz"
GENERATION = re.compile("entries-[0-9a-f]{12}")
READ_ATTEMPTS = 4
PREFERENCES = Preferences()

Result = TypeVar("Result")


class MemoryUnusableError(LedgerlineError):
    """A memory cannot be read or written."""


@dataclass(frozen=True)
class Recalled:
    """An entry that was recalled for a question.

    Attributes:
        relevance: Similarity to the question, from 0 to 1.
        score: Marginal relevance, given the entries that were recalled before it.
    """

    entry: Entry
    relevance: float
    score: float


@dataclass(frozen=True)
class _Generation:
    """A folder of entries with the vectors of one embedder."""

    folder: str
    embedder: str


class Memory:
    r"""Entries in a folder, each with a vector of the same embedder.

    Without an embedder, a local one is fitted to the entries (local_embedding.py), and again whenever their
    number has doubled. If the given embedder differs from the one that created the vectors, recall() returns
    nothing until `remember` or `reembed` has recomputed them.

    The vectors of a new embedder are written to another folder, and current.json, which names the current
    folder, is replaced last. Therefore readers in any process see either all old vectors or all new ones, and
    an interruption leaves the old ones. No folder is created, and no library loaded, before the first entry
    is written.

    Any number of threads and processes may use a memory.

    Args:
        folder: Folder that has no other content.
        embedder: Embedder of the entries; None for a local one.
        preferences: Weights of the selection.

    Example:
        >>> import tempfile
        >>> from datetime import UTC, datetime
        >>> from pathlib import Path
        >>> from ledgerline.agent.ollama_embedder import OllamaEmbedder
        >>> from ledgerline.testing.fake_ollama import EMBEDDING_MODEL, FakeOllama, scripted
        >>> text = "Question: Which shop sold the most?\nIt was Quay."
        >>> with FakeOllama(scripted()) as server, tempfile.TemporaryDirectory() as folder:
        ...     memory = Memory(Path(folder) / "memory", OllamaEmbedder(server.url, EMBEDDING_MODEL))
        ...     memory.remember([Entry("answer:1", "answer", text, "trace 1", datetime.now(UTC))])
        ...     recalled = memory.recall("Which shop sold most?", Recorder())
        >>> [result.entry.key for result in recalled]
        ['answer:1']
    """

    def __init__(
        self, folder: Path, embedder: Embedder | None = None, preferences: Preferences = PREFERENCES
    ) -> None:
        self._folder = folder
        self._embedder = embedder
        self._preferences = preferences
        self._store_in = lru_cache(maxsize=1)(lambda name: VectorStore(folder / name))
        self._embedder_in = lru_cache(maxsize=1)(lambda name: LocalEmbedder.load(folder / name / LEARNED))

    def remember(self, entries: Sequence[Entry]) -> None:
        """Write entries; an entry replaces an earlier one with the same key.

        The entries can be recalled when the call returns. Fitting a local embedder takes a tenth of a second
        for ten entries, and ten seconds for a hundred thousand.

        Raises:
            MemoryUnusableError: The entries cannot be written, or the embedder fails.
        """
        if entries:
            self._write({entry.key: entry for entry in entries})

    def reembed(self) -> None:
        """Recompute the vectors if they come from another embedder.

        Raises:
            MemoryUnusableError: The vectors cannot be written, or the embedder fails.
        """
        if self._current() is not None:
            self._write({})

    def forget(self, keys: Sequence[str]) -> int:
        """Delete entries from memory and disk, and return how many existed.

        A local embedder keeps the weights and topics that it was fitted to, as numbers for hashed words,
        until it is fitted again.

        Raises:
            MemoryUnusableError: The entries cannot be deleted.
        """
        if self._current() is None:
            return 0
        with _translated_errors(), exclusive(self._folder / LOCK):
            current = self._current()
            self._sweep(current)
            return 0 if current is None else self._store(current).delete(keys)

    def recall(
        self,
        question: str,
        recorder: Recorder,
        k: int = 20,
        limit: int = 4,
        kinds: Sequence[Kind] | None = None,
    ) -> tuple[Recalled, ...]:
        """Return the entries that are most relevant to a question, the best first.

        Args:
            question: Question in natural language.
            recorder: Recorder of the execution's spans.
            k: Number of nearest entries to select from.
            limit: Maximum number of entries.
            kinds: Kinds of entries; None for all.

        Raises:
            MemoryUnusableError: The folder is damaged, or the embedder fails.
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
                hits = self._read(
                    lambda generation: self._nearest(generation, question, recorder, k, kinds), ()
                )
                with recorder.span(names.RANKING):
                    recalled = self._ranked(hits, limit)
            span.set({names.RECALLED: len(recalled)})
            documents = [_document(entry) for entry in recalled]
            span.content({names.RETRIEVED: documents, names.MLFLOW_OUTPUTS: documents})
            return recalled

    def warm_up(self) -> None:
        """Load the libraries that recall() needs, which takes seconds, so that no execution waits for them.

        Raises:
            MemoryUnusableError: The folder is damaged, or the embedder fails.
        """
        self._read(lambda generation: self._nearest(generation, "", Recorder(), 1, None), ())

    def entries(self, limit: int | None = None) -> Sequence[Entry]:
        """Return the entries, the newest first.

        Raises:
            MemoryUnusableError: The folder is damaged.
        """
        return self._read(lambda generation: self._store(generation).list(limit), ())

    @property
    def count(self) -> int:
        """The number of entries."""
        return self._read(lambda generation: self._store(generation).count(), 0)

    def _nearest(
        self, generation: _Generation, question: str, recorder: Recorder, k: int, kinds: Sequence[Kind] | None
    ) -> Sequence[Hit]:
        store, embedder = self._store(generation), self._embedder_of(generation)
        if embedder is None:
            return ()
        vector = embedder.embed([question])[0]
        with recorder.span(names.VECTOR_SEARCH, {names.NEAREST: k}) as span:
            hits = store.nearest(vector, k, kinds)
            span.set({names.DISTANCES: tuple(round(hit.distance, 4) for hit in hits)})
            return hits

    def _ranked(self, hits: Sequence[Hit], limit: int) -> tuple[Recalled, ...]:
        now = datetime.now(UTC)
        candidates = [
            Candidate(relevance(hit.distance), (now - hit.entry.created) / timedelta(days=1), hit.vector)
            for hit in hits
        ]
        return tuple(
            Recalled(hits[chosen.position].entry, candidates[chosen.position].relevance, chosen.score)
            for chosen in select(candidates, limit, self._preferences)
        )

    def _read(self, read: Callable[[_Generation], Result], nothing: Result) -> Result:
        """Return the result of a read during which the current folder did not change."""
        for _ in range(READ_ATTEMPTS):
            generation = self._current()
            if generation is None:
                return nothing
            try:
                with _translated_errors():
                    result = read(generation)
            except MemoryUnusableError:
                if self._current() == generation:
                    raise
            else:
                if self._current() == generation:
                    return result
        raise MemoryUnusableError(
            f"The memory in {self._folder} changed during each of {READ_ATTEMPTS} attempts to read it.",
            "Try again.",
        )

    def _write(self, new: Mapping[str, Entry]) -> None:
        with _translated_errors(), exclusive(self._folder / LOCK):
            current = self._current()
            self._sweep(current)
            if current is None:
                self._rebuild(new)
                return
            store = self._store(current)
            embedder = self._embedder_to_keep(current, store, new)
            if embedder is None:
                self._rebuild({**{entry.key: entry for entry in store.list()}, **new})
            elif new:
                store.upsert(list(new.values()), embedder.embed([entry.text for entry in new.values()]))

    def _embedder_to_keep(
        self, current: _Generation, store: VectorStore, new: Mapping[str, Entry]
    ) -> Embedder | None:
        """Return the embedder of the existing vectors; None if all vectors have to be recomputed."""
        try:
            embedder = self._embedder_of(current)
        except UnreadableEmbedderError:
            return None
        if not isinstance(embedder, LocalEmbedder) or not new:
            return embedder
        count = len(store.keys() | new.keys())
        return None if count >= 2 * embedder.texts else embedder

    def _rebuild(self, entries: Mapping[str, Entry]) -> None:
        """Compute the vectors of all entries into a new folder, and make it the current one."""
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
        generation = _Generation(folder, embedder.name)
        unfinished = place / CURRENT
        unfinished.write_text(json.dumps(asdict(generation)))
        unfinished.replace(self._folder / CURRENT)
        self._sweep(generation)

    def _sweep(self, current: _Generation | None) -> None:
        """Remove folders that were replaced, or that an interruption left incomplete."""
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
        store = self._store_in(generation.folder)
        if not store.exists:
            raise _unusable(
                f"The memory in {self._folder} is incomplete: {generation.folder} has no entries."
            )
        return store

    def _embedder_of(self, generation: _Generation) -> Embedder | None:
        """Return the embedder of the vectors; None if another embedder is configured."""
        if self._embedder is not None:
            # An Ollama model without a tag means the tag `latest`.
            own, other = (name.removesuffix(":latest") for name in (self._embedder.name, generation.embedder))
            return self._embedder if own == other else None
        return self._embedder_in(generation.folder) if generation.embedder.startswith(PREFIX) else None


def _document(recalled: Recalled) -> Mapping[str, Any]:
    """Return an entry in the form in which MLflow shows the documents of a retriever."""
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
def _translated_errors() -> Iterator[None]:
    """Translate the errors of the store, of embedders and of files into MemoryUnusableError."""
    try:
        yield
    except (VectorStoreError, LanguageModelError, UnreadableEmbedderError) as error:
        raise MemoryUnusableError(error.problem, error.remedy) from error
    except OSError as error:
        raise _unusable(f"The memory cannot be read or written: {error}.") from error


def _unusable(problem: str) -> MemoryUnusableError:
    return MemoryUnusableError(problem, REMEDY)
