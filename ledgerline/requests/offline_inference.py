"""Predicts many requests with a version, and measures the latency. replay.py compares the predictions."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ledgerline.requests.logged_rows import as_logged

Predict = Callable[[pd.DataFrame], Mapping[str, NDArray[Any]]]
# Index of the first row of each request; the last number is the number of rows.
Starts = NDArray[np.intp]

# The latency is measured for this number of requests, which are chosen at equal distances.
MAX_TIMED = 200
# Number of rows in one batch, when the latency is not measured.
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Latency:
    """Median and 99th percentile of the latency of a single request, measured offline."""

    p50_ms: float
    p99_ms: float


def latest_requests(logged: pd.DataFrame, most_rows: int) -> tuple[pd.DataFrame, Starts]:
    """Return the latest requests with at most this number of rows together, but at least one request.

    Returns:
        The rows, and the index of the first row of each request.
    """
    same = (logged["request_id"] == logged["request_id"].shift()) & (logged["at"] == logged["at"].shift())
    starts = np.append(np.flatnonzero(~same.to_numpy()), len(logged))
    first = starts[min(np.searchsorted(starts, len(logged) - most_rows), len(starts) - 2)]
    return logged.iloc[first:].reset_index(drop=True), starts[starts >= first] - first


@dataclass(frozen=True)
class Predictions:
    """Predictions of a version.

    Attributes:
        outputs: Predictions for the scored rows, in order.
        scored: Whether each row could be scored.
        problem: Reason why one of the other rows could not be scored; None if all were scored.
    """

    outputs: Mapping[str, NDArray[Any]]
    scored: NDArray[np.bool_]
    problem: str | None


@dataclass(frozen=True)
class ReplayedVersion:
    """A version that predicts logged requests again.

    Attributes:
        predict: Function from inputs to predictions.
        required: Columns that must have values; a service refuses requests in which one is missing.
    """

    number: int
    predict: Predict
    required: Sequence[str] = ()


def predictions_for(
    version: ReplayedVersion, inputs: pd.DataFrame, starts: Starts, at_once: int = ROWS_AT_ONCE
) -> Predictions:
    """Predict many requests at once. If that fails, predict smaller batches to find the failing requests."""
    refused = inputs.reindex(columns=list(version.required)).isna()
    problem = None
    if refused.to_numpy().any():
        first = refused[refused.any(axis=1)].iloc[0]
        problem = f"a value is required of {', '.join(first.index[first])}"
    # A service refuses the whole request if one of its rows is invalid.
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
            parts.append(as_logged(version.predict(inputs.iloc[chosen])))
        except Exception as error:  # noqa: BLE001 (models raise any error for a row that they cannot score)
            if last - first > 1:
                spans[:0] = [(first, (first + last) // 2), ((first + last) // 2, last)]
            else:
                problem = problem or f"{type(error).__name__}: {error}"
                scored[chosen] = False
    names = parts[0] if parts else {}
    return Predictions(
        {name: np.concatenate([part[name] for part in parts]) for name in names}, scored, problem
    )


def _spans(starts: Starts, most_rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of requests with at most this number of rows; a larger request is a separate range."""
    first = 0
    for number in range(1, len(starts)):
        is_last = number == len(starts) - 1
        if is_last or starts[number + 1] - starts[first] > most_rows:
            yield first, number
            first = number


def latencies(
    versions: Sequence[ReplayedVersion], inputs: pd.DataFrame, starts: Starts
) -> list[Latency | None]:
    """Return the latency of a request for each version.

    Requests are predicted one by one, and the versions alternate, so that other load affects all of them.
    """
    count = len(starts) - 1
    evenly = np.unique(np.linspace(0, count - 1, min(count, MAX_TIMED)).round().astype(np.intp))
    requests = [inputs.iloc[starts[number] : starts[number + 1]] for number in evenly]
    taken: list[list[float]] = [[] for _ in versions]
    turns = list(zip(versions, taken, strict=True))
    # The first request is predicted twice, because initialisation is not part of the latency.
    for number, request in enumerate([*requests[:1], *requests]):
        for version, times in turns if number % 2 else reversed(turns):
            started = time.perf_counter()
            try:
                version.predict(request)
            except Exception:  # noqa: BLE001, S112 (the comparison counts and names it)
                continue
            if number:
                times.append((time.perf_counter() - started) * 1000)
    return [
        Latency(float(np.median(times)), float(np.quantile(times, 0.99))) if times else None
        for times in taken
    ]
