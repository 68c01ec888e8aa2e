"""Columns of a table of versions: where these come from, and their metrics."""

import re
from collections.abc import Sequence

from ledgerline.registry.provenance import TRAINED_ON_TAG, described, partition_of
from ledgerline.registry.versions import TRAINING_DAYS_TAG, Version

# Metrics are written as decimal fractions at registration, and nothing else is.
METRIC = re.compile(r"-?\d+\.\d+")
MAX_METRICS = 4
MAX_CHARACTERS = 6  # of a metric


def partition(version: Version) -> str | None:
    """Return the partition that a version was made in; None: it does not say."""
    return partition_of(version)


def trained_on(version: Version) -> str | None:
    """Return what a version was trained on; None: it does not say."""
    recorded = version.tags.get(TRAINED_ON_TAG) or version.tags.get(TRAINING_DAYS_TAG)
    return described(recorded) if recorded else None


def metric_names(versions: Sequence[Version]) -> list[str]:
    """Return the metrics that a table shows: those that most versions have, in the order of their names."""
    counts: dict[str, int] = {}
    for version in versions:
        for name, value in version.tags.items():
            if METRIC.fullmatch(value):
                counts[name] = counts.get(name, 0) + 1
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_METRICS]
    return sorted(chosen)


def metric(version: Version, name: str) -> str | None:
    """Return a metric as a table shows it; None: the version has none of this name."""
    value = version.tags.get(name, "")
    return value[:MAX_CHARACTERS] if METRIC.fullmatch(value) else None
