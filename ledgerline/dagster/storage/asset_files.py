"""Finds and lists the files of assets. io_managers.py reads and writes their contents."""

import errno
import os
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Generic, TypeVar

import dagster as dg

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage import file_names, files

if TYPE_CHECKING:
    from upath import UPath

Content = TypeVar("Content")


class AssetFiles(dg.IOManager, Generic[Content]):
    """Stores an asset as a folder with one file for each partition, or as one file without partitions.

    Each asset and each partition has a separate file, whatever its key. No file is outside the base folder.
    """

    extension: ClassVar[str]

    def __init__(self, base: "UPath") -> None:
        self._base = base

    def folder_of(self, asset: dg.AssetKey) -> "UPath":
        """Return the folder with the partitions of an asset."""
        return self._base.joinpath(*map(file_names.folder_of, asset.path))

    def path_of(self, asset: dg.AssetKey, partition_key: str | None = None) -> "UPath":
        """Return the path at which the file of an asset, or of one of its partitions, is written."""
        folder = self.folder_of(asset)
        if partition_key is not None:
            return folder / f"{file_names.name_of(str(partition_key))}{self.extension}"
        if len(asset.path) == 1:
            return self._base / f"{file_names.name_of(asset.path[0])}{self.extension}"
        return folder / f"{file_names.WHOLE}{self.extension}"

    def is_stored(self, asset: dg.AssetKey, partition_key: str | None = None) -> bool:
        """Return whether an asset, or one of its partitions, has a file."""
        paths = [self.path_of(asset, partition_key), *self._older_paths(asset, partition_key)]
        return any(path.exists() for path in paths)

    def stored_partitions(self, asset: dg.AssetKey) -> list[str]:
        """Return the partition keys that have a file, in order."""
        folder = self.folder_of(asset)
        keys = set()
        for file in _names_in(folder):
            name = file.removesuffix(self.extension)
            if name in (file, file_names.WHOLE) or file.startswith(files.STAGING_PREFIX):
                continue
            key = (
                self._shortened_key(folder / file)
                if file_names.is_shortened(name)
                else file_names.key_of(name)
            )
            keys.add(name if key is None else key)  # earlier versions used the plain key as name
        return sorted(keys)

    def find(self, asset: dg.AssetKey, partition_key: str | None) -> "tuple[UPath, Content]":
        """Return the path and the content of an asset, or of one of its partitions.

        Raises:
            PermanentFailure: The file does not exist, or is damaged.
        """
        path = self.path_of(asset, partition_key)
        name = asset.to_user_string()
        what = name if partition_key is None else f"{name} {partition_key}"
        if (stored := _bytes_of(path)) is not None:
            content, holds = self.parse(stored, path)
            if holds not in (None, partition_key):
                raise PermanentFailure(
                    f"{path} holds the partition {holds!r}, not {what}.", f"Materialise {what} again."
                )
            return path, content
        for older in self._older_paths(asset, partition_key):
            if (stored := _bytes_of(older)) is not None:
                content, holds = self.parse(stored, older)
                if holds is None:  # otherwise the file belongs to another asset
                    return older, content
        raise PermanentFailure(
            f"{what} is not stored: the file {path} does not exist.",
            f"Materialise {what} first, or choose one that exists.",
        )

    @abstractmethod
    def parse(self, content: bytes, path: "UPath") -> tuple[Content, str | None]:
        """Return the content of a file, and the partition key that it contains.

        Raises:
            PermanentFailure: The file is damaged.
        """

    @abstractmethod
    def partition_key_in(self, file: BinaryIO) -> str | None:
        """Return the partition key that a file contains."""

    def _shortened_key(self, path: "UPath") -> str | None:
        with path.open("rb") as file:
            return self.partition_key_in(file)

    def _older_paths(self, asset: dg.AssetKey, partition_key: str | None) -> "Iterator[UPath]":
        """Yield the paths of earlier versions, which used keys without escaping."""
        if any(file_names.folder_of(part) != part for part in asset.path):
            return
        if partition_key is None:
            if len(asset.path) > 1:
                yield self.folder_of(asset).parent / f"{asset.path[-1]}{self.extension}"
            return
        parts = partition_key.split("/")
        if file_names.name_of(partition_key) != partition_key and not {"", ".", ".."} & set(parts):
            yield self.folder_of(asset).joinpath(*parts[:-1], f"{parts[-1]}{self.extension}")


def place_of(context: dg.InputContext | dg.OutputContext) -> dg.AssetKey:
    """Return the key of an asset; for an output inside a graph, a key made of run, step and output."""
    return context.asset_key if context.has_asset_key else dg.AssetKey(list(context.get_identifier()))


def partition_keys_of(context: dg.InputContext | dg.OutputContext) -> list[str] | None:
    """Return the partitions of a step in order; None for an asset without partitions.

    Dagster returns time windows in their order, and other partitions in an order that differs between
    processes.
    """
    if not context.has_asset_key or not context.has_asset_partitions:
        return None
    keys = list(context.asset_partition_keys)
    in_order = isinstance(context.asset_partitions_def, dg.TimeWindowPartitionsDefinition)
    return keys if in_order else sorted(keys)


def _bytes_of(path: "UPath") -> bytes | None:
    """Return the content of a file; None if it does not exist."""
    try:
        return path.read_bytes()
    except OSError as error:
        if _is_absent(error):
            return None
        raise


def _names_in(folder: "UPath") -> list[str]:
    """Return the current names in a folder; an empty list if the folder does not exist."""
    try:
        if isinstance(folder, Path):
            return os.listdir(folder)
        # fsspec may have cached an earlier listing.
        paths = folder.fs.ls(folder.path, detail=False, refresh=True)
    except OSError as error:
        if _is_absent(error):
            return []
        raise
    return [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]


def _is_absent(error: OSError) -> bool:
    """Return whether an error means that no such file or folder exists."""
    absent = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return absent or error.errno == errno.ENAMETOOLONG
