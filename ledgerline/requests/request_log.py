"""Writes, reads and deletes the files of the request log. logged_rows.py creates their rows."""

import fcntl
import itertools
import os
import re
import socket
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ledgerline.errors import LedgerlineError
from ledgerline.requests.logged_rows import REDACTED, fixed_schema, left_out_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Prefix of a file that is being written. Its writer holds a lock on it, which is released when the process
# ends.
HIDDEN = ".writing-"
SUFFIX = ".parquet"
# The time of the first and of the last request, and the writer. The files sort by time. The id of the process
# does not identify the writer: in containers that share the folder, it is always 1.
_NAME = re.compile(r"(\d{8}T\d{12}Z)_(\d{8}T\d{12}Z)_[\w.-]+\.parquet")

_numbers = itertools.count()


class RequestLogError(LedgerlineError):
    """Raised when a file of the request log cannot be read."""


def write(folder: Path, model: str, rows: "pa.Table") -> Path:
    """Write rows of a model, at least one, as one file, atomically; `logged_rows.to_table` creates them.

    Raises:
        OSError: The folder cannot be written, or the disk is full. No part of the file remains.
    """
    import pyarrow.parquet as pq
    from pyarrow import compute

    place = folder_of(folder, model)
    place.mkdir(parents=True, exist_ok=True)
    # pyarrow creates its compute functions at import, so type checkers do not know them.
    span = compute.min_max(rows["at"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    writer = f"{socket.gethostname()}-{os.getpid()}-{next(_numbers)}"
    name = f"{_stamp(span['min'])}_{_stamp(span['max'])}_{writer}{SUFFIX}"
    hidden = place / f"{HIDDEN}{name}"
    try:
        with hidden.open("xb") as file:
            with suppress(OSError):  # Some network file systems have no locks.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
            file.flush()
            hidden.replace(place / name)
    except BaseException:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        raise
    return place / name


def read(
    folder: Path, model: str, since: datetime, until: datetime | None = None, *, enough: int | None = None
) -> "pd.DataFrame":
    """Return the rows of the requests of a period, in the order of time.

    Columns that only some files have are empty in the rows of other files.

    Args:
        folder: Folder of the log.
        model: Name of the registered model.
        since: Beginning of the period.
        until: End of the period; None without end.
        enough: Number of rows after which no earlier file is read; None to read all files.

    Raises:
        RequestLogError: A file is damaged, or is not a file of the log.

    Example:
        >>> import numpy as np
        >>> from ledgerline.requests.logged_rows import to_table
        >>> fixed = {"request_id": ["a"], "row": [0], "version": [3], "trace_id": [""], "seconds": [0.1]}
        >>> rows = to_table({"at": [0], **fixed}, {"distance": np.array([541.0])}, {"": np.array([12.5])})
        >>> _ = write(Path("requests"), "oven_demand", rows)
        >>> read(Path("requests"), "oven_demand", datetime(1970, 1, 1, tzinfo=UTC))["output"].tolist()
        [12.5]
    """
    tables: list[pa.Table] = []
    rows = 0
    for file in reversed(_files(folder_of(folder, model), since, until)):
        if enough is not None and rows >= enough:
            break
        table = _part(file, since, until)
        if table is not None and table.num_rows:
            tables.append(table)
            rows += table.num_rows
    frame = _frame(tables)
    frame = frame.sort_values(["at", "request_id", "row"], kind="stable", ignore_index=True)
    frame.attrs[REDACTED] = sorted({name for table in tables for name in left_out_of(table)})
    return frame


def keep_within(folder: Path, max_bytes: int) -> int:
    """Delete the oldest files of all models until the log has at most this size. The newest file is kept.

    Returns:
        Number of deleted files.
    """
    sizes: dict[Path, int] = {}
    for file in folder.glob(f"*/*{SUFFIX}"):
        if _NAME.fullmatch(file.name):
            with suppress(FileNotFoundError):  # Another process deletes old files, too.
                sizes[file] = file.stat().st_size
    total, deleted = sum(sizes.values()), 0
    for file in sorted(sizes, key=lambda file: file.name)[:-1]:
        if total <= max_bytes:
            break
        file.unlink(missing_ok=True)
        total -= sizes[file]
        deleted += 1
    return deleted


def remove_leftovers(folder: Path) -> int:
    """Delete the files of writers that were killed; return their number."""
    deleted = 0
    for file in folder.glob(f"*/{HIDDEN}*"):
        with suppress(OSError), file.open("rb") as leftover:
            # This raises an error while the writer is alive and holds the lock.
            fcntl.flock(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
            deleted += 1
    return deleted


def folder_of(folder: Path, model: str) -> Path:
    """Return the folder with the files of a model."""
    name = quote(model, safe="")
    # Quoting does not change dots, so `.` and `..` would still name the folder itself and its parent.
    return folder / (f"%2E{name[1:]}" if name.startswith(".") else name)


def _files(place: Path, since: datetime, until: datetime | None) -> list[Path]:
    """Return the files that may contain rows of this period, the oldest first."""
    files = []
    for file in place.glob(f"*{SUFFIX}"):
        name = _NAME.fullmatch(file.name)
        if name is not None and name[2] >= _stamp(since) and (until is None or name[1] <= _stamp(until)):
            files.append(file)
    return sorted(files, key=lambda file: file.name)


def _part(file: Path, since: datetime, until: datetime | None) -> "pa.Table | None":
    """Return the rows of a file from a period; None if the file has been deleted to save space."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import compute

    try:
        # pq.read_table would import pyarrow's dataset module for one file.
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            table = opened.read()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestLogError(
            f"{file} is not a whole Parquet file (cut off or damaged): {error}.",
            "Delete it, or move it elsewhere; the requests in it are lost.",
        ) from error
    schema = fixed_schema()
    if not table.schema.names[: len(schema)] == schema.names:
        raise RequestLogError(
            f"{file} is not a file of a request log: its columns do not begin with "
            f"{', '.join(schema.names)}.",
            "Move it elsewhere.",
        )
    edge, not_before = pa.timestamp("us", tz="UTC"), compute.greater_equal  # pyright: ignore[reportAttributeAccessIssue]
    table = table.filter(not_before(table["at"], pa.scalar(since, edge)))
    return table if until is None else table.filter(not_before(pa.scalar(until, edge), table["at"]))


def _frame(tables: "Sequence[pa.Table]") -> "pd.DataFrame":
    """Join tables to one frame. A column whose type differs between files contains values of all types."""
    import numpy as np
    import pyarrow as pa

    if not tables:
        return fixed_schema().empty_table().to_pandas()
    fields: defaultdict[str, list[pa.Schema]] = defaultdict(list)
    for field in itertools.chain.from_iterable(table.schema for table in tables):
        fields[field.name].append(pa.schema([field]))
    clashing = []
    for name, alike in fields.items():
        try:
            pa.unify_schemas(alike, promote_options="permissive")
        except pa.ArrowException:
            clashing.append(name)
    others = [
        table.drop_columns([name for name in clashing if name in table.schema.names]) for table in tables
    ]
    frame = pa.concat_tables(others, promote_options="permissive").to_pandas()
    for name in clashing:
        frame[name] = np.concatenate(
            [
                table[name].to_pandas().to_numpy(object)
                if name in table.schema.names
                else np.full(table.num_rows, None)
                for table in tables
            ]
        )
    return frame


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%S%f}Z"
