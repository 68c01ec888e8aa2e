"""Asking a version again what production was really asked. Where the requests are kept: request_log.py."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ledgerline.evaluation.disagreement import Disagreement, disagreement
from ledgerline.requests.logged_rows import inputs_of, outputs_of
from ledgerline.requests.offline_inference import (
    MAX_TIMED,
    Answers,
    Asked,
    Latency,
    answers_to,
    latencies,
    latest_requests,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ledgerline.requests.offline_inference import Starts

# The latest requests are replayed, of so many rows together.
MAX_ROWS = 100_000


class NothingToReplayError(Exception):
    """There is no request to replay, or nothing that was answered to it."""


@dataclass(frozen=True)
class Replay:
    """What staging says to what production was asked, beside what was answered.

    Attributes:
        since: From when on requests were replayed (ISO 8601).
        until: Until when.
        requests: How many were.
        rows: How many rows they have.
        is_cut: Whether there were more, of which only the latest were replayed.
        rows_by_version: Rows that each version answered, by its number.
        unscored_rows: Rows that staging could not score; they are in nothing below but the time.
        problem: Why not, of one of these; None: it scored all.
        disagreements: Rows that staging decides differently.
        share: The share of these of all that it scored; None: it scored none.
        mean_difference: Mean absolute difference of the numbers; None: there are none.
        largest_difference: The largest one.
        recomputed_rows: Rows that the version in production now had answered, and was asked again.
        recomputed_differently: Of these, rows whose answer is another one now: 0 if the log is true.
        timed_requests: How many were asked one by one, for the time.
        staging_ms: How long staging takes for one of these; None: it could not score it.
        production_ms: How long production takes; None without production.
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
        """The same as values of JSON."""
        return asdict(self)


def replay(
    logged: "pd.DataFrame",
    staging: Asked,
    production: Asked | None,
    since: datetime,
    until: datetime,
    *,
    most_rows: int = MAX_ROWS,
) -> Replay:
    """Ask again what was logged, and compare what staging says with what was answered.

    Args:
        logged: Rows of the request log, in order.
        staging: The version that wants to be promoted.
        production: The version in production; None: there is none.
        since: From when on the rows were asked for.
        until: Until when.
        most_rows: The latest requests are asked, of so many rows together.

    Raises:
        NothingToReplayError: There are no rows, or no answers in them.
        NotComparableError: Staging gives answers of another kind.
    """
    import numpy as np

    if logged.empty:
        raise NothingToReplayError("There is no request to replay.")
    rows, starts = latest_requests(logged, most_rows)
    inputs = inputs_of(rows)
    versions = rows["version"].to_numpy()
    said = answers_to(staging, inputs, starts)
    found = _compared(rows, versions, said)
    taken = latencies([staging, *([production] if production else [])], inputs, starts)
    own, again, unanswered = _recomputed(rows, starts, production) if production else (0, [], 0)
    scored = int(said.scored.sum())
    disagreements = sum(each.decided_differently for each in found)
    largest = [each.largest_difference for each in found if each.largest_difference is not None]
    return Replay(
        since=since.isoformat(timespec="seconds"),
        until=until.isoformat(timespec="seconds"),
        requests=len(starts) - 1,
        rows=len(rows),
        is_cut=len(rows) < len(logged),
        rows_by_version={str(version): int((versions == version).sum()) for version in np.unique(versions)},
        unscored_rows=len(rows) - scored,
        problem=said.problem,
        disagreements=disagreements,
        share=disagreements / scored if scored else None,
        mean_difference=_mean_difference(found),
        largest_difference=max(largest, default=None),
        recomputed_rows=own,
        recomputed_differently=unanswered + sum(each.answered_differently for each in again),
        timed_requests=min(len(starts) - 1, MAX_TIMED),
        staging_ms=taken[0],
        production_ms=taken[1] if production else None,
    )


def _compared(rows: "pd.DataFrame", versions: "NDArray[np.int64]", answers: Answers) -> list[Disagreement]:
    """What was answered beside what a version says, for each version that answered: each has its columns."""
    import numpy as np

    positions = np.cumsum(answers.scored) - 1
    found = []
    for version in np.unique(versions[answers.scored]):
        chosen = answers.scored & (versions == version)
        recorded = outputs_of(rows[chosen])
        if not recorded:
            raise NothingToReplayError(f"No answer of version {version} is logged.")
        said = {name: values[positions[chosen]] for name, values in answers.outputs.items()}
        found.append(disagreement(recorded, said))
    return found


def _recomputed(
    rows: "pd.DataFrame", starts: "Starts", production: Asked
) -> tuple[int, list[Disagreement], int]:
    """Ask production again what it answered: how many rows, how they compare, and those it cannot score."""
    import numpy as np

    own = rows["version"].to_numpy() == production.number
    if not own.any():
        return 0, [], 0
    # One version answers a whole request.
    begins = starts[:-1][own[starts[:-1]]]
    own_starts = np.append(np.searchsorted(np.flatnonzero(own), begins), own.sum())
    mine = rows[own].reset_index(drop=True)
    answers = answers_to(production, inputs_of(mine), own_starts)
    found = _compared(mine, mine["version"].to_numpy(), answers)
    return len(mine), found, int((~answers.scored).sum())


def _mean_difference(found: Sequence[Disagreement]) -> float | None:
    known = [(each.mean_difference, each.rows) for each in found if each.mean_difference is not None]
    rows = sum(rows for _, rows in known)
    return sum(mean * rows for mean, rows in known) / rows if rows else None
