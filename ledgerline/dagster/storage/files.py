"""Replaces files atomically: a reader gets either the old content or the new."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerline.dagster.failures import PermanentFailure

if TYPE_CHECKING:
    from upath import UPath

STAGING_PREFIX = ".writing-"
STAGING_LEFTOVER_SECONDS = 24 * 3600

# A disk flushes concurrent writes together, so several threads write the files of one batch.
WRITERS = 16

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def replace_all(contents: "Mapping[UPath, bytes]") -> None:
    """Write several files. No file is replaced before all of them are written (see `replace_each`)."""
    replace_each(list(contents), contents.values())


def replace_each(paths: "Sequence[UPath]", contents: Iterable[bytes]) -> None:
    """Write a file at each path. No file is replaced before all of them are written.

    On a local disk the files are staged in a hidden folder beside their paths and then renamed. In an object
    store each upload is atomic.

    Args:
        paths: One or more different paths.
        contents: Contents of the files; each is produced while earlier ones are written.

    Raises:
        PermanentFailure: A file cannot be written; the message says whether others have been replaced.
    """
    if isinstance(paths[0], Path):
        _replace_local([Path(str(path)) for path in paths], contents)
    else:
        _replace_objects(paths, contents)


def _replace_objects(paths: "Sequence[UPath]", contents: Iterable[bytes]) -> None:
    uploads = {path.path: content for path, content in zip(paths, contents, strict=True)}
    try:
        paths[0].fs.pipe(uploads)
    except (FileNotFoundError, PermissionError) as error:  # all other errors may be temporary
        others = "" if len(paths) == 1 else f" Others of these {len(paths)} files may have been replaced."
        raise PermanentFailure(
            f"{paths[0].parent} cannot be written: {error}.{others}",
            "Check that the bucket exists and that the credentials may write there, then materialise again.",
        ) from error


def _replace_local(paths: Sequence[Path], contents: Iterable[bytes]) -> None:
    folder = paths[0].parent
    replaced = 0
    try:
        for parent in {path.parent for path in paths}:
            parent.mkdir(parents=True, exist_ok=True)
        existing = os.listdir(folder)
        _remove_leftovers(folder / name for name in existing if name.startswith(STAGING_PREFIX))
        with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder) as staging:
            refuse_one_file_for_two(Path(staging), [path.name for path in paths], existing)
            # Staged files are numbered, because two paths may have the same file name.
            staged = [Path(staging, str(number)) for number in range(len(paths))]
            _write_all(staged, contents)
            for path in paths:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            for source, path in zip(staged, paths, strict=True):
                os.replace(source, path)
                replaced += 1
    except OSError as error:
        raise unwritable(folder, error, replaced=replaced, files=len(paths)) from error


def _write_all(paths: Sequence[Path], contents: Iterable[bytes]) -> None:
    if len(paths) == 1:
        (content,) = contents
        _write(paths[0], content)
        return
    with ThreadPoolExecutor(min(WRITERS, len(paths))) as pool:
        writes = [pool.submit(_write, path, content) for path, content in zip(paths, contents, strict=True)]
    for write in writes:
        write.result()


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def unwritable(folder: Path, error: OSError, *, replaced: int = 0, files: int = 1) -> PermanentFailure:
    """Return the failure to write files, with a remedy and the state of the existing files."""
    # Path.exists raises an error for a name that is too long, and below a folder without access.
    existing = next(parent for parent in [folder, *folder.parents] if os.path.exists(parent))
    free = shutil.disk_usage(existing).free
    elsewhere = "move the state elsewhere with LEDGERLINE_HOME (everything) or LEDGERLINE_DATA (tables only)"
    if error.errno in _NO_ROOM:
        remedy = f"Free some space, or {elsewhere}."
    elif error.errno in _NOT_ALLOWED:
        remedy = f"Make it writable (give it the right permissions), or {elsewhere}."
    elif error.errno == errno.ENAMETOOLONG:
        remedy = f"Give the asset a shorter key, or {elsewhere}: a path has at most 4,096 bytes."
    else:
        remedy = f"Check the path, or {elsewhere}."
    state = (
        "The existing files are unchanged."
        if not replaced
        else f"{replaced} of {files} files had been replaced: materialise all of them again."
    )
    named = str(folder) if len(str(folder)) <= 500 else f"{str(folder)[:250]}...{str(folder)[-250:]}"
    # The message names a file that blocks the path, but not a name that is too long.
    place = f" ({error.filename})" if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST) else ""
    reason = f"{error.strerror or error}{place}"
    return PermanentFailure(
        f"{named} cannot be written: {reason} ({free / 1e6:,.0f} MB free on its disk).",
        f"{remedy} {state}",
    )


def refuse_one_file_for_two(staging: Path, names: Sequence[str], existing: Sequence[str]) -> None:
    """Refuse names that are equal on a case-insensitive disk."""
    if not os.path.exists(staging.with_name(staging.name.swapcase())):
        return
    spelled = {name.casefold(): name for name in existing}
    for name in names:
        other = spelled.setdefault(name.casefold(), name)
        if other != name:
            raise PermanentFailure(
                f"{name} and {other} would be the same file: the disk of {staging.parent} ignores case.",
                "Rename one of the keys, or store the tables on another disk (LEDGERLINE_DATA). The existing "
                "files are unchanged.",
            )


def _remove_leftovers(stagings: Iterable[Path]) -> None:
    """Delete the staging folders of writers that were killed."""
    for staging in stagings:
        try:
            age = time.time() - staging.stat().st_mtime
        except FileNotFoundError:
            continue  # its writer has just finished
        if age > STAGING_LEFTOVER_SECONDS:
            shutil.rmtree(staging, ignore_errors=True)
