"""The partitions that a version was trained on and is evaluated on, as its tags record them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ledgerline.registry.errors import RegistryError
from ledgerline.registry.versions import MONTH_TAG, TRAINING_DATA_TAG, TRAINING_DAYS_TAG, Version

PARTITION_TAG = "partition"  # the partition of the versions' asset that registered it
TRAINED_ON_TAG = "trained_on"
EVALUATED_ON_TAG = "evaluated_on"
HOLDOUT_TAG = "holdout"  # for rows without partitions: how the rows for evaluation were chosen

# MLflow refuses a tag of a version with more than 5,000 characters; its own encoding needs some of them.
MAX_LENGTH = 4_500

_EXAMPLE = '[["2013-04-01", "2013-06-30"]]'


class ProvenanceError(RegistryError):
    """A version does not record its partitions, or records them in an unreadable form."""


@dataclass(frozen=True)
class RowPartitions:
    """The partitions of the rows that models are trained on.

    Attributes:
        keys: All partitions, in order; empty if the rows have none.
        grow_at_the_end: True if new partitions come after all others, as time partitions do. Only then do the
            members of a range never change.
    """

    keys: Sequence[str] = ()
    grow_at_the_end: bool = True


@dataclass(frozen=True)
class Provenance:
    """The origin of a version.

    Attributes:
        partition: Partition of the versions' asset; None if the asset has no partitions.
        trained_on: Partitions of the rows that it was trained on; empty if the rows have no partitions.
        training_data_sha256: Digest of the rows that it was trained on; empty if it is not recorded.
        details: Further tags.
    """

    partition: str | None
    trained_on: Sequence[str] = ()
    evaluated_on: Sequence[str] = ()
    training_data_sha256: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


def tags_of(provenance: Provenance, partitions: RowPartitions, holdout: str | None) -> dict[str, str]:
    """Return the tags that record the origin of a version; `holdout` is that of rows without partitions.

    Raises:
        ProvenanceError: The rows do not have a partition, or there are too many to be recorded.
    """
    recorded = {TRAINED_ON_TAG: provenance.trained_on, EVALUATED_ON_TAG: provenance.evaluated_on}
    tags = {
        PARTITION_TAG: provenance.partition,
        **{tag: ranges_text(keys, partitions) for tag, keys in recorded.items() if keys},
        HOLDOUT_TAG: holdout,
        TRAINING_DATA_TAG: provenance.training_data_sha256 or None,
    }
    return {**provenance.details, **{tag: text for tag, text in tags.items() if text is not None}}


def partition_of(version: Version) -> str | None:
    """Return the partition of the versions' asset that registered a version; None if it is not recorded."""
    return version.tags.get(PARTITION_TAG) or version.tags.get(MONTH_TAG)


def trained_on(version: Version, partitions: RowPartitions) -> list[str]:
    """Return the partitions that a version was trained on.

    Raises:
        ProvenanceError: The version does not record them, or records them in an unreadable form.
    """
    recorded = version.tags.get(TRAINED_ON_TAG)
    if recorded:
        return _keys(version, TRAINED_ON_TAG, recorded, partitions)
    interval = version.tags.get(TRAINING_DAYS_TAG)
    if not interval:
        raise ProvenanceError(
            f"{named(version)} does not record which partitions it was trained on, so no row is known to be "
            "new to it.",
            f"Set its tag {TRAINED_ON_TAG} to the first and last of them, as {_EXAMPLE}, or train it with an "
            "asset that registers it with its provenance.",
        )
    first, _, last = interval.partition("/")
    keys = [key for key in partitions.keys if first <= key <= last]
    if not keys:
        raise ProvenanceError(
            f"{named(version)} records that it was trained on {interval!r} (tag {TRAINING_DAYS_TAG}), and "
            "there are no rows for that time.",
            f"Set its tag {TRAINED_ON_TAG}, as {_EXAMPLE}.",
        )
    return keys


