"""Files of versions on the local disk: what was served last can be served again without a registry."""

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
from typing import TYPE_CHECKING
from urllib.parse import quote

from ledgerline.mlflow_store import store
from ledgerline.registry.versions import SHA256_TAG, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

# In use, warm, and some to go back to.
KEPT_VERSIONS = 5

LAST_GOOD = "last_good.json"
UNFINISHED = ".unfinished-"
LEFT_SECONDS = 3600

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastGood:
    """What was served last.

    Attributes:
        version: As the registry had it.
        experiment_id: The MLflow experiment of its training run.
        folder: Its files.
    """

    version: Version
    experiment_id: str
    folder: Path


class Cache:
    """Files of the versions of one model, each in a folder that is called by their sha256.

    Args:
        folder: Of all models; made when needed.
        name: The registered model.
    """

    def __init__(self, folder: Path, name: str) -> None:
        # Not with %, which MLflow takes for something to decode.
        self._folder = folder / quote(name, safe="").replace("%", "=")

    def files(self, client: "MlflowClient", version: Version) -> Path:
        """The folder with the files of a version, fetched if they are not there.

        They are not verified here: that is done each time they are loaded. A version without a recorded hash
        is fetched each time, under a name of its own.

        Raises:
            MlflowException: They cannot be fetched.
            OSError: They cannot be written.
        """
        sha256 = _recorded(version)
        folder = self._folder / (sha256 or f"unrecorded-{version.number}")
        if sha256 and folder.is_dir():
            os.utime(folder)
            return folder
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self._folder) as unfinished:
            with store.downloaded(client, version.location) as fetched:
                shutil.copytree(fetched, Path(unfinished) / "files")
            shutil.rmtree(folder, ignore_errors=True)
            (Path(unfinished) / "files").rename(folder)
        return folder

    def drop(self, version: Version) -> None:
        """Forget the files of a version that they cannot be: they are fetched anew next time."""
        if sha256 := _recorded(version):
            shutil.rmtree(self._folder / sha256, ignore_errors=True)

    def remember(self, version: Version, experiment_id: str) -> None:
        """Write down what is served, and where it was trained, for a start without a registry."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / LAST_GOOD
        unfinished = file.with_name(f"{UNFINISHED}{os.getpid()}-{LAST_GOOD}")
        content = asdict(version) | {
            "created_at": version.created_at.isoformat(),
            "experiment_id": experiment_id,
        }
        unfinished.write_text(json.dumps(content, indent=1))
        unfinished.replace(file)

    def last_good(self) -> LastGood | None:
        """What was served last; None if nothing was, or it cannot be read."""
        file = self._folder / LAST_GOOD
        try:
            content = json.loads(file.read_text())
            experiment_id = content.pop("experiment_id")
            version = Version(**content | {"created_at": datetime.fromisoformat(content["created_at"])})
            return LastGood(version, experiment_id, self._folder / (_recorded(version) or "unrecorded"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("%s cannot be read, and is passed over: %s", file, error)
            return None

    def clean(self) -> None:
        """Delete all but the versions that were used last, and what a killed process left unfinished."""
        if not self._folder.is_dir():
            return
        versions = [path for path in self._folder.iterdir() if path.is_dir()]
        unfinished = {path for path in versions if path.name.startswith(UNFINISHED)}
        # Another process may be at work in a young one.
        left = [path for path in unfinished if path.stat().st_mtime < time.time() - LEFT_SECONDS]
        whole = sorted(set(versions) - unfinished, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in [*left, *whole[KEPT_VERSIONS:]]:
            shutil.rmtree(path, ignore_errors=True)


def _recorded(version: Version) -> str | None:
    """The recorded hash; whoever writes tags can write anything, and this becomes the name of a folder."""
    sha256 = version.tags.get(SHA256_TAG, "")
    return sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None
