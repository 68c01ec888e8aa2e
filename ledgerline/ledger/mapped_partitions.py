"""Finds the upstream partitions that a step read, from the digest of their versions that Dagster recorded.

Dagster's event log does not contain partition mappings. For fewer than 100 partitions it contains a SHA-256
of the versions that were read, joined in the order of the partition keys. This module computes the digests of
likely mappings and compares them with the recorded digest.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256

# For this number of partitions or more, Dagster records the version of the latest event instead of a digest.
# It is SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD in dagster/_core/definitions/data_version.py.
DIGEST_LIMIT = 100
NOTHING_READ = sha256(b"").hexdigest()
NEIGHBOURS = 100  # number of partitions before and after the written ones among which windows are compared
DELIMITERS = "-:|/ T_"


def digest(versions: Mapping[str, str]) -> str:
    """Return the digest that Dagster records for the versions of these partitions."""
    return sha256("".join(versions[key] for key in sorted(versions)).encode(errors="replace")).hexdigest()


def fitting(recorded: str, versions: Mapping[str, str], written: Collection[str]) -> Sequence[str] | None:
    """Return the partitions whose versions match a digest; None unless exactly one likely mapping matches.

    Args:
        recorded: Digest that Dagster recorded.
        versions: Versions of all partitions of the upstream asset at the time of the read.
        written: Partitions of the downstream asset that were written.
    """
    for candidate in (list(versions), related(versions, written)):
        if (
            0 < len(candidate) < DIGEST_LIMIT
            and digest({key: versions[key] for key in candidate}) == recorded
        ):
            return sorted(candidate)
    windows = _windows(recorded, versions, written)
    first, second = next(windows, None), next(windows, None)
    return first if second is None else None


def related(names: Collection[str], written: Collection[str]) -> list[str]:
    """Return the keys that share a dimension with a written key, or of which one is a prefix of the other."""
    wanted = set(written)
    parts = {part for key in written for part in key.split("|")}
    return [
        name
        for name in names
        if name in wanted
        or any(prefix in wanted for prefix in _prefixes(name))
        or any(name in _prefixes(key) for key in wanted)
        or not parts.isdisjoint(name.split("|"))
    ]


def _prefixes(key: str) -> Iterator[str]:
    """Return the prefixes of a key that end before a delimiter: `2013` and `2013-07` for `2013-07-01`."""
    return (key[:end] for end in range(1, len(key)) if key[end] in DELIMITERS)


def _windows(recorded: str, versions: Mapping[str, str], written: Collection[str]) -> Iterator[Sequence[str]]:
    """Yield windows of neighbouring partitions near the written (or last) ones, and single partitions."""
    keys = sorted(versions)
    ends = [bisect_left(keys, min(written)), bisect_left(keys, max(written))] if written else [len(keys)]
    begin, end = max(0, ends[0] - NEIGHBOURS), min(len(keys), ends[-1] + NEIGHBOURS)
    for start in range(begin, end):
        hashed = sha256()
        for stop in range(start, min(start + DIGEST_LIMIT - 1, len(keys))):
            hashed.update(versions[keys[stop]].encode(errors="replace"))
            if hashed.hexdigest() == recorded:
                yield keys[start : stop + 1]
    for key in (*keys[:begin], *keys[end:]):
        if sha256(versions[key].encode(errors="replace")).hexdigest() == recorded:
            yield [key]
