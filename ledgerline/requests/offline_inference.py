"""Asking a version many requests: what it says, and how long that takes. What follows from it: replay.py."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.requests.logged_rows import as_logged

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Predict = Callable[[pd.DataFrame], Mapping[str, NDArray[Any]]]
    # Where each request begins in some rows; the last number is where the rows end.
    Starts = NDArray[np.intp]

# For the latency: of all requests, these many at even distances.
MAX_TIMED = 200
# Scored at once, where it is not about time.
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Latency:
    """How long one request takes, offline.

    Attributes:
        p50_ms: The median, in milliseconds.
        p99_ms: What 99 of 100 do not exceed, likewise.
    """

    p50_ms: float
    p99_ms: float


def latest_requests(logged: "pd.DataFrame", most_rows: int) -> "tuple[pd.DataFrame, Starts]":
    """The latest requests that have at most so many rows together, though always one.

    Args:
        logged: Rows of the request log, in order.
        most_rows: How many rows.

    Returns:
        Their rows, and where each begins.
    """
    import numpy as np

    same = (logged["request_id"] == logged["request_id"].shift()) & (logged["at"] == logged["at"].shift())
    starts = np.append(np.flatnonzero(~same.to_numpy()), len(logged))
    first = starts[min(np.searchsorted(starts, len(logged) - most_rows), len(starts) - 2)]
    return logged.iloc[first:].reset_index(drop=True), starts[starts >= first] - first


@dataclass(frozen=True)
class Answers:
    """What a version says.

    Attributes:
        outputs: Of the rows that it could score, in order.
        scored: For each row, whether it could.
        problem: Why it could not score one that it could not.
    """

    outputs: "Mapping[str, NDArray[Any]]"
    scored: "NDArray[np.bool_]"
    problem: str | None


@dataclass(frozen=True)
class Asked:
    """A version to ask.

    Attributes:
        number: Its number.
        predict: What it answers to inputs.
        required: Columns without a value of which a service refuses a request.
    """

    number: int
    predict: "Predict"
    required: Sequence[str] = ()


def answers_to(
    asked: Asked, inputs: "pd.DataFrame", starts: "Starts", at_once: int = ROWS_AT_ONCE
) -> Answers:
    """Ask many requests at once, and where that fails fewer: so it shows which they are."""
    import numpy as np

    refused = inputs.reindex(columns=list(asked.required)).isna()
    problem = None
    if refused.to_numpy().any():
        first = refused[refused.any(axis=1)].iloc[0]
        problem = f"a value is required of {', '.join(first.index[first])}"
    # Whole requests, as a service does.
    sizes = np.diff(starts)
    scored = ~np.repeat(np.logical_or.reduceat(refused.any(axis=1).to_numpy(), starts[:-1]), sizes)
    rows = np.flatnonzero(scored)
    begins = np.append(0, np.cumsum(sizes[scored[starts[:-1]]]))
    parts: list[Mapping[str, NDArray[Any]]] = []
    spans = list(_spans(begins, at_once))
    while spans:
        first, last = spans.pop(0)
        chosen = rows[begins[first] : begins[last]]
        try:
            parts.append(as_logged(asked.predict(inputs.iloc[chosen])))
        except Exception as error:  # noqa: BLE001 (whatever a model raises, it is a row it cannot score)
            if last - first > 1:
                spans[:0] = [(first, (first + last) // 2), ((first + last) // 2, last)]
            else:
                problem = problem or f"{type(error).__name__}: {error}"
                scored[chosen] = False
    names = parts[0] if parts else {}
    return Answers({name: np.concatenate([part[name] for part in parts]) for name in names}, scored, problem)


def _spans(starts: "Starts", most_rows: int) -> Iterator[tuple[int, int]]:
    """Requests, by number, that have so many rows together; one that has more is alone."""
    first = 0
    for number in range(1, len(starts)):
        is_last = number == len(starts) - 1
        if is_last or starts[number + 1] - starts[first] > most_rows:
            yield first, number
            first = number


def latencies(
    versions: Sequence[Asked], inputs: "pd.DataFrame", starts: "Starts", most: int = MAX_TIMED
) -> list[Latency | None]:
    """How long a request takes, of each version: one by one and in turns, so that what else goes on hits all.

    Args:
        versions: The versions.
        inputs: What was asked.
        starts: Where each request begins.
        most: At most so many requests are asked, at even distances.
    """
    import numpy as np

    requests = [inputs.iloc[starts[number] : starts[number + 1]] for number in _evenly(len(starts) - 1, most)]
    taken: list[list[float]] = [[] for _ in versions]
    turns = list(zip(versions, taken, strict=True))
    # The first one is asked twice: what is only done once is not what a request takes.
    for number, request in enumerate([*requests[:1], *requests]):
        for asked, times in turns if number % 2 else reversed(turns):
            started = time.perf_counter()
            try:
                asked.predict(request)
            except Exception:  # noqa: BLE001, S112 (counted and named where they are compared)
                continue
            if number:
                times.append((time.perf_counter() - started) * 1000)
    return [
        Latency(float(np.median(times)), float(np.quantile(times, 0.99))) if times else None
        for times in taken
    ]


def _evenly(count: int, most: int) -> "NDArray[np.intp]":
    """So many numbers below a count, at even distances."""
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))
