"""Stores assets: tables as Parquet files, and records as JSON files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_args

import dagster as dg
from pydantic import Field

from ledgerline.dagster.failures import PermanentFailure, permanent_failures
from ledgerline.dagster.storage import digests, files
from ledgerline.dagster.storage.asset_files import AssetFiles, partition_keys_of, place_of
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from upath import UPath

# Metadata keys of Dagster that a table asset declares, and that are reported for it.
COLUMN_SCHEMA = "dagster/column_schema"
COLUMN_LINEAGE = "dagster/column_lineage"

# The field of a stored record with its partition key.
PARTITION_KEY = "$partition_key"

# The extras that support object stores, by URL scheme.
EXTRAS_BY_SCHEME = {"s3": "s3", "gs": "gcs"}

Record = TypeVar("Record")


class Tables(AssetFiles["pa.Table"]):
    """Stores tables as Parquet files, one for each partition.

    A table asset declares its columns (`dagster/column_schema`), and a partitioned one the column with the
    partition key (`partition_expr`). Several partitions of one run are one data frame, as input and as
    output. Each materialisation reports the row count, the schema, the column lineage and a data version,
    which is a digest of the rows.

    No file is replaced before everything that can fail has succeeded: invalid rows, a killed process or a
    full disk leave the old files.
    """

    extension = ".parquet"

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a table, split into the partitions of the step, and report its metadata."""
        from ledgerline.dagster.storage import arrow_tables, parquet, partition_rows, table_digests

        asset = place_of(context)
        name = asset.to_user_string()
        declared = context.definition_metadata or {}
        table = arrow_tables.to_arrow(name, obj, declared.get(COLUMN_SCHEMA))
        parquet.serialise(name, table.schema.empty_table())  # refuses types that Parquet does not have
        keys = partition_keys_of(context)
        lengths = [table.num_rows]
        if keys is not None:
            column = declared.get(partition_rows.PARTITION_COLUMN)
            table, lengths = partition_rows.arrange(name, table, column, keys)

        paths = [self.path_of(asset, key) for key in _keys(keys)]
        versions = table_digests.part_digests(table, lengths)

        # The report precedes the files, so that metadata which Dagster refuses does not replace a file.
        report = {key: declared[key] for key in (COLUMN_SCHEMA, COLUMN_LINEAGE) if key in declared}
        if keys is None:
            report |= {"dagster/row_count": table.num_rows, "path": dg.MetadataValue.path(str(paths[0]))}
        context.add_output_metadata(report)
        if context.has_asset_key:
            self._report(context, keys, paths, lengths, versions)
        starts = accumulate(lengths, initial=0)
        parts = zip(map(table.slice, starts, lengths), _keys(keys), strict=True)
        files.replace_each(paths, (parquet.serialise(name, part, key) for part, key in parts))

    def _report(
        self,
        context: dg.OutputContext,
        keys: Sequence[str] | None,
        paths: "Sequence[UPath]",
        lengths: Sequence[int],
        versions: Sequence[str],
    ) -> None:
        """Report the metadata of each partition, and set the data version."""
        step = context.step_context
        for key, path, length, version in zip(keys or [], paths, lengths, versions, strict=False):
            metadata = {
                "dagster/partition_row_count": length,
                "content_sha256": version,
                "path": dg.MetadataValue.path(str(path)),
            }
            step.add_asset_metadata(metadata, context.asset_key, partition_key=key)
        # Dagster has one data version for all partitions of a step; the metadata has the digest of each.
        by_key = {str(key): version for key, version in zip(_keys(keys), versions, strict=True)}
        step.set_data_version(context.asset_key, dg.DataVersion(digests.combined_sha256(by_key)))

    def load_input(self, context: dg.InputContext) -> "pd.DataFrame | None":
        """Read a table, or the requested partitions, as one data frame in the order of the partitions."""
        keys = partition_keys_of(context)
        if keys == []:
            return None
        upstream = context.upstream_output
        declared = upstream.definition_metadata if upstream is not None else None
        return self.read(place_of(context), keys, (declared or {}).get(COLUMN_SCHEMA))

    def read(
        self,
        asset: dg.AssetKey,
        partition_keys: Sequence[str] | None = None,
        schema: dg.TableSchema | None = None,
    ) -> "pd.DataFrame":
        """Read a table that is not an input of the step.

        Args:
            asset: Asset key of the table.
            partition_keys: Partition keys in the order of the rows; None for a table without partitions.
            schema: Required columns.

        Raises:
            PermanentFailure: A file is missing or damaged, or lacks a column.
        """
        from ledgerline.dagster.storage import arrow_tables

        name = asset.to_user_string()
        if partition_keys is not None and not partition_keys:
            raise PermanentFailure(f"No partition of {name} is stored.", "Materialise some first.")
        parts = []
        for key in _keys(partition_keys):
            path, table = self.find(asset, key)
            parts.append(table if schema is None else arrow_tables.conform(table, str(path), schema))
        return arrow_tables.to_frame(arrow_tables.concatenated(name, parts))

    def stored(self, asset: dg.AssetKey, partition_keys: Sequence[str] | None = None) -> "Iterator[pa.Table]":
        """Yield the stored tables one by one, without checking their columns."""
        for key in _keys(partition_keys):
            yield self.find(asset, key)[1]

    def parse(self, content: bytes, path: "UPath") -> "tuple[pa.Table, str | None]":
        """Read a Parquet file."""
        from ledgerline.dagster.storage import parquet

        return parquet.parse(content, str(path))

    def partition_key_in(self, file: BinaryIO) -> str | None:
        """Return the partition key that a Parquet file contains."""
        from ledgerline.dagster.storage import parquet

        return parquet.partition_key_of(file)


