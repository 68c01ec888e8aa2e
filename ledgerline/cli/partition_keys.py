"""Converts partitions that users type to the keys of a definition.

Dynamic partitions are read from the instance. Call this within `dagster.partition_loading_context`.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import dagster as dg

from ledgerline.cli.typed_times import Period, beginning_in, nearest
from ledgerline.errors import LedgerlineError

SEPARATOR = "|"  # between the dimensions of a key, as Dagster writes it
MAX_LISTED = 12
MAX_NEAREST = 3


class PartitionError(LedgerlineError):
    """A partition does not exist, or does not fit the job."""


def understood(definition: dg.PartitionsDefinition, text: str, owner: str) -> str:
    """Return the key of the partition that a text names.

    Args:
        definition: Existing partitions.
        text: Key, or for time partitions a month, day or hour in which exactly one of them begins.
        owner: Job or dimension with these partitions, for messages.

    Raises:
        PartitionError: The text names no partition, or more than one.

    Example:
        >>> months = dg.MonthlyPartitionsDefinition("2026-01-01", end_date="2027-01-01")
        >>> understood(months, "2026-03", "train")
        '2026-03-01'
    """
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return _of_dimensions(definition, text, owner)
    if definition.has_partition_key(text):
        return text
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return _of_time(definition, text, owner)
    keys = definition.get_partition_keys()
    if not keys:
        named = f" of {definition.name!r}" if isinstance(definition, dg.DynamicPartitionsDefinition) else ""
        raise PartitionError(
            f"{owner} has no partitions yet.", f"Add keys{named} first, by a sensor or in the Dagster UI."
        )
    by_folded = {key.casefold(): key for key in keys}
    close = get_close_matches(text.casefold(), by_folded, n=MAX_NEAREST)
    hint = _nearest_are([by_folded[each] for each in close]) if len(keys) > MAX_LISTED else ""
    choice = f"one of {'the ' if len(keys) > MAX_LISTED else ''}{_listed(keys)}"
    raise PartitionError(f"{text!r} is not a partition of {owner}.", f"Choose {choice}.{hint}")


def between(definition: dg.PartitionsDefinition, first: str, last: str, owner: str) -> list[str]:
    """Return the keys from one partition to another, both included; with several dimensions, a block.

    The first and the last are texts as `understood` takes them.

    Raises:
        PartitionError: One of the two does not exist, or the last is before the first.
    """
    start, end = understood(definition, first, owner), understood(definition, last, owner)
    keys = list(definition.get_partition_keys_in_range(dg.PartitionKeyRange(start, end)))
    if not keys:
        raise PartitionError(f"--from {first} is later than --to {last}.", "Swap them.")
    return [str(key) for key in keys]


def in_order(definition: dg.PartitionsDefinition, keys: Sequence[str]) -> list[str]:
    """Return keys in the order of their definition, without duplicates."""
    places = {str(key): place for place, key in enumerate(definition.get_partition_keys())}
    return sorted(dict.fromkeys(keys), key=places.__getitem__)


def extent(definition: dg.PartitionsDefinition) -> str:
    """Return a short description of the existing partitions."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        parts = [f"{each.name} {extent(each.partitions_def)}" for each in definition.partitions_defs]
        return " and ".join(parts)
    first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
    if first is None or last is None:
        return "none yet"
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return f"{first} to {last}"
    return _listed(definition.get_partition_keys())


def _of_dimensions(definition: dg.MultiPartitionsDefinition, text: str, owner: str) -> str:
    dimensions = definition.partitions_defs
    parts = text.split(SEPARATOR)
    if len(parts) != len(dimensions):
        names = SEPARATOR.join(each.name for each in dimensions)
        keys = definition.get_first_partition_key()
        example = f", for example {keys}" if keys is not None else ""
        raise PartitionError(f"{text!r} is not a partition of {owner}.", f"Write {names}{example}.")
    return SEPARATOR.join(
        understood(each.partitions_def, part, f"the dimension {each.name} of {owner}")
        for each, part in zip(dimensions, parts, strict=True)
    )


def _of_time(definition: dg.TimeWindowPartitionsDefinition, text: str, owner: str) -> str:
    first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
    if first is None or last is None:
        raise PartitionError(f"{owner} has no partitions yet.", f"The first begins {definition.start}.")
    period = Period.typed(text, definition.timezone)
    keys = beginning_in(definition, period) if period is not None else ()
    if len(keys) == 1:
        return keys[0]
    if keys:
        raise PartitionError(
            f"{text!r} is more than one partition of {owner}.", f"Choose one from {keys[0]} to {keys[-1]}."
        )
    near = nearest(definition, period) if period is not None else None
    hint = _nearest_are([near]) if near is not None else ""
    raise PartitionError(
        f"{text!r} is not a partition of {owner}.", f"Choose one from {first} to {last}.{hint}"
    )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys) if len(keys) <= MAX_LISTED else f"{len(keys)} from {keys[0]} to {keys[-1]}"


def _nearest_are(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    return f" The nearest is {keys[0]}." if len(keys) == 1 else f" The nearest are {', '.join(keys)}."
