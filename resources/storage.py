"""Where assets are kept: tables as Parquet, records as JSON. What is in them is not known here."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import dagster as dg
from pydantic import Field

from resources import files, parquet
from resources.failures import PermanentFailure

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from upath import UPath

# Dagster's own metadata keys: what a table asset declares, and what is reported of it.
PARTITION_COLUMN = "partition_expr"
COLUMN_SCHEMA = "dagster/column_schema"
COLUMN_LINEAGE = "dagster/column_lineage"

Record = TypeVar("Record")


class AssetFiles(dg.UPathIOManager):
    """One folder for each asset, one file in it for each partition; a lone file without partitions."""

    def folder_of(self, asset: dg.AssetKey) -> "UPath":
        """The folder with the partitions of an asset."""
        return self._base_path.joinpath(*asset.path)

    def path_of(self, asset: dg.AssetKey, partition_key: str | None = None) -> "UPath":
        """The file of an asset, or of one of its partitions."""
        folder = self.folder_of(asset)
        path = folder if partition_key is None else folder / partition_key
        return path.with_name(path.name + (self.extension or ""))

    def content_of(self, asset: dg.AssetKey, partition_key: str | None) -> bytes:
        """The bytes of the file of an asset, or of one of its partitions.

        Raises:
            PermanentFailure: There is no such file.
        """
        path = self.path_of(asset, partition_key)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            name = asset.to_user_string()
            what = name if partition_key is None else f"{name} {partition_key}"
            raise PermanentFailure(
                f"{what} is not stored: there is no file {path}.",
                f"Materialise {what} first, or choose one that exists.",
            ) from error

    def make_directory(self, path: "UPath") -> None:
        """Nothing: `files.replace_all` creates folders, and says what is wrong if it cannot."""


class Tables(AssetFiles):
    """Tables as Parquet files, one for each partition.

    A table asset declares its columns once (`dagster/column_schema`), and a partitioned one the
    column that holds the partition key (`partition_expr`). Several partitions of one run travel as
    one data frame, in and out. Each materialisation reports row count, schema, column lineage and a
    data version that is a hash of the rows.

    Nothing is replaced before everything is written: a killed write or a full disk leaves the old
    files.
    """

    extension = ".parquet"

    def handle_output(self, context: dg.OutputContext, obj: "pd.DataFrame") -> None:
        """Write a frame, cut into the step's partitions, and report what was written."""
        declared = context.definition_metadata
        table = parquet.to_arrow(context.asset_key.to_user_string(), obj, declared.get(COLUMN_SCHEMA))
        if context.has_asset_partitions:
            version = self._store_partitions(context, table)
        else:
            super().handle_output(context, table)
            version = parquet.content_sha256(parquet.to_frame(table))
        context.add_output_metadata(
            {key: declared[key] for key in (COLUMN_SCHEMA, COLUMN_LINEAGE) if key in declared}
        )
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))

    def dump_to_path(self, context: dg.OutputContext, obj: "pa.Table", path: "UPath") -> None:
        """Write a table that has no partitions."""
        files.replace_all({path: parquet.serialise(obj)})

    def get_metadata(self, context: dg.OutputContext, obj: "pa.Table") -> dict[str, dg.MetadataValue]:
        """The row count of a table that has no partitions."""
        return {"dagster/row_count": dg.MetadataValue.int(obj.num_rows)}

    def _store_partitions(self, context: dg.OutputContext, table: "pa.Table") -> str:
        asset = context.asset_key
        column = context.definition_metadata[PARTITION_COLUMN]
        parts = parquet.split(asset.to_user_string(), table, column, context.asset_partition_keys)
        paths = {key: self.path_of(asset, key) for key in parts}
        files.replace_all({paths[key]: parquet.serialise(part) for key, part in parts.items()})

        digests = {}
        for key, part in parts.items():
            digests[key] = parquet.content_sha256(parquet.to_frame(part))
            metadata = {
                "dagster/partition_row_count": part.num_rows,
                "content_sha256": digests[key],
                "path": dg.MetadataValue.path(str(paths[key])),
            }
            context.step_context.add_asset_metadata(metadata, asset, partition_key=key)
        # Dagster gives all partitions of one step one data version; each one's own is its metadata.
        return parquet.combined_sha256(digests)

    def load_from_path(self, context: dg.InputContext, path: "UPath") -> "pd.DataFrame":
        """Read a table that has no partitions."""
        return self.read(context.asset_key, None, _declared_schema(context))

    def load_partitions(self, context: dg.InputContext) -> "pd.DataFrame":
        """Read all partitions that the step asks for, as one frame in partition order."""
        return self.read(context.asset_key, context.asset_partition_keys, _declared_schema(context))

    def read(
        self,
        asset: dg.AssetKey,
        partition_keys: Sequence[str] | None = None,
        schema: dg.TableSchema | None = None,
    ) -> "pd.DataFrame":
        """Read a table outside the inputs that Dagster loads.

        Args:
            asset: The table's asset key.
            partition_keys: Partitions, in the order wanted; None for a table without partitions.
            schema: Columns to insist on.

        Raises:
            PermanentFailure: A file is missing or damaged, or lacks a column.
        """
        import pyarrow as pa

        if partition_keys is not None and not partition_keys:
            raise PermanentFailure(
                f"No partition of {asset.to_user_string()} is stored.", "Materialise some first."
            )
        parts: Iterable[pa.Table] = self.stored(asset, partition_keys)
        if schema is not None:
            paths = [str(self.path_of(asset, key)) for key in _keys(partition_keys)]
            parts = (parquet.conform(part, path, schema) for part, path in zip(parts, paths, strict=True))
        return parquet.to_frame(pa.concat_tables(list(parts)))

    def stored(self, asset: dg.AssetKey, partition_keys: Sequence[str] | None = None) -> "Iterator[pa.Table]":
        """The files of a table as they are, one by one, whatever their columns."""
        for key in _keys(partition_keys):
            yield parquet.parse(self.content_of(asset, key), str(self.path_of(asset, key)))

    def stored_partitions(self, asset: dg.AssetKey) -> list[str]:
        """The partition keys that have a file, in order."""
        return sorted(file.stem for file in self.folder_of(asset).glob(f"*{self.extension}"))


