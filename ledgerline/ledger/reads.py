"""Frozen records of the upstream assets that a step read. upstreams.py resolves their versions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import dagster as dg


class Basis(Enum):
    """The evidence for the versions of an upstream asset that were read."""

    NAMED = "Dagster recorded the event that was read, or that no event existed"
    DIGEST = "the digest that Dagster recorded matches these versions"
    MAPPING = "Dagster records no digest of 100 partitions or more; the default mapping gives these"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """An event of an upstream asset that was read: one version of the asset, or of a partition of it.

    Attributes:
        partition: Partition key; None for an asset without partitions.
        data_version: Data version of the event.
        run_id: Id of the run that wrote it; empty if no run did, as with external assets.
        storage_id: Number of the event in the event log.
        is_of_code: True if the data version is the digest of the code version alone.
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
        """The id of the run that wrote it, or the number of the event if no run did."""
        return self.run_id or f"event {self.storage_id}"

    @property
    def version(self) -> str | None:
        """A version that identifies the content (`version_of_content`)."""
        return version_of_content(self.data_version, self.is_of_code, self.writer)


@dataclass(frozen=True)
class Read:
    """An upstream asset that a materialisation was made from.

    Attributes:
        recorded: Version that Dagster recorded. For an upstream asset with partitions it is a digest of the
            versions of several partitions.
        pointer: Number of the latest event of the upstream asset at the time of the read.
        sources: Events that were read; empty if unknown.
        basis: Evidence for the sources.
    """

    asset: str
    recorded: str
    pointer: int | None = None
    sources: tuple[Source, ...] = field(default=(), repr=False)
    basis: Basis = Basis.UNKNOWN
    reason: str = "its step has not ended"

    @property
    def caveat(self) -> str | None:
        """The reason to doubt the sources; None if Dagster's event log proves them."""
        if self.basis is Basis.UNKNOWN:
            return f"the versions read are unknown: {self.reason}"
        return self.basis.value if self.basis is Basis.MAPPING else None


def distinct(reads: Iterable[Read]) -> list[Read]:
    """Return the distinct reads, because the partitions that one step writes share their reads."""
    return list({id(read): read for read in reads}.values())


def version_of_content(data_version: str | None, is_of_code: bool, writer: str) -> str | None:
    """Return a version that differs for different content.

    For an asset without upstream assets, Dagster's data version is the digest of the code version alone. It
    is then equal for all partitions and for everything written later, so the writer is added to it.
    """
    if data_version is None or not is_of_code:
        return data_version
    return f"{data_version}@{writer}"
