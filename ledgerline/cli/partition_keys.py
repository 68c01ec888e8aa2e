"""Partitions as a person types them, turned into the keys of a definition, or into an error that names those.

Dynamic partitions are read from the instance: call this within `dagster.partition_loading_context`.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import dagster as dg

from ledgerline.cli.typed_times import Period, beginning_in, nearest

SEPARATOR = "|"  # between the dimensions of a key, as Dagster writes it
MAX_LISTED = 12
MAX_NEAREST = 3


class UnknownPartitionError(Exception):
    """A partition that does not exist; the message says which do."""


def understood(definition: dg.PartitionsDefinition, text: str, owner: str) -> str:
    """Return the key of the partition that a person names.

    Args:
        definition: The partitions there are.
        text: A key, or for time partitions a month, day or hour in which exactly one of them begins.
        owner: The job or the dimension with these partitions, for messages.

    Raises:
        UnknownPartitionError: There is no such partition, or there are several.
    """
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return _of_dimensions(definition, text, owner)
    if definition.has_partition_key(text):
        return text
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return _of_time(definition, text, owner)
    keys = definition.get_partition_keys()
    _require_some(definition, keys, owner)
    close = get_close_matches(text.casefold(), {key.casefold(): key for key in keys}, n=MAX_NEAREST)
    by_folded = {key.casefold(): key for key in keys}
    hint = _nearest_are([by_folded[each] for each in close]) if len(keys) > MAX_LISTED else ""
    raise UnknownPartitionError(f"{text!r} is not a partition of {owner}: choose {_choice(keys)}.{hint}")


def between(definition: dg.PartitionsDefinition, first: str, last: str, owner: str) -> list[str]:
    """Return the keys from one partition to another, both included; of several dimensions, a block.

    Args:
        definition: The partitions there are.
        first: The first, as `understood` takes it.
        last: The last.
        owner: The job with these partitions, for messages.

    Raises:
        UnknownPartitionError: One of them does not exist, or the last is before the first.
    """
    start, end = understood(definition, first, owner), understood(definition, last, owner)
    keys = list(definition.get_partition_keys_in_range(dg.PartitionKeyRange(start, end)))
    if not keys:
        raise UnknownPartitionError(f"--from {first} is later than --to {last}.")
    return [str(key) for key in keys]


def in_order(definition: dg.PartitionsDefinition, keys: Sequence[str]) -> list[str]:
    """Return keys in the order of their definition, each once."""
    places = {str(key): place for place, key in enumerate(definition.get_partition_keys())}
    return sorted(dict.fromkeys(keys), key=places.__getitem__)


def extent(definition: dg.PartitionsDefinition) -> str:
    """Say which partitions there are, in a few words."""
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
        example = f", as {keys}" if keys is not None else ""
        raise UnknownPartitionError(f"{text!r} is not a partition of {owner}: write {names}{example}.")
    return SEPARATOR.join(
        understood(each.partitions_def, part, f"the dimension {each.name} of {owner}")
        for each, part in zip(dimensions, parts, strict=True)
    )


def _of_time(definition: dg.TimeWindowPartitionsDefinition, text: str, owner: str) -> str:
    first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
    if first is None or last is None:
        raise UnknownPartitionError(f"{owner} has no partitions yet: the first begins {definition.start}.")
    period = Period.typed(text, definition.timezone)
    found = beginning_in(definition, period) if period is not None else ()
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownPartitionError(
            f"{text!r} is several partitions of {owner}: choose one from {found[0]} to {found[-1]}."
        )
    near = nearest(definition, period) if period is not None else None
    hint = _nearest_are([near]) if near is not None else ""
    raise UnknownPartitionError(
        f"{text!r} is not a partition of {owner}: choose one from {first} to {last}.{hint}"
    )


def _require_some(definition: dg.PartitionsDefinition, keys: Sequence[str], owner: str) -> None:
    if keys:
        return
    named = f" of {definition.name!r}" if isinstance(definition, dg.DynamicPartitionsDefinition) else ""
    raise UnknownPartitionError(
        f"{owner} has no partitions yet: add keys{named} first, by a sensor or in the Dagster UI."
    )


def _choice(keys: Sequence[str]) -> str:
    return f"one of {_listed(keys)}" if len(keys) <= MAX_LISTED else f"one of the {_listed(keys)}"


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys) if len(keys) <= MAX_LISTED else f"{len(keys)} from {keys[0]} to {keys[-1]}"


def _nearest_are(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    return f" The nearest is {keys[0]}." if len(keys) == 1 else f" The nearest are {', '.join(keys)}."
