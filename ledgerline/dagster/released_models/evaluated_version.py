"""The record of a comparison, as the comparison's asset stores it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvaluatedVersion:
    """The outcome of a comparison.

    Attributes:
        version: Version that was evaluated.
        against: Version that it was compared with; None for a baseline.
        rows: Number of rows that it was evaluated on.
        rulings: Ruling of each gate, as `ledgerline.evaluation.rulings.Ruling`.
        passed: True if it passed every gate.
        evidence_sha256: Seal of the evidence.
        evidence_run_id: MLflow run that stores the evidence and the report.
        entry: Number of the entry in the journal of the model.
        run_id: Dagster run of the comparison.
        replay: Replay of logged requests, as `requests.replay.Replay`; None without a replay.
    """

    version: int
    against: int | None
    rows: int
    rulings: list[dict[str, Any]]
    passed: bool
    evidence_sha256: str
    evidence_run_id: str
    entry: int
    run_id: str
    replay: dict[str, Any] | None = None
