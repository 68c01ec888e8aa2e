"""Stores cursors in a folder, for an instance opened read-only. cursors.py describes their content."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CursorFolder:
    """Stores cursors, one file for each key, with the same methods as Dagster's run storage."""

    folder: Path

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        """Return the values by key, without keys that have no value."""
        files = {key: self._file(key) for key in keys}
        return {key: file.read_text() for key, file in files.items() if file.exists()}

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        """Replace the values of these keys. Each file is replaced atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for key, value in pairs.items():
            descriptor, written = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(descriptor, "w") as file:
                file.write(value)
            Path(written).replace(self._file(key))

    def _file(self, key: str) -> Path:
        return self.folder / f"{key.replace('/', '.')}.json"
