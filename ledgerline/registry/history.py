"""What a journal says: judgements, approvals and moves of aliases, and who carried an alias when.

How they are kept: journal.py. How aliases are moved by them: moves.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ledgerline.registry.stages import PRODUCTION

REGISTRATION, PROMOTION, ROLLBACK, OUTSIDE = "registration", "promotion", "rollback", "outside"


@dataclass(frozen=True)
class Move:
    """An alias that names another version.

    Attributes:
        at: When it was written down, which is before the alias moved; of a move outside, when it was noticed.
        alias: The alias.
        from_version: Who carried it; None: nobody did.
        to_version: Who carries it since; None: nobody does.
        cause: REGISTRATION, PROMOTION, ROLLBACK, or OUTSIDE: somebody moved it without this journal.
        by: Who asked for it.
        reason: Why.
        evidence: The sha256 of the evidence it rests on; empty without.
        run_id: The Dagster run that moved it; empty without.
        request: Who may go on with this move if its process dies: the same request, asked again.
        not_before: Of a move outside, when the alias was last seen where it had been, if ever.
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
    """A version was compared with the one in production, and passed every rule or did not.

    Attributes:
        at: When.
        version: The version judged.
        against: The version in production then; None: there was none.
        passed: Whether it may be promoted.
        broken_rules: Those it did not keep.
        evidence: The sha256 of the sealed evidence.
        evidence_run_id: The MLflow run that keeps the evidence.
        by: Who asked for it.
        run_id: The Dagster run; its trace has the same id.
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
    """A person agreed to the promotion of a version, as it was judged.

    Attributes:
        at: When.
        version: The version.
        evidence: The sha256 of the evidence that was approved.
        by: Who.
        reason: Why.
    """

    at: datetime
    version: int
    evidence: str
    by: str
    reason: str = ""


@dataclass(frozen=True)
class End:
    """How a move ended.

    Attributes:
        at: When the alias had moved.
        moved: Whether it did; if not, somebody else moved it meanwhile.
    """

    at: datetime
    moved: bool


@dataclass(frozen=True)
class Entry:
    """A numbered entry.

    Attributes:
        number: Counted from 1, without gaps.
        what: What it says.
        end: Of a move, how it ended; None: it is under way, or its process died.
        seal: Its number, and a hash of it and all entries before it, with how they ended; empty: it was
            written just now.
    """

    number: int
    what: Move | Evaluation | Approval
    end: End | None = None
    seal: str = ""


@dataclass(frozen=True)
class Holding:
    """Who carried an alias, from when to when.

    Attributes:
        version: The version; None: nobody.
        entry: The move that began it.
        since: When it certainly had begun.
        since_at_earliest: The same, unless it is known no better than to lie between two moments; None:
            unknown.
        until: When the next one certainly had begun; None: it still lasts.
        until_at_earliest: When it may have ended already.
    """

    version: int | None
    entry: Entry
    since: datetime
    since_at_earliest: datetime | None
    until: datetime | None = None
    until_at_earliest: datetime | None = None


@dataclass(frozen=True)
class History:
    """All entries of a journal, in order."""

    entries: Sequence[Entry]

    @property
    def head(self) -> int:
        """The number of the last entry; 0: there is none."""
        return self.entries[-1].number if self.entries else 0

    @property
    def seal(self) -> str:
        """The seal of the last entry, as it was read; empty: there is none."""
        return self.entries[-1].seal if self.entries else ""

    @property
    def pending(self) -> Entry | None:
        """The move that has not ended, if there is one; no other can begin before."""
        unended = [entry for entry in self.entries if isinstance(entry.what, Move) and entry.end is None]
        return unended[0] if unended else None

    def moves(self, alias: str) -> list[tuple[Entry, Move, End]]:
        """What moved an alias."""
        return [
            (entry, entry.what, entry.end)
            for entry in self.entries
            if isinstance(entry.what, Move) and entry.what.alias == alias and entry.end and entry.end.moved
        ]

    def holder(self, alias: str) -> int | None:
        """The version that carries an alias, as far as is written here."""
        moves = self.moves(alias)
        return moves[-1][1].to_version if moves else None

    def holdings(self, alias: str = PRODUCTION) -> list[Holding]:
        """Who carried an alias, the earliest first."""
        found: list[Holding] = []
        for entry, move, end in self.moves(alias):
            earliest = move.not_before if move.cause == OUTSIDE else move.at
            if found:
                last = found.pop()
                # Whatever was seen before: then the last one certainly carried it.
                earliest = max(earliest or last.since, last.since)
                found.append(replace(last, until=end.at, until_at_earliest=earliest))
            found.append(Holding(move.to_version, entry, end.at, earliest))
        return found

    def holders_at(self, moment: datetime, alias: str = PRODUCTION) -> list[Holding]:
        """Who carried an alias at a moment: one, or two while it was moving, or nobody known yet."""
        return [
            holding
            for holding in self.holdings(alias)
            if (holding.since_at_earliest or holding.since) <= moment
            and (holding.until is None or moment < holding.until)
        ]

    def evaluations(self) -> list[Evaluation]:
        """Every judgement, the earliest first."""
        return [entry.what for entry in self.entries if isinstance(entry.what, Evaluation)]

    def evaluation(self, version: int) -> Evaluation | None:
        """The last judgement of a version."""
        found = [evaluation for evaluation in self.evaluations() if evaluation.version == version]
        return found[-1] if found else None

    def approval(self, evidence: str) -> Approval | None:
        """The last approval of a judgement."""
        found = [
            entry.what
            for entry in self.entries
            if isinstance(entry.what, Approval) and entry.what.evidence == evidence
        ]
        return found[-1] if found else None

    def version_before(self) -> int | None:
        """The version that a rollback goes to: what production was promoted over.

        A rollback undoes a promotion, so that a second one goes one further back, and not to the version that
        the first one took away.
        """
        stack: list[int | None] = []
        for _, move, _ in self.moves(PRODUCTION):
            if move.cause == ROLLBACK and move.to_version in stack:
                while stack[-1] != move.to_version:
                    stack.pop()
            if not stack or stack[-1] != move.to_version:
                stack.append(move.to_version)
        return next((version for version in reversed(stack[:-1]) if version is not None), None)
