"""What an agent's memory costs: writing it, finding the nearest entries, and a whole recall.

    .venv/bin/python -m benchmarks.agent_memory [--entries 100000] [--json FILE]

The entries are questions and answers about real flights, with vectors of the embedder that needs no language
model. Beside the search of memory: comparing with every vector in numpy, and LanceDB without an index.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from assets.source import read_source
from benchmarks.results import Result, Value
from ledgerline.agent.local_embedding import DIMENSIONS, LocalEmbedder
from ledgerline.agent.memory import Memory
from ledgerline.agent.recording import Recorder
from ledgerline.agent.vector_store import COLUMNS, INDEXED_FROM, TABLE, Entry, VectorStore

WIDTH = 132  # where the output is no terminal
QUERIES = 200
WARM_UP = 20
NEAREST = 20
COMPARED = 10  # of the nearest: recall@10
SEED = 7
FIELDS = {
    "month": "int64",
    "day": "int64",
    "carrier": "str",
    "flight": "int64",
    "tailnum": "str",
    "origin": "str",
    "dest": "str",
    "dep_delay": "float64",
    "arr_delay": "float64",
    "distance": "float64",
    "air_time": "float64",
}
PAIRS = """\
How late was {carrier} {flight} from {origin} to {dest} on {day_of}? {arr_delay:.0f} minutes.
Which plane flew from {origin} to {dest} as {carrier} {flight} on {day_of}? {tailnum}, {distance:.0f} miles.
How long was {carrier} {flight} to {dest} in the air on {day_of}? {air_time:.0f} minutes from {origin}.
What was the delay of {tailnum} at {dest} on {day_of}? {arr_delay:.0f}, after {dep_delay:.0f} at {origin}.
""".splitlines()
QUESTIONS = (
    "delay of flight {carrier} {flight} to {dest} in month {month}",
    "Which plane did {carrier} use from {origin} to {dest} on {day_of}?",
    "minutes in the air from {origin} to {dest} with {carrier}",
    "Was {tailnum} late at {dest}?",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000, help="how many are remembered")
    parser.add_argument("--json", type=Path, help="a file to write all numbers to")
    arguments = parser.parse_args()

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    about = {
        "processors": psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        "lancedb": version("lancedb"),
        "entries": arguments.entries,
        "dimensions": DIMENSIONS,
    }
    console.print(about)
    entries, questions = flights(arguments.entries)
    with tempfile.TemporaryDirectory(prefix="ledgerline-benchmark-") as folder:
        memory = Memory(Path(folder, "memory"))
        results = [writing(memory, entries, Path(folder)), searching(memory, questions, Path(folder))]
        results.append(changing(memory, entries))
    for result in results:
        result.show(console)
    if arguments.json is not None:
        told = {"machine": about, "results": [result.as_json() for result in results]}
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


def flights(count: int) -> tuple[list[Entry], list[str]]:
    """Entries about flights, and questions about others."""
    rows = read_source("flights.csv.zip", FIELDS).dropna()
    chosen = rows.sample(count + QUERIES + WARM_UP, random_state=SEED, replace=count > len(rows) // 2)
    chosen["day_of"] = [f"2013-{row.month:02}-{row.day:02}" for row in chosen.itertuples()]
    told = [{str(name): value for name, value in row.items()} for row in chosen.to_dict("records")]
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    entries = [
        Entry(f"{number}", "answer", PAIRS[number % 4].format(**row), "", noon - timedelta(minutes=number))
        for number, row in enumerate(told[:count])
    ]
    return entries, [QUESTIONS[number % 4].format(**row) for number, row in enumerate(told[count:])]


def writing(memory: Memory, entries: Sequence[Entry], folder: Path) -> Result:
    """All entries at once, as a whole and in parts."""
    texts = [entry.text for entry in entries]
    learning, embedder = timed(lambda: LocalEmbedder.fitted(texts))
    embedding, vectors = timed(lambda: embedder.embed(texts))
    storing, _ = timed(lambda: VectorStore(folder / "alone").upsert(entries, vectors))
    whole, _ = timed(lambda: memory.remember(entries))
    size = sum(file.stat().st_size for file in folder.joinpath("memory").rglob("*") if file.is_file())
    rows = [
        ("an embedder learns from the texts", learning, None),
        ("it embeds them", embedding, None),
        ("they are stored and indexed", storing, None),
        ("remember(): all of it", whole, size / 1e6),
    ]
    note = f"From {INDEXED_FROM:,} entries on, there is an index."
    return Result("writing", f"Writing {len(entries):,} entries", ("what", "s", "MB on disk"), rows, (note,))


def searching(memory: Memory, questions: Sequence[str], folder: Path) -> Result:
    """Each question with each way to search."""
    import lancedb

    (place,) = folder.glob("memory/entries-*")
    embedder, store = LocalEmbedder.load(place / "embedder.npz"), VectorStore(place)
    table: Any = lancedb.connect(place).open_table(TABLE)
    rows = table.to_arrow()
    keys = rows["key"].to_pylist()
    matrix = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSIONS)
    asked: Any = embedder.embed(questions)

    def in_numpy(number: int) -> list[str]:
        near = matrix @ asked[number]
        best = np.argpartition(-near, NEAREST)[:NEAREST]
        return [keys[position] for position in best[np.argsort(-near[best])]]

    def without_index(number: int) -> list[str]:
        query = table.search(asked[number], vector_column_name="vector").distance_type("cosine")
        found = query.bypass_vector_index().limit(NEAREST).select([*COLUMNS, "_distance"])
        return found.to_arrow()["key"].to_pylist()

    def with_index(number: int) -> list[str]:
        return [hit.entry.key for hit in store.nearest(asked[number], NEAREST)]

    def recalled(number: int) -> None:
        memory.recall(questions[number], Recorder(), k=NEAREST)

    exact = [in_numpy(number)[:COMPARED] for number in range(len(questions))]
    ways: dict[str, Callable[[int], list[str] | None]] = {
        "every vector, in numpy": in_numpy,
        "every vector, in LanceDB": without_index,
        "VectorStore.nearest()": with_index,
        "Memory.recall(): embed, search, rank": recalled,
    }
    measured = [(way, *_measured(search, exact)) for way, search in ways.items()]
    return Result(
        "searching",
        f"{len(questions) - WARM_UP} questions to {len(keys):,} entries, one after the other",
        ("how", "median, ms", "p95, ms", "p99, ms", f"recall@{COMPARED}"),
        measured,
        ("Goal: p99 under 20 ms at 100,000 entries; recall of 0.9.",),
    )


def changing(memory: Memory, entries: Sequence[Entry]) -> Result:
    """One entry more, and one less, of many."""
    more = [
        Entry(f"more {number}", "answer", f"more of {number}", "", entries[0].created) for number in range(20)
    ]
    adding = sorted(timed(lambda entry=entry: memory.remember([entry]))[0] for entry in more)
    forgetting, _ = timed(lambda: memory.forget([entries[0].key]))
    rows = [
        ("one entry more (median)", 1000 * adding[len(adding) // 2]),
        ("one entry more (longest)", 1000 * adding[-1]),
        ("one entry forgotten: the others written anew", 1000 * forgetting),
    ]
    return Result("changing", f"Changing one of {len(entries):,} entries", ("what", "ms"), rows)


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took in seconds, and what came of it."""
    started = time.perf_counter()
    done = do()
    return time.perf_counter() - started, done


def _measured(search: Callable[[int], list[str] | None], exact: Sequence[Sequence[str]]) -> Sequence[Value]:
    took: list[float] = []
    shares: list[float] = []
    for number, best in enumerate(exact):
        seconds, found = timed(lambda number=number: search(number))
        if number < WARM_UP:
            continue
        took.append(1000 * seconds)
        if found is not None:
            shares.append(len(set(best) & set(found[:COMPARED])) / COMPARED)
    median, nearly_all, all_but_one = np.percentile(took, (50, 95, 99)).tolist()
    return median, nearly_all, all_but_one, float(np.mean(shares)) if shares else None


if __name__ == "__main__":
    main()
