"""Describes as frozen records what a step read of its upstream assets. upstreams.py finds it out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import dagster as dg


class Basis(Enum):
    """The evidence for the versions of an upstream asset that were read."""

    NAMED = "Dagster names the event that was read, or that there was none"
    DIGEST = "the digest that Dagster recorded is that of these versions"
    MAPPING = "Dagster records no digest of 100 partitions or more; these are those of its default mapping"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """An event of an upstream asset that was read: the asset, or a partition of it, as a run wrote it.

    Attributes:
        partition: Its partition key, if it has partitions.
        data_version: The version that it was given.
        run_id: The run that wrote it; empty for what no run wrote.
        storage_id: Its number in the event log.
        rows: How many rows it has, where that is known.
        content_sha256: Digest of its content, where the asset says so.
        schema: Its columns.
        is_of_code: Whether the version is the digest of the version of its code alone.
    """

    partition: str | None
    data_version: str | None
    run_id: str
    storage_id: int
    rows: int | None = None
    content_sha256: str | None = None
    schema: dg.TableSchema | None = field(default=None, repr=False, hash=False)
    is_of_code: bool = False

    @property
    def writer(self) -> str:
        """The run that wrote it, or the event itself, if no run did."""
        return self.run_id or f"event {self.storage_id}"

    @property
    def version(self) -> str | None:
        """A version that stands for this content (`version_of_content`)."""
        return version_of_content(self.data_version, self.is_of_code, self.writer)


@dataclass(frozen=True)
class Read:
    """An upstream asset that a materialisation was made from.

    Attributes:
        asset: Its name (`asset_name`).
        recorded: The version that Dagster recorded. Of an upstream with partitions that is a digest, which is
            not the version of anything.
        pointer: The number of the upstream's latest event when it was read.
        sources: What was read, if that is known.
        basis: How it is known.
        reason: Why it is not known.
    """

    asset: str
    recorded: str
    pointer: int | None = None
    sources: tuple[Source, ...] = field(default=(), repr=False)
    basis: Basis = Basis.UNKNOWN
    reason: str = "its step has not ended"

    @property
    def caveat(self) -> str | None:
        """The doubt about these versions; None if Dagster's log proves them."""
        if self.basis is Basis.UNKNOWN:
            return f"the versions read are unknown: {self.reason}"
        return self.basis.value if self.basis is Basis.MAPPING else None


def distinct(reads: Iterable[Read]) -> list[Read]:
    """Return each read once: the partitions that one step writes have the same ones."""
    return list({id(read): read for read in reads}.values())


def version_of_content(data_version: str | None, is_of_code: bool, writer: str) -> str | None:
    """Return a version that only one content has.

    Without upstream assets, Dagster's version of an asset with a code version is the digest of that alone. It
    is the same for every partition, and for whatever else is written later: the writer is added to it.
    """
    if data_version is None or not is_of_code:
        return data_version
    return f"{data_version}@{writer}"
