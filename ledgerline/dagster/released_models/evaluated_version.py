"""The record of a comparison, as the comparison's asset stores it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvaluatedVersion:
    """The outcome of a comparison.

    Attributes:
        version: The version that is to be promoted.
        against: The version it was compared with; None: there was none, and a baseline stood in.
        rows: Rows it was judged on.
        rulings: One for each gate, as `ledgerline.evaluation.rulings.Ruling`.
        passed: Whether every gate let it pass.
        evidence_sha256: Seal of the evidence.
        evidence_run_id: The MLflow run that has it, and the report.
        entry: The entry in the journal of the model.
        run_id: The Dagster run that compared.
        replay: How it answers what was really asked, as `requests.replay.Replay`; None: it was not asked.
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
