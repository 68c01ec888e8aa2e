"""Replacing files: a reader sees the old content or the new. What is in them lives elsewhere."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from resources.failures import PermanentFailure

if TYPE_CHECKING:
    from upath import UPath

STAGING_PREFIX = ".writing-"
STAGING_LEFTOVER_SECONDS = 24 * 3600


def replace_all(contents: "Mapping[UPath, bytes]") -> None:
    """Write several files of one folder; none is replaced before all of them are written.

    On a local disk the files are staged in a hidden folder beside their place and then renamed. On
    an object store each upload is atomic by itself.

    Raises:
        PermanentFailure: A local folder cannot be written, or its disk is full.
    """
    some_path = next(iter(contents))
    if isinstance(some_path, Path):
        _replace_local({Path(str(path)): content for path, content in contents.items()})
    else:
        some_path.fs.pipe({path.path: content for path, content in contents.items()})


def _replace_local(contents: Mapping[Path, bytes]) -> None:
    folder = next(iter(contents)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder) as staging:
            for path, content in contents.items():
                with open(Path(staging, path.name), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for path in contents:
                os.replace(Path(staging, path.name), path)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> PermanentFailure:
    """Say that a folder cannot be written, why, and how much room its disk has."""
    # Not Path.exists, which raises below a folder that may not be entered.
    existing = next(parent for parent in [folder, *folder.parents] if os.path.exists(parent))
    free = shutil.disk_usage(existing).free
    return PermanentFailure(
        f"{folder} cannot be written: {error.strerror or error} ({free / 1e6:,.0f} MB free on its disk).",
        "Free some space or give it the right permissions, or move the state elsewhere with "
        "LEDGERLINE_HOME (everything) or LEDGERLINE_DATA (tables only). What was there is unchanged.",
    )


def _remove_leftovers(folder: Path) -> None:
    """Delete the staging folders of writers that were killed."""
    for staging in folder.glob(f"{STAGING_PREFIX}*"):
        try:
            age = time.time() - staging.stat().st_mtime
        except FileNotFoundError:
            continue  # its writer has just finished
        if age > STAGING_LEFTOVER_SECONDS:
            shutil.rmtree(staging, ignore_errors=True)
