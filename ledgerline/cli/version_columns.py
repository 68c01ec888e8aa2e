"""Formats columns of a table of versions: their partitions, training data and metrics."""

import re
from collections.abc import Sequence

from ledgerline.registry.provenance import TRAINED_ON_TAG, described, partition_of
from ledgerline.registry.versions import TRAINING_DAYS_TAG, Version

# Only metrics are written as decimal fractions at registration.
METRIC = re.compile(r"-?\d+\.\d+")
MAX_METRICS = 4
MAX_CHARACTERS = 6  # of a metric


def partition(version: Version) -> str | None:
    """Return the partition that a version was trained in; None if it is not recorded."""
    return partition_of(version)


def trained_on(version: Version) -> str | None:
    """Return the data that a version was trained on; None if it is not recorded."""
    recorded = version.tags.get(TRAINED_ON_TAG) or version.tags.get(TRAINING_DAYS_TAG)
    return described(recorded) if recorded else None


def metric_names(versions: Sequence[Version]) -> list[str]:
    """Return the metrics for a table: those that most versions have, sorted by name."""
    counts: dict[str, int] = {}
    for version in versions:
        for name, value in version.tags.items():
            if METRIC.fullmatch(value):
                counts[name] = counts.get(name, 0) + 1
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_METRICS]
    return sorted(chosen)


def metric(version: Version, name: str) -> str | None:
    """Return a metric as text for a table; None if the version does not have it."""
    value = version.tags.get(name, "")
    return value[:MAX_CHARACTERS] if METRIC.fullmatch(value) else None
