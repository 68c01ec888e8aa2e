"""Replays the logged requests of production with another version. request_log.py reads the log."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from ledgerline.errors import LedgerlineError
from ledgerline.evaluation.disagreement import Disagreement, disagreement
from ledgerline.requests.logged_rows import inputs_of, outputs_of
from ledgerline.requests.offline_inference import (
    MAX_TIMED,
    Latency,
    Predictions,
    ReplayedVersion,
    Starts,
    latencies,
    latest_requests,
    predictions_for,
)

# The latest requests with at most this number of rows together are replayed.
MAX_ROWS = 100_000


class NothingToReplayError(LedgerlineError):
    """Raised when the log contains no requests, or no predictions for them."""


@dataclass(frozen=True)
class Replay:
    """Predictions of staging for the requests of production, compared with the logged predictions.

    Attributes:
        is_cut: Whether there were more requests, of which only the latest were replayed.
        rows_by_version: Number of rows that each version predicted, by its number.
        unscored_rows: Number of rows that staging could not score. Only the latency includes them.
        problem: Reason why one of these rows could not be scored; None if all were scored.
        share: Share of the scored rows with disagreements; None without scored rows.
        mean_difference: Mean absolute difference of the predictions; None if they are not numbers.
        recomputed_rows: Number of rows that the version in production has predicted again.
        recomputed_differently: Number of these rows with a different prediction; 0 if the log is correct.
        timed_requests: Number of requests that were predicted one by one, for the latency.
        staging_ms: Latency of staging; None if it could not score any of these requests.
        production_ms: Latency of production; None without production.
    """

    since: str
    until: str
    requests: int
    rows: int
    is_cut: bool
    rows_by_version: Mapping[str, int]
    unscored_rows: int
    problem: str | None
    disagreements: int
    share: float | None
    mean_difference: float | None
    largest_difference: float | None
    recomputed_rows: int
    recomputed_differently: int
    timed_requests: int
    staging_ms: Latency | None
    production_ms: Latency | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def replay(
    logged: pd.DataFrame,
    staging: ReplayedVersion,
    production: ReplayedVersion | None,
    since: datetime,
    until: datetime,
    *,
    most_rows: int = MAX_ROWS,
) -> Replay:
    """Predict logged requests with staging, and compare its predictions with the logged ones.

    Args:
        logged: Rows of the request log, in order.
        staging: Candidate for production.
        production: Version in production; None if no version is in production.
        since: Beginning of the period of the rows.
        until: End of the period.
        most_rows: Maximum number of rows; the latest requests are replayed.

    Raises:
        NothingToReplayError: The log contains no rows, or no predictions in them.
        NotComparableError: The predictions of staging are of another kind.
    """
    if logged.empty:
        raise NothingToReplayError("There is no request to replay.")
    rows, starts = latest_requests(logged, most_rows)
    inputs = inputs_of(rows)
    versions = rows["version"].to_numpy()
    predictions = predictions_for(staging, inputs, starts)
    compared = _compared(rows, predictions)
    taken = latencies([staging, *([production] if production else [])], inputs, starts)
    own, again, unanswered = _recomputed(rows, starts, production) if production else (0, [], 0)
    scored = int(predictions.scored.sum())
    disagreements = sum(each.decided_differently for each in compared)
    largest = [each.largest_difference for each in compared if each.largest_difference is not None]
    return Replay(
        since=since.isoformat(timespec="seconds"),
        until=until.isoformat(timespec="seconds"),
        requests=len(starts) - 1,
        rows=len(rows),
        is_cut=len(rows) < len(logged),
        rows_by_version={str(version): int((versions == version).sum()) for version in np.unique(versions)},
        unscored_rows=len(rows) - scored,
        problem=predictions.problem,
        disagreements=disagreements,
        share=disagreements / scored if scored else None,
        mean_difference=_mean_difference(compared),
        largest_difference=max(largest, default=None),
        recomputed_rows=own,
        recomputed_differently=unanswered + sum(each.answered_differently for each in again),
        timed_requests=min(len(starts) - 1, MAX_TIMED),
        staging_ms=taken[0],
        production_ms=taken[1] if production else None,
    )


def _compared(rows: pd.DataFrame, answers: Predictions) -> list[Disagreement]:
    """Compare predictions with the logged ones, separately for each logged version: columns may differ."""
    versions, positions = rows["version"].to_numpy(), np.cumsum(answers.scored) - 1
    compared = []
    for version in np.unique(versions[answers.scored]):
        chosen = answers.scored & (versions == version)
        recorded = outputs_of(rows[chosen])
        if not recorded:
            raise NothingToReplayError(f"No prediction of version {version} is logged.")
        outputs = {name: values[positions[chosen]] for name, values in answers.outputs.items()}
        compared.append(disagreement(recorded, outputs))
    return compared


def _recomputed(
    rows: pd.DataFrame, starts: Starts, production: ReplayedVersion
) -> tuple[int, list[Disagreement], int]:
    """Predict the rows of production again; return their number, the comparisons, and the unscored rows."""
    own = rows["version"].to_numpy() == production.number
    if not own.any():
        return 0, [], 0
    # One version predicts all rows of a request.
    begins = starts[:-1][own[starts[:-1]]]
    own_starts = np.append(np.searchsorted(np.flatnonzero(own), begins), own.sum())
    mine = rows[own].reset_index(drop=True)
    answers = predictions_for(production, inputs_of(mine), own_starts)
    return len(mine), _compared(mine, answers), int((~answers.scored).sum())


def _mean_difference(compared: Sequence[Disagreement]) -> float | None:
    known = [(each.mean_difference, each.rows) for each in compared if each.mean_difference is not None]
    rows = sum(rows for _, rows in known)
    return sum(mean * rows for mean, rows in known) / rows if rows else None