class Records(AssetFiles[bytes]):
    """Stores small results (flat frozen dataclasses) as JSON files, one for each partition."""

    extension = ".json"

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a record."""
        asset = place_of(context)
        name = asset.to_user_string()
        keys = _keys(partition_keys_of(context))
        if len(keys) != 1:
            raise PermanentFailure(
                f"{name} is one record, and the run has {len(keys)} partitions.",
                "Run one partition at a time (without BackfillPolicy.single_run()).",
            )
        path = self.path_of(asset, keys[0])
        content = _json(name, obj, keys[0])
        context.add_output_metadata({"path": dg.MetadataValue.path(str(path))})
        files.replace_all({path: content})

    def load_input(self, context: dg.InputContext) -> Any:
        """Read a record as the dataclass in the annotation of the step's parameter.

        Several partitions are read as a dictionary of records by partition key.
        """
        annotated = context.dagster_type.typing_type
        arguments = get_args(annotated)
        if not context.has_asset_key:  # an output inside a graph
            return self.read(place_of(context), None, arguments[0] if arguments else annotated)
        asset = context.asset_key
        keys = partition_keys_of(context)
        if keys is None:
            return self.read(asset, None, annotated)
        if isinstance(annotated, type) and is_dataclass(annotated):
            if len(keys) != 1:
                raise PermanentFailure(
                    f"The step asks for {len(keys)} partitions of {asset.to_user_string()} as one record.",
                    f"Annotate its parameter with dict[str, {annotated.__name__}].",
                )
            return self.read(asset, keys[0], annotated)
        return {str(key): self.read(asset, key, arguments[-1]) for key in keys}

    def read(self, asset: dg.AssetKey, partition_key: str | None, record_type: type[Record]) -> Record:
        """Read a record that is not an input of the step.

        Raises:
            PermanentFailure: The record was never written, or is not of this type.
        """
        path, content = self.find(asset, partition_key)
        try:
            fields = json.loads(content)
            if isinstance(fields, dict):
                fields.pop(PARTITION_KEY, None)
            return record_type(**fields)
        except (ValueError, TypeError) as error:
            raise PermanentFailure(
                f"{path} is not a {record_type.__name__}: {error}.", "Materialise it again."
            ) from error

    def parse(self, content: bytes, path: "UPath") -> tuple[bytes, str | None]:
        """Return the content and its partition key; `read` checks the fields of the record."""
        return content, _partition_key(content)

    def partition_key_in(self, file: BinaryIO) -> str | None:
        """Return the partition key that a JSON file contains."""
        return _partition_key(file.read())

    def delete_runs(self, instance: dg.DagsterInstance, age: timedelta) -> int:
        """Delete the outputs inside graphs of runs that ended this long ago or were deleted.

        Returns:
            Number of runs.
        """
        folder = self._base
        runs = [path for path in folder.iterdir() if path.is_dir()] if folder.exists() else []
        before = time.time() - age.total_seconds()
        old = [path for path in runs if _ended_before(instance, path.name, before)]
        for path in old:
            path.fs.rm(path.path, recursive=True)
        return len(old)


class TableStorage(dg.ConfigurableIOManagerFactory[Tables]):
    """Stores tables as Parquet files on a local disk, s3:// or gs://.

    Example:
        >>> import pandas as pd
        >>> @dg.asset(io_manager_key="tables")
        ... def orders() -> pd.DataFrame:
        ...     return pd.DataFrame({"loaf": ["rye", "spelt"], "pieces": [3, 5]})
        >>> dg.materialize([orders], resources={"tables": TableStorage(base="data")}).success
        True
        >>> open_tables("data").read(orders.key)["pieces"].tolist()
        [3, 5]
    """

    base: str = Field(description="Folder or URL (s3://, gs://) with one folder for each asset.")

    def create_io_manager(self, context: dg.InitResourceContext) -> Tables:
        """Open the storage without reading from it."""
        return open_tables(self.base)


class RecordStorage(dg.ConfigurableIOManagerFactory[Records]):
    """Stores records as JSON files on a local disk, s3:// or gs://."""

    base: str = Field(description="Folder or URL (s3://, gs://) with one folder for each asset.")

    def create_io_manager(self, context: dg.InitResourceContext) -> Records:
        """Open the storage without reading from it."""
        return open_records(self.base)


