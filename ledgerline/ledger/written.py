"""Rules on what an attempt, or a run, wrote: which materialisation of a partition counts, and how many rows.

Metrics, spans, datasets and lineage events all go by these. The records themselves: history.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledgerline.ledger.history import Materialisation

MAX_ROWS = 2**63 - 1  # the limit of databases and OpenTelemetry; a larger number is not a count of rows


def last_of_each(materialisations: "Iterable[Materialisation]") -> "tuple[Materialisation, ...]":
    """Return the last materialisation of each asset and partition, in the order in which they came first.

    Dagster itself materialises whatever a step returns. If the step, or its I/O manager, had already logged a
    materialisation of its own, with more metadata, that metadata belongs to the same write and is kept.
    """
    last: dict[tuple[str, str | None], Materialisation] = {}
    for written in materialisations:
        key = written.asset, written.partition
        before = last.get(key)
        last[key] = written if before is None else _completed(written, before)
    return tuple(last.values())


def _completed(written: "Materialisation", before: "Materialisation") -> "Materialisation":
    if not written.is_of_output or before.is_of_output:
        return written
    says_rows = written.rows is not None or written.output_rows is not None
    return replace(
        written,
        rows=written.rows if says_rows else before.rows,
        content_sha256=written.content_sha256 or before.content_sha256,
        schema=written.schema or before.schema,
        column_lineage=written.column_lineage or before.column_lineage,
        description=written.description or before.description,
        numbers={**before.numbers, **written.numbers},
    )


def row_count(parts: "Sequence[Materialisation]") -> int | None:
    """Count the rows that one attempt wrote of one asset; None unless every part says how many it has.

    Args:
        parts: The last materialisation of each partition.
    """
    each = partition_rows(parts)
    if None not in each:
        return _sum(each)
    # Metadata of an output of several partitions: Dagster repeats it on each of them.
    totals = {part.output_rows for part in parts}
    return totals.pop() if len(totals) == 1 else None


def partition_rows(parts: "Sequence[Materialisation]") -> list[int | None]:
    """Return how many rows each of these partitions has, as far as that is known.

    `dagster/row_count` on an output of several partitions is the count of them all, unless their counts
    differ: then each was given its own.
    """
    shared = len(parts) > 1 and len({part.output_rows for part in parts}) == 1
    return [part.rows if part.rows is not None or shared else part.output_rows for part in parts]


def by_asset(materialisations: "Iterable[Materialisation]") -> "dict[str, Sequence[Materialisation]]":
    """Group what was written by asset; of each partition, the last materialisation."""
    parts: dict[str, list[Materialisation]] = {}
    for written in last_of_each(materialisations):
        parts.setdefault(written.asset, []).append(written)
    return {asset: tuple(of_asset) for asset, of_asset in parts.items()}


@dataclass
class AssetRows:
    """Counts the rows of one asset over the attempts that wrote it, added in the order in which they ended.

    A retried step counts with its last attempt, a partition that several steps wrote with the last of them.
    """

    _by_step: "dict[str, Sequence[Materialisation]]" = field(default_factory=dict)
    _partitions: set[str | None] = field(default_factory=set)
    _total: int | None = 0

    @property
    def total(self) -> int | None:
        """The rows that the asset was left with; None unless all that was written says how many it has."""
        return self._total

    @property
    def kept(self) -> "list[tuple[Materialisation, Sequence[Materialisation]]]":
        """Each partition as it was written last, with all that the same attempt wrote of the asset."""
        last = {part.partition: (part, parts) for parts in self._by_step.values() for part in parts}
        return list(last.values())

    def add(self, step: str, parts: "Sequence[Materialisation]") -> None:
        """Count what an attempt wrote of the asset."""
        partitions = {part.partition for part in parts}
        is_new = step not in self._by_step and partitions.isdisjoint(self._partitions)
        self._by_step.pop(step, None)
        self._by_step[step] = parts
        self._partitions |= partitions
        if is_new:
            self._total = _sum([self._total, row_count(parts)])
        else:
            self._total = rows_kept(self.kept)


def rows_kept(kept: "Iterable[tuple[Materialisation, Sequence[Materialisation]]]") -> int | None:
    """Count the rows of some partitions, each given with all that the same attempt wrote of the asset."""
    groups: dict[int, tuple[Sequence[Materialisation], set[str | None]]] = {}
    for part, parts in kept:
        groups.setdefault(id(parts), (parts, set()))[1].add(part.partition)
    counts: list[int | None] = []
    for parts, partitions in groups.values():
        if len(partitions) == len(parts):
            counts.append(row_count(parts))
        else:
            each = zip(parts, partition_rows(parts), strict=True)
            counts += [rows for part, rows in each if part.partition in partitions]
    return _sum(counts)


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for rows in counts:
        if rows is None:
            return None
        total += rows
    return total if total <= MAX_ROWS else None