def evaluated_on(version: Version, partitions: RowPartitions) -> list[str] | None:
    """Return the partitions that a version will be evaluated on; None if they are not recorded.

    Raises:
        ProvenanceError: They are recorded in an unreadable form.
    """
    recorded = version.tags.get(EVALUATED_ON_TAG)
    return _keys(version, EVALUATED_ON_TAG, recorded, partitions) if recorded else None


def require_new(version: Version, keys: Sequence[str], partitions: RowPartitions) -> None:
    """Require that a version was trained on none of these partitions.

    Raises:
        ProvenanceError: It was trained on some of them, or its training partitions are unknown.
    """
    seen = set(keys) & set(trained_on(version, partitions))
    if seen:
        first = next(key for key in keys if key in seen)
        raise ProvenanceError(
            f"{named(version)} was trained on {len(seen)} of the {len(keys)} partitions {span(keys)} (the "
            f"first is {first}), so it would be compared on rows that it has learned from.",
            "Compare on partitions that are new to both versions, or train a model for later ones.",
        )


def ranges_text(keys: Sequence[str], partitions: RowPartitions) -> str:
    """Return partitions as a text: JSON of [first, last] for each gapless range, in order.

    Partitions that do not grow at the end are listed one by one if the text is short enough.

    Raises:
        ProvenanceError: The rows do not have a partition, or the text is longer than a tag may be.
    """
    place = {key: number for number, key in enumerate(partitions.keys)}
    unknown = sorted(set(keys) - place.keys())
    if unknown:
        raise ProvenanceError(
            f"{unknown[0]!r} is not a partition of the rows, which have {span(partitions.keys)}."
        )
    numbers = sorted({place[key] for key in keys})
    ranges = [(number, number) for number in numbers]
    text = _text(ranges, partitions)
    if partitions.grow_at_the_end or len(text) > MAX_LENGTH:
        ranges = _joined(numbers)
        text = _text(ranges, partitions)
    if len(text) > MAX_LENGTH:
        raise ProvenanceError(
            f"{len(keys):,} partitions in {len(ranges):,} ranges are too many to be recorded in a tag.",
            "Choose partitions that follow each other.",
        )
    return text


def described(text: str) -> str:
    """Return recorded partitions in a readable form; any other text is returned unchanged."""
    try:
        return ", ".join(first if first == last else f"{first} to {last}" for first, last in json.loads(text))
    except (ValueError, TypeError):
        return text.replace("/", " to ") if text.count("/") == 1 else text


def span(keys: Sequence[str]) -> str:
    """Return the first and the last of some partitions, for a message."""
    if not keys:
        return "none"
    return keys[0] if len(keys) == 1 else f"from {keys[0]} to {keys[-1]}"


def named(version: Version) -> str:
    """Return the name of a version, for a message."""
    return f"{version.name} version {version.number}"


def _text(ranges: Sequence[tuple[int, int]], partitions: RowPartitions) -> str:
    return json.dumps([[partitions.keys[first], partitions.keys[last]] for first, last in ranges])


def _joined(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the gapless ranges that sorted numbers form."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ranges


def _keys(version: Version, tag: str, recorded: str, partitions: RowPartitions) -> list[str]:
    place = {key: number for number, key in enumerate(partitions.keys)}
    try:
        ranges = [(str(first), str(last)) for first, last in json.loads(recorded)]
        numbers = {number for first, last in ranges for number in range(place[first], place[last] + 1)}
    except KeyError as error:
        raise ProvenanceError(
            f"The tag {tag} of {named(version)} names the partition {error.args[0]!r}, and the rows have "
            f"{span(partitions.keys)}."
        ) from error
    except (ValueError, TypeError) as error:
        raise ProvenanceError(
            f"The tag {tag} of {named(version)} is {recorded!r}, which is not a list of partitions.",
            f"Set it to the first and last of each range, as {_EXAMPLE}.",
        ) from error
    if not numbers:
        raise ProvenanceError(f"The tag {tag} of {named(version)} is {recorded!r}, which names no partition.")
    return [partitions.keys[number] for number in sorted(numbers)]