class Records(AssetFiles):
    """Small results (flat frozen dataclasses) as JSON files, one for each partition."""

    extension = ".json"

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: "UPath") -> None:
        """Write a record whole."""
        files.replace_all({path: json.dumps(asdict(obj), indent=2, allow_nan=False).encode()})

    def load_from_path(self, context: dg.InputContext, path: "UPath") -> Any:
        """Read the record as the dataclass that the step's parameter is annotated with."""
        record_type = context.dagster_type.typing_type
        if not context.has_asset_key:  # what one step of a graph hands to the next
            return _record(
                path.read_bytes(), path, get_args(record_type)[0] if get_args(record_type) else record_type
            )
        key = context.asset_partition_key if context.has_asset_partitions else None
        return self.read(context.asset_key, key, record_type)

    def read(self, asset: dg.AssetKey, partition_key: str | None, record_type: type[Record]) -> Record:
        """Read a record outside the inputs that Dagster loads.

        Raises:
            PermanentFailure: It was never written, or is not such a record.
        """
        return _record(self.content_of(asset, partition_key), self.path_of(asset, partition_key), record_type)

    def delete_runs(self, instance: dg.DagsterInstance, age: timedelta) -> int:
        """Delete what steps of earlier runs handed on, of runs that ended long ago or are not known any more.

        Args:
            instance: Knows the runs.
            age: How long ago.

        Returns:
            Of how many runs.
        """
        folder = self._base_path
        runs = [path for path in folder.iterdir() if path.is_dir()] if folder.exists() else []
        before = time.time() - age.total_seconds()
        old = [path for path in runs if _ended_before(instance, path.name, before)]
        for path in old:
            path.fs.rm(path.path, recursive=True)
        return len(old)


class TableStorage(dg.ConfigurableIOManagerFactory[Tables]):
    """Tables as Parquet files on a local disk, s3:// or gs://."""

    base: str = Field(description="Folder or URL (s3://, gs://) with one folder for each asset.")

    def create_io_manager(self, context: dg.InitResourceContext) -> Tables:
        """Open the storage; nothing is read yet."""
        return open_tables(self.base)


class RecordStorage(dg.ConfigurableIOManagerFactory[Records]):
    """Records as JSON files on a local disk, s3:// or gs://."""

    base: str = Field(description="Folder or URL (s3://, gs://) with one folder for each asset.")

    def create_io_manager(self, context: dg.InitResourceContext) -> Records:
        """Open the storage; nothing is read yet."""
        return open_records(self.base)


def open_tables(base: str) -> Tables:
    """The tables under a folder or URL."""
    from upath import UPath

    return Tables(UPath(base))


def open_records(base: str) -> Records:
    """The records under a folder or URL."""
    from upath import UPath

    return Records(UPath(base))


def _record(content: bytes, path: "UPath", record_type: type[Record]) -> Record:
    try:
        return record_type(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise PermanentFailure(
            f"{path} is not a {record_type.__name__}: {error}.", "Materialise it again."
        ) from error


def _ended_before(instance: dg.DagsterInstance, run_id: str, moment: float) -> bool:
    record = instance.get_run_record_by_id(run_id)
    return record is None or (record.end_time is not None and record.end_time < moment)


def _declared_schema(context: dg.InputContext) -> dg.TableSchema | None:
    upstream = context.upstream_output
    return upstream.definition_metadata.get(COLUMN_SCHEMA) if upstream else None


def _keys(partition_keys: Sequence[str] | None) -> Sequence[str | None]:
    return [None] if partition_keys is None else partition_keys
