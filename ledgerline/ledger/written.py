"""Decides which materialisation of a partition counts, and how many rows an attempt or a run wrote.

Metrics, spans, datasets and lineage events all use these rules. history.py defines the records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledgerline.ledger.history import Materialisation

MAX_ROWS = 2**63 - 1  # The limit of databases and OpenTelemetry. A larger number is not a row count.


def last_of_each(materialisations: "Iterable[Materialisation]") -> "tuple[Materialisation, ...]":
    """Return the last materialisation of each asset and partition, in the order of their first writes.

    Dagster records a materialisation for the output of a step. If the step or its I/O manager has
    already logged one with more metadata, both describe the same write, and that metadata is kept.
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
    has_rows = written.rows is not None or written.output_rows is not None
    return replace(
        written,
        rows=written.rows if has_rows else before.rows,
        content_sha256=written.content_sha256 or before.content_sha256,
        schema=written.schema or before.schema,
        column_lineage=written.column_lineage or before.column_lineage,
        description=written.description or before.description,
        numbers={**before.numbers, **written.numbers},
    )


def row_count(parts: "Sequence[Materialisation]") -> int | None:
    """Return the number of rows of an asset that an attempt wrote; None if the count of a part is unknown.

    Args:
        parts: Last materialisation of each partition.
    """
    each = partition_rows(parts)
    if None not in each:
        return _sum(each)
    # Dagster repeats the metadata of an output of several partitions on each of them.
    totals = {part.output_rows for part in parts}
    return totals.pop() if len(totals) == 1 else None


def partition_rows(parts: "Sequence[Materialisation]") -> list[int | None]:
    """Return the number of rows of each partition; None where it is unknown.

    Equal values of `dagster/row_count` on several partitions are the count of the whole output. If the values
    differ, each is the count of its partition.
    """
    shared = len(parts) > 1 and len({part.output_rows for part in parts}) == 1
    return [part.rows if part.rows is not None or shared else part.output_rows for part in parts]


def by_asset(materialisations: "Iterable[Materialisation]") -> "dict[str, Sequence[Materialisation]]":
    """Return the last materialisation of each partition, by asset."""
    parts: dict[str, list[Materialisation]] = {}
    for written in last_of_each(materialisations):
        parts.setdefault(written.asset, []).append(written)
    return {asset: tuple(of_asset) for asset, of_asset in parts.items()}


@dataclass
class AssetRows:
    """Counts the rows of one asset over the attempts that wrote it, added in the order of their end.

    The last attempt of a step counts, and the last write of a partition.
    """

    _by_step: "dict[str, Sequence[Materialisation]]" = field(default_factory=dict)
    _partitions: set[str | None] = field(default_factory=set)
    total: int | None = 0  # after all attempts; None if the count of a part is unknown

    @property
    def kept(self) -> "list[tuple[Materialisation, Sequence[Materialisation]]]":
        """The last materialisation of each partition, with all parts that the same attempt wrote."""
        last = {part.partition: (part, parts) for parts in self._by_step.values() for part in parts}
        return list(last.values())

    def add(self, step: str, parts: "Sequence[Materialisation]") -> None:
        """Add the parts of the asset that an attempt wrote."""
        partitions = {part.partition for part in parts}
        is_new = step not in self._by_step and partitions.isdisjoint(self._partitions)
        self._by_step.pop(step, None)
        self._by_step[step] = parts
        self._partitions |= partitions
        if is_new:
            self.total = _sum([self.total, row_count(parts)])
        else:
            self.total = rows_kept(self.kept)


def rows_kept(kept: "Iterable[tuple[Materialisation, Sequence[Materialisation]]]") -> int | None:
    """Return the number of rows of partitions, each given with all parts that the same attempt wrote."""
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
