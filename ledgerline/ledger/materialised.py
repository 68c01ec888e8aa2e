"""Converts Dagster's AssetMaterialization to a Materialisation, which event_log.py adds to its attempt."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import dagster as dg

from ledgerline.cleaning.texts import clean, cleaned
from ledgerline.ledger.given_by_users import numbers
from ledgerline.ledger.history import Materialisation, asset_name
from ledgerline.ledger.reads import Read
from ledgerline.ledger.written import MAX_ROWS

# Tags and metadata keys of Dagster; data versions were called logical versions before 1.2.
DATA_VERSION_TAGS = ("dagster/data_version", "dagster/logical_version")
READ_TAGS = ("dagster/input_data_version/", "dagster/input_logical_version/")
POINTER_TAG = "dagster/input_event_pointer/"
GIVEN_VERSION_TAG = "dagster/data_version_is_user_provided"
CODE_VERSION_TAG = "dagster/code_version"
PARTITION_ROW_COUNT = "dagster/partition_row_count"
ROW_COUNT = "dagster/row_count"
COLUMN_SCHEMA = "dagster/column_schema"
COLUMN_LINEAGE = "dagster/column_lineage"
CONTENT_SHA256 = "content_sha256"  # metadata that Ledgerline's table storage writes

# The tag with the version, the version, and the number of the event, of each read.
_RecordedReads = tuple[tuple[str, str, str], ...]


class MaterialisationReader:
    """Reads the materialisations of one run. Partitions with equal schemas or reads share one object."""

    def __init__(self) -> None:
        self._schemas: dict[str, Any] = {}  # the latest materialisation by asset
        self._lineages: dict[str, Any] = {}
        self._reads: dict[_RecordedReads, tuple[Read, ...]] = {}

    def read(self, recorded: dg.AssetMaterialization, time: float) -> Materialisation:
        """Return the record of a materialisation that was logged at this time."""
        asset = asset_name(recorded.asset_key)
        metadata, tags = recorded.metadata, recorded.tags or {}
        is_of_output = CODE_VERSION_TAG in tags
        rows, of_table = _count(metadata.get(PARTITION_ROW_COUNT)), _count(metadata.get(ROW_COUNT))
        reads = self._read_by(tags)
        is_part = is_of_output and recorded.partition is not None
        content = getattr(metadata.get(CONTENT_SHA256), "value", None)
        schema = getattr(metadata.get(COLUMN_SCHEMA), "value", None)
        lineage = getattr(metadata.get(COLUMN_LINEAGE), "value", None)
        return Materialisation(
            asset=asset,
            partition=cleaned(recorded.partition),
            data_version=data_version(tags),
            code_version=cleaned(tags.get(CODE_VERSION_TAG)),
            rows=rows if is_part or rows is not None else of_table,
            content_sha256=cleaned(content) if isinstance(content, str) else None,
            schema=_same(self._schemas, asset, schema),
            column_lineage=_same(self._lineages, asset, lineage),
            reads=reads,
            description=cleaned(recorded.description),
            time=time,
            output_rows=of_table if is_part else None,
            is_of_output=is_of_output,
            is_of_code=not reads and _is_of_code(tags),
            numbers=numbers(metadata),
        )

    def _read_by(self, tags: Mapping[str, str]) -> tuple[Read, ...]:
        """Return the upstream assets that the tags of a materialisation name."""
        recorded = tuple(
            (name, version, tags.get(POINTER_TAG + _asset_of(name), ""))
            for name, version in tags.items()
            if name.startswith(READ_TAGS)
        )
        if not recorded:
            return ()
        if recorded not in self._reads:
            self._reads[recorded] = tuple(_read(*each) for each in recorded)
        return self._reads[recorded]


def data_version(tags: Mapping[str, str]) -> str | None:
    """Return the data version that an event records for its asset."""
    version = tagged_version(tags)
    return clean(version) if version is not None else None


def tagged_version(tags: Mapping[str, str]) -> str | None:
    """Return the version as it is in the event log. Dagster computes its digests from this text."""
    return next((tags[name] for name in DATA_VERSION_TAGS if name in tags), None)


def _read(tag: str, version: str, pointer: str) -> Read:
    # In this tag, Dagster does not distinguish a slash within a part of a key from one between parts.
    escaped = _asset_of(tag).replace("\\", "\\\\")
    return Read(clean(escaped), clean(version), int(pointer) if pointer.isdecimal() else None)


def _asset_of(tag: str) -> str:
    """Return the asset key in the name of a tag about an upstream asset."""
    return tag.split("/", 2)[2]


def _is_of_code(tags: Mapping[str, str]) -> bool:
    """Return whether the data version is the digest of the code version."""
    code_version = tags.get(CODE_VERSION_TAG)
    if code_version is None or GIVEN_VERSION_TAG in tags:
        return False
    return data_version(tags) == sha256(code_version.encode(errors="replace")).hexdigest()


def _count(metadata: Any) -> int | None:
    """Return the value as a number of rows; None if it is not a valid one."""
    value = getattr(metadata, "value", None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ROWS:
        return value
    return None


def _same(latest: dict[str, Any], asset: str, value: Any) -> Any:
    """Return the previous partition's object if it is equal: hundreds of partitions share one schema."""
    if value is not None and latest.get(asset) == value:
        return latest[asset]
    latest[asset] = value
    return value
