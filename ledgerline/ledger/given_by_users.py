"""Reads what users attach to runs, assets and checks: tags, owners and numeric metadata.

All projections export the same values, up to the same limits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from ledgerline.cleaning.secret_names import is_secret_name
from ledgerline.cleaning.texts import clean
from ledgerline.ledger.history import Materialisation, RunHistory, asset_name

Owners = Mapping[str, tuple[str, ...]]  # by asset name

MAX_TAGS = 32  # limit for a run
MAX_NUMBERS = 32  # limit for a materialisation or a check

# Prefixes of the tags that Dagster, its packages and Ledgerline write.
OF_MACHINES = (
    "dagster",
    ".dagster",
    "dagster-k8s",
    "dagster-celery",
    "dagster-docker",
    "dagster-aws",
    "ledgerline",
)
TRACE_CONTEXT = ("traceparent", "tracestate")

NUMBERS = (dg.IntMetadataValue, dg.FloatMetadataValue)
# Row counts are exported separately.
ROW_COUNTS = ("dagster/row_count", "dagster/partition_row_count")


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that users gave a run, by name.

    >>> user_tags({"team": "ovens", "dagster/priority": "3"})
    {'team': 'ovens'}
    """
    given = {
        name: value
        for name, value in tags.items()
        if name.partition("/")[0] not in OF_MACHINES and name not in TRACE_CONTEXT
    }
    return {name: given[name] for name in sorted(given)[:MAX_TAGS]}


def owners_in(definitions: dg.RepositoryDefinition) -> Owners:
    """Return the owners of the assets of a code location, which Dagster's storages do not contain."""
    nodes = definitions.asset_graph.asset_nodes
    return {asset_name(node.key): tuple(map(clean, node.owners)) for node in nodes if node.owners}


def owners_of_written(now: RunHistory) -> list[str]:
    """Return the known owners of the assets that a run wrote."""
    written = dict.fromkeys(each.asset for each in now.materialisations)
    return sorted({owner for asset in written for owner in now.owners.get(asset, ())})


def numbers(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers in Dagster's metadata, without row counts.

    A number with the name of a secret is left out, unless it is a count of tokens.
    """
    finite: dict[str, float] = {}
    for name, value in metadata.items():
        if not isinstance(value, NUMBERS) or name in ROW_COUNTS:
            continue
        number = _finite(value.value)
        if number is None or (is_secret_name(name) and not name.lower().endswith("tokens")):
            continue
        finite[clean(name)] = number
        if len(finite) == MAX_NUMBERS:
            break
    return finite


def numbers_by_name(
    parts: Sequence[Materialisation],
) -> Iterator[tuple[str, Sequence[tuple[Materialisation, float]]]]:
    """Yield each number of an asset together with its partitions, in the order of their keys.

    A number that all partitions share is returned once, for the last partition, because Dagster repeats the
    metadata of an output on each of its partitions.
    """
    # Dagster writes static partitions in an order that differs between processes.
    ordered = sorted(parts, key=lambda part: part.partition or "")
    names = dict.fromkeys(name for part in ordered for name in part.numbers)
    for name in names:
        given = [(part, part.numbers[name]) for part in ordered if name in part.numbers]
        alike = len(given) == len(parts) and len({number for _, number in given}) == 1
        yield name, given[-1:] if alike else given


def attribute_number(number: float) -> float:
    """Return a number as a span attribute: an integer that does not fit in 64 bits becomes a float."""
    return number if isinstance(number, float) or -(2**63) <= number < 2**63 else float(number)


def _finite(value: float | None) -> float | None:
    """Return the number if databases and OpenTelemetry can store it; else None."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(float(value)) else None
    except OverflowError:
        return None
