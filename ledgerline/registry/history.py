"""The contents of a journal: evaluations, approvals and moves, and the versions of an alias over time.

journal.py stores the entries, and moves.py moves aliases by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ledgerline.registry.stages import ALIASES, ARCHIVED, PRODUCTION, STAGING

REGISTRATION, PROMOTION, ROLLBACK, OUTSIDE = "registration", "promotion", "rollback", "outside"


@dataclass(frozen=True)
class Move:
    """A move of an alias from one version to another.

    Attributes:
        at: Time of writing, which is before the alias moves; for an outside move, the time of its detection.
        from_version: Version that the alias named before; None if it named none.
        to_version: Version that the alias names after the move; None if it names none.
        cause: REGISTRATION, PROMOTION, ROLLBACK, or OUTSIDE for a move that bypassed this journal.
        by: Person or program that requested it.
        evidence: The sha256 of the evidence that it is based on; empty without evidence.
        run_id: Dagster run that moved the alias; empty without one.
        request: Id of the request; a repeated request finishes its move if the process died.
        not_before: For an outside move, the last time at which the alias was known not to have moved; None if
            unknown.
    """

    at: datetime
    alias: str
    from_version: int | None
    to_version: int | None
    cause: str
    by: str
    reason: str = ""
    evidence: str = ""
    run_id: str = ""
    request: str = ""
    not_before: datetime | None = None


@dataclass(frozen=True)
class Evaluation:
    """A comparison of a version with the one in production, with its result.

    Attributes:
        against: Version in production at that time; None if there was none.
        passed: True if the version may be promoted.
        broken_rules: Names of the gates that the version failed.
        evidence: The sha256 of the sealed evidence.
        evidence_run_id: MLflow run that stores the evidence.
        run_id: Dagster run; its trace has the same id.
    """

    at: datetime
    version: int
    against: int | None
    passed: bool
    broken_rules: Sequence[str]
    evidence: str
    evidence_run_id: str
    by: str
    run_id: str = ""


@dataclass(frozen=True)
class Approval:
    """A person's approval of the promotion of a version; `evidence` is the sha256 that was approved."""

    at: datetime
    version: int
    evidence: str
    by: str
    reason: str = ""


@dataclass(frozen=True)
class End:
    """The end of a move.

    Attributes:
        at: Time at which the alias had moved.
        moved: True if the move was carried out; False if another change of the alias preceded it.
    """

    at: datetime
    moved: bool


@dataclass(frozen=True)
class Entry:
    """A numbered entry of a journal.

    Attributes:
        number: Number of the entry, counted from 1 without gaps.
        end: End of a move; None while the move is in progress, or if its process died.
        seal: Number of the entry, and a hash of it and all entries before it with their ends; empty for an
            entry that was written but has not been read back.
    """

    number: int
    record: Move | Evaluation | Approval
    end: End | None = None
    seal: str = ""


@dataclass(frozen=True)
class AliasPeriod:
    """A period in which an alias named one version.

    Attributes:
        version: The version; None if the alias named none.
        since: Time by which the period had certainly begun.
        since_at_earliest: Earliest time at which it may have begun; None if unknown.
        until: Time by which the next period had certainly begun; None for the current period.
    """

    version: int | None
    entry: Entry
    since: datetime
    since_at_earliest: datetime | None
    until: datetime | None = None


@dataclass(frozen=True)
class History:
    """All entries of a journal, in order."""

    entries: Sequence[Entry]

    @property
    def head(self) -> int:
        """The number of the last entry; 0 without entries."""
        return self.entries[-1].number if self.entries else 0

    @property
    def seal(self) -> str:
        """The seal of the last entry when it was read; empty without entries."""
        return self.entries[-1].seal if self.entries else ""

    @property
    def pending(self) -> Entry | None:
        """The move that has not ended, if there is one; no other move can begin before it ends."""
        return next((each for each in self.entries if isinstance(each.record, Move) and not each.end), None)

    def moves(self, alias: str) -> list[tuple[Entry, Move, End]]:
        """Return the moves of an alias that were carried out, the earliest first."""
        return [
            (entry, entry.record, entry.end)
            for entry in self.entries
            if isinstance(entry.record, Move)
            and entry.record.alias == alias
            and entry.end
            and entry.end.moved
        ]

    def version_with_alias(self, alias: str) -> int | None:
        """Return the version that the alias names according to the journal."""
        moves = self.moves(alias)
        return moves[-1][1].to_version if moves else None

    def stage_of(self, version: int) -> str | None:
        """Return the stage of a version according to the journal; None if it never had one."""
        for alias in (PRODUCTION, STAGING):
            if self.version_with_alias(alias) == version:
                return alias
        staged = {move.to_version for alias in ALIASES for _, move, _ in self.moves(alias)}
        return ARCHIVED if version in staged else None

    def periods(self, alias: str = PRODUCTION) -> list[AliasPeriod]:
        """Return the periods in which the alias named one version, the earliest first."""
        periods: list[AliasPeriod] = []
        for entry, move, end in self.moves(alias):
            earliest = move.not_before if move.cause == OUTSIDE else move.at
            if periods:
                # A period cannot end before it had certainly begun, whatever earlier polls reported.
                earliest = max(earliest or periods[-1].since, periods[-1].since)
                periods[-1] = replace(periods[-1], until=end.at)
            periods.append(AliasPeriod(move.to_version, entry, end.at, earliest))
        return periods

    def periods_at(self, moment: datetime, alias: str = PRODUCTION) -> list[AliasPeriod]:
        """Return the periods that a moment may belong to; there are two while the alias was moving."""
        return [
            period
            for period in self.periods(alias)
            if (period.since_at_earliest or period.since) <= moment
            and (period.until is None or moment < period.until)
        ]

    def evaluations(self) -> list[Evaluation]:
        """Return every evaluation, the earliest first."""
        return [entry.record for entry in self.entries if isinstance(entry.record, Evaluation)]

    def evaluation(self, version: int) -> Evaluation | None:
        """Return the last evaluation of a version."""
        return next((each for each in reversed(self.evaluations()) if each.version == version), None)

    def approval(self, evidence: str) -> Approval | None:
        """Return the last approval of this evidence."""
        approvals = [entry.record for entry in self.entries if isinstance(entry.record, Approval)]
        return next((each for each in reversed(approvals) if each.evidence == evidence), None)

    def version_before(self) -> int | None:
        """Return the version that a rollback goes to: the one that the current version's promotion replaced.

        A rollback undoes a promotion, so a second rollback goes one promotion further back, and not to the
        version that the first one replaced.
        """
        stack: list[int | None] = []
        for _, move, _ in self.moves(PRODUCTION):
            if move.cause == ROLLBACK and move.to_version in stack:
                while stack[-1] != move.to_version:
                    stack.pop()
            if not stack or stack[-1] != move.to_version:
                stack.append(move.to_version)
        return next((version for version in reversed(stack[:-1]) if version is not None), None)


def version_text(version: int | None) -> str:
    """Return the name of a version for a message."""
    return "no version" if version is None else f"version {version}"
