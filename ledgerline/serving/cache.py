"""Caches the files of versions on the local disk, so that a service can start without a registry."""

import json
import logging
import os
import re
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from mlflow import MlflowClient

from ledgerline.mlflow_store import store
from ledgerline.registry.versions import SHA256_TAG, Version

# The versions in memory, and some for rollbacks.
KEPT_VERSIONS = 5

LAST_ACTIVE = "last_good.json"
UNFINISHED = ".unfinished-"
STALE_SECONDS = 3600

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastActive:
    """The version that was active last, as the registry described it, and the folder of its files."""

    version: Version
    experiment_id: str
    folder: Path


class Cache:
    """The files of one model's versions, each in a folder that is named by their SHA-256."""

    def __init__(self, folder: Path, name: str) -> None:
        # MLflow would decode names with %.
        self._folder = folder / quote(name, safe="").replace("%", "=")

    def files(self, client: MlflowClient, version: Version) -> Path:
        """Return the folder with the files of a version; download them if they are not cached.

        The files are verified each time they are loaded, and not here. A version without a recorded hash is
        downloaded each time.

        Raises:
            MlflowException: The files cannot be downloaded.
            OSError: The files cannot be written.
        """
        sha256 = _recorded(version)
        folder = self._folder / (sha256 or f"unrecorded-{version.number}")
        if sha256 and folder.is_dir():
            os.utime(folder)
            return folder
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self._folder) as unfinished:
            with store.downloaded(client, version.location) as downloaded:
                shutil.copytree(downloaded, Path(unfinished) / "files")
            shutil.rmtree(folder, ignore_errors=True)
            (Path(unfinished) / "files").rename(folder)
        return folder

    def drop(self, version: Version) -> None:
        """Delete the files of a version, so that they are downloaded again."""
        if sha256 := _recorded(version):
            shutil.rmtree(self._folder / sha256, ignore_errors=True)

    def store(self, version: Version, experiment_id: str) -> None:
        """Store the active version and its experiment, for a start without a registry."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / LAST_ACTIVE
        unfinished = file.with_name(f"{UNFINISHED}{os.getpid()}-{LAST_ACTIVE}")
        content = asdict(version) | {"experiment_id": experiment_id}
        unfinished.write_text(json.dumps(content, indent=1, default=datetime.isoformat))
        unfinished.replace(file)

    def last_active(self) -> LastActive | None:
        """Return the version that was active last; None without a readable record of it."""
        file = self._folder / LAST_ACTIVE
        try:
            content = json.loads(file.read_text())
            experiment_id = content.pop("experiment_id")
            version = Version(**content | {"created_at": datetime.fromisoformat(content["created_at"])})
            return LastActive(version, experiment_id, self._folder / (_recorded(version) or "unrecorded"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("%s cannot be read, and is ignored: %s", file, error)
            return None

    def clean(self) -> None:
        """Delete all but the last used versions, and unfinished downloads of killed processes."""
        if not self._folder.is_dir():
            return
        versions = [path for path in self._folder.iterdir() if path.is_dir()]
        unfinished = {path for path in versions if path.name.startswith(UNFINISHED)}
        # Another process may be writing a recent one.
        stale = [path for path in unfinished if path.stat().st_mtime < time.time() - STALE_SECONDS]
        whole = sorted(set(versions) - unfinished, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in [*stale, *whole[KEPT_VERSIONS:]]:
            shutil.rmtree(path, ignore_errors=True)


def _recorded(version: Version) -> str | None:
    """Return the recorded hash if it is valid; it becomes a folder name, and any client can write tags."""
    sha256 = version.tags.get(SHA256_TAG, "")
    return sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None
