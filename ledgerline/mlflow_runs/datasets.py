"""Describes the assets that a run read and wrote as MLflow datasets, which projection.py sends.

MLflow stores one dataset for each name and digest of an experiment, with its first description. The digest is
therefore computed from the whole description, so that a different description results in another dataset.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING

import dagster as dg

from ledgerline.cleaning.texts import clean, shortened
from ledgerline.ledger.history import Materialisation, RunHistory
from ledgerline.ledger.ids import RUN_ID_FIELD
from ledgerline.ledger.reads import Read, Source
from ledgerline.ledger.written import rows_kept

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

# The limits of mlflow/utils/validation.py
MAX_NAME_LENGTH = 500
MAX_DIGEST_LENGTH = 36
MAX_TAG_LENGTH = 500
MAX_SCHEMA_LENGTH = 1_048_575
MAX_DATASETS = 1000  # maximum number of datasets in one call
MAX_WRITERS = 100  # maximum number of writers of an asset that was read; each has one dataset

SOURCE_TYPE = "dagster"
CONTEXT_TAG = "mlflow.data.context"
VERSION_TAG = "data_version"
WRITER_TAG = "written_by"  # id of a Dagster run, which its MLflow run has as a tag
CAVEAT_TAG = "caveat"
READ, WRITTEN = "input", "output"


@dataclass(frozen=True)
class _Dataset:
    """A version of an asset that one run wrote, with the partitions that were read or remain."""

    asset: str
    writer: str | None
    data_version: str | None
    partitions: Sequence[str]
    rows: int | None
    schema: dg.TableSchema | None
    caveat: str | None = None

    def as_input(self, context: str) -> "DatasetInput":
        """Return the dataset as an MLflow input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile: dict[str, int] = {}
        if self.rows is not None:
            profile["num_rows"] = self.rows
        if self.partitions:
            profile["num_partitions"] = len(self.partitions)
        source = {"asset": self.asset, RUN_ID_FIELD: self.writer}
        schema = json.dumps({"mlflow_colspec": _columns(self.schema)}) if self.schema else ""
        described = [source, self.data_version, sorted(self.partitions), profile, schema]
        if self.writer is None:  # Otherwise the caveat is about the run that read the dataset.
            described.append(self.caveat)
        tags = {
            CONTEXT_TAG: context,
            VERSION_TAG: self.data_version,
            WRITER_TAG: self.writer,
            CAVEAT_TAG: self.caveat,
        }
        return DatasetInput(
            Dataset(
                name=shortened(self.asset, MAX_NAME_LENGTH),
                digest=sha256(json.dumps(described).encode()).hexdigest()[:MAX_DIGEST_LENGTH],
                source_type=SOURCE_TYPE,
                source=json.dumps({key: value for key, value in source.items() if value is not None}),
                schema=schema if 0 < len(schema) <= MAX_SCHEMA_LENGTH else None,
                profile=json.dumps(profile) if profile else None,
            ),
            [
                InputTag(name, shortened(value, MAX_TAG_LENGTH))
                for name, value in tags.items()
                if value is not None
            ],
        )


def run_datasets(now: RunHistory) -> "list[DatasetInput]":
    """Return the datasets that a run has read from other runs, and those that it has written.

    A dataset is the part of an asset that one run wrote in one version. A run that reads all of it has the
    same dataset, with the same name and digest. A run that reads only some of its partitions has another one.
    Both name the run that wrote the asset.
    """
    return [
        *(dataset.as_input(READ) for dataset in _read(now)),
        *(dataset.as_input(WRITTEN) for dataset in _written(now)),
    ]


def _written(now: RunHistory) -> Iterator[_Dataset]:
    for asset, left in now.written.items():
        versions: dict[str, list[tuple[Materialisation, Sequence[Materialisation]]]] = {}
        for part, parts in left.kept:
            if part.data_version is not None:
                versions.setdefault(part.data_version, []).append((part, parts))
        for data_version, kept in versions.items():
            parts = [part for part, _ in kept]
            yield _Dataset(
                asset=asset,
                writer=now.run.run_id,
                data_version=data_version,
                partitions=[part.partition for part in parts if part.partition is not None],
                rows=rows_kept(kept),
                schema=next((part.schema for part in parts if part.schema is not None), None),
            )


def _read(now: RunHistory) -> Iterator[_Dataset]:
    own = {*now.written, *now.planned}
    groups: dict[tuple[str, str, str | None], dict[tuple[int, str | None], Source]] = {}
    caveats: dict[str, str] = {}
    unknown: dict[tuple[str, str], Read] = {}
    for read in chain.from_iterable(attempt.reads for attempt in now.attempts):
        if not read.sources and read.asset not in own:
            unknown[read.asset, read.recorded] = read
        if read.caveat is not None:
            caveats[read.asset] = read.caveat
        for source in read.sources:
            if source.run_id != now.run.run_id:
                group = groups.setdefault((read.asset, source.writer, source.data_version), {})
                group[source.storage_id, source.partition] = source
    writers = Counter(asset for asset, _, _ in groups)
    many = {asset: [] for asset, count in writers.items() if count > MAX_WRITERS}
    for (asset, writer, data_version), group in groups.items():
        if asset in many:
            many[asset] += group.values()
        else:
            yield _read_from(asset, writer, data_version, list(group.values()), caveats.get(asset))
    for asset, sources in many.items():
        versions = sha256(json.dumps(sorted((each.writer, str(each.version)) for each in sources)).encode())
        caveat = f"{writers[asset]} versions, written by as many runs; SHA-256 of them {versions.hexdigest()}"
        yield _read_from(asset, None, None, sources, caveat)
    for read in unknown.values():
        yield _Dataset(read.asset, None, None, (), None, None, read.caveat)


def _read_from(
    asset: str, writer: str | None, data_version: str | None, sources: Sequence[Source], caveat: str | None
) -> _Dataset:
    counts = [source.rows for source in sources]
    return _Dataset(
        asset=asset,
        writer=writer,
        data_version=data_version,
        partitions=[source.partition for source in sources if source.partition is not None],
        rows=None if None in counts else sum(rows for rows in counts if rows is not None),
        schema=next((source.schema for source in sources if source.schema is not None), None),
        caveat=caveat,
    )


def _columns(schema: dg.TableSchema) -> list[dict[str, object]]:
    return [
        {"name": clean(each.name), "type": clean(each.type), "required": not each.constraints.nullable}
        for each in schema.columns
    ]
