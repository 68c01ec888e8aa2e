"""Stores days of real flights and says how long it took. What is compared with what: storage/io_managers.py.

Runs with the packages of whatever checkout is first on the path, so it uses what every version has.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from assets.flights import FLIGHTS_SCHEMA, flights_of, read_flights
from assets.partitions import DAYS
from ledgerline.dagster.storage.io_managers import open_tables

FIRST = "2013-01-01"


class Timed(dg.IOManager):
    """The storage, and a clock."""

    def __init__(self, folder: str) -> None:
        self.tables = open_tables(folder)
        self.seconds = self.cpu_seconds = 0.0

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store, and measure it."""
        self.seconds, self.cpu_seconds = timed(lambda: self.tables.handle_output(context, obj))

    def load_input(self, context: dg.InputContext) -> Any:
        """Read; not measured."""
        return self.tables.load_input(context)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processors, that something took."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def by_the_storage(folder: str, rows: pd.DataFrame, days: list[str]) -> tuple[float, float]:
    """Store days as the step of an asset does."""

    @dg.asset(
        partitions_def=DAYS,
        io_manager_key="tables",
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"dagster/column_schema": FLIGHTS_SCHEMA, "partition_expr": "date"},
    )
    def flights() -> Any:
        return rows

    tables = Timed(folder)
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([flights], resources={"tables": tables}, instance=instance, tags=tags)
    return tables.seconds, tables.cpu_seconds


def by_pandas(folder: str, rows: pd.DataFrame, days: list[str]) -> tuple[float, float]:
    """Write a file for each day with pandas alone: no checks, no hashes, nothing staged, nothing synced."""

    def write() -> None:
        for day, part in rows.groupby("date"):
            part.to_parquet(Path(folder, f"{day}.parquet"), compression="zstd", index=False)

    return timed(write)


def by_pandas_synced(folder: str, rows: pd.DataFrame, days: list[str]) -> tuple[float, float]:
    """Do the same, with each file on the disk before the next is written."""

    def write() -> None:
        for day, part in rows.groupby("date"):
            path = Path(folder, f"{day}.parquet")
            with path.open("wb") as file:
                part.to_parquet(file, compression="zstd", index=False)
                file.flush()
                os.fsync(file.fileno())

    return timed(write)


WAYS = {"storage": by_the_storage, "pandas": by_pandas, "pandas, synced": by_pandas_synced}


def main() -> None:
    """Print as JSON, for each number of days that was asked for, how long each way took, twice over."""
    ways, folder, *counts = sys.argv[1:]
    source = read_flights()
    measured = []
    for count in map(int, counts):
        days = [str(day.date()) for day in pd.date_range(FIRST, periods=count)]
        rows = flights_of(source, days)
        for way in ways.split(";"):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                WAYS[way](place, rows, days)  # what is imported, and the first files
                os.sync()  # so that nothing of the ways before has to be written now
                seconds, cpu_seconds = WAYS[way](place, rows, days)
            measured.append({"way": way, "days": count, "seconds": seconds, "cpu": cpu_seconds})
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