def open_tables(base: str) -> Tables:
    """Open the tables under a folder or URL.

    Raises:
        PermanentFailure: The extra for such a URL is not installed.
    """
    return Tables(_place(base))


def open_records(base: str) -> Records:
    """Open the records under a folder or URL.

    Raises:
        PermanentFailure: The extra for such a URL is not installed.
    """
    return Records(_place(base))


def _place(base: str) -> "UPath":
    from upath import UPath

    extra = EXTRAS_BY_SCHEME.get(base.partition("://")[0])
    if extra is not None:
        with permanent_failures():
            require(extra, f"The storage {base}")
    return UPath(base)


def _json(name: str, record: object, partition_key: str | None) -> bytes:
    if not is_dataclass(record) or isinstance(record, type):
        what = "None" if record is None else f"a {type(record).__name__}"
        raise PermanentFailure(
            f"{name} returned {what}, which is not a record.", "Return an instance of a dataclass."
        )
    fields = asdict(record) | ({} if partition_key is None else {PARTITION_KEY: str(partition_key)})
    try:
        return json.dumps(fields, indent=2, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise PermanentFailure(
            f"The record of {name} cannot be stored as JSON: {error}.",
            "Give it fields of text, finite numbers, booleans, lists and dictionaries.",
        ) from error


def _partition_key(content: bytes) -> str | None:
    try:
        fields = json.loads(content)
    except ValueError:
        return None
    key = fields.get(PARTITION_KEY) if isinstance(fields, Mapping) else None
    return key if isinstance(key, str) else None


def _ended_before(instance: dg.DagsterInstance, run_id: str, moment: float) -> bool:
    record = instance.get_run_record_by_id(run_id)
    return record is None or (record.end_time is not None and record.end_time < moment)


def _keys(partition_keys: Sequence[str] | None) -> Sequence[str | None]:
    return [None] if partition_keys is None else partition_keys
