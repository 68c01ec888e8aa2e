"""The analyst: an agent that answers questions about the flights from the tables that are stored.

What it is told, and what it may look at. How an agent works: ledgerline/agent/; which model it uses:
ledgerline/dagster/agent.py.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.flights import FLIGHTS_SCHEMA
from assets.predictions import PREDICTIONS_SCHEMA
from assets.reference import AIRLINES_SCHEMA, AIRPORTS_SCHEMA, PLANES_SCHEMA, WEATHER_SCHEMA
from ledgerline.agent import evaluation
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.io_managers import Tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ledgerline.agent.sql_sandbox import Table
    from ledgerline.agent.tools import Tool

NAME = "analyst"
QUERY_TOOL = "query_flights"  # as the prompt names it

# How the last line of an answer begins, and what it says where there is no answer: as the prompt asks for it.
STATED = "Answer:"
UNKNOWN = "unknown"

PROMPT = Path(__file__).with_name("analyst_prompt.md").read_text()

_FLIGHTS = dg.AssetKey("flights")


def finding(answer: str) -> str | None:
    """Return what an answer of the analyst states; None if it states nothing."""
    return evaluation.stated(answer, STATED) or None


def tools_of(storage: Tables) -> "Sequence[Tool[Any]]":
    """What the analyst may use; made anew, so that each has read the tables as they are now.

    Raises:
        PermanentFailure: No flights are stored.
    """
    from ledgerline.agent.query_tool import QueryTool
    from ledgerline.agent.sql_sandbox import SqlSandbox

    return [QueryTool(QUERY_TOOL, "flights", SqlSandbox(tables_of(storage)))]


def tables_of(storage: Tables) -> "tuple[Table, ...]":
    """What the analyst may query: the flights, and whatever else of them is stored.

    Raises:
        PermanentFailure: No flights are stored.
    """
    if not storage.stored_partitions(_FLIGHTS):
        raise PermanentFailure(
            "No flights are stored, so there is nothing to ask about.",
            "Ingest some: `ledgerline run`, or `ledgerline backfill ingest_flights --from 2013-01-01`.",
        )
    tables = [
        _table(storage, "flights", "Every scheduled flight, one row each", FLIGHTS_SCHEMA),
        _table(storage, "weather", "The weather at the three airports, by hour", WEATHER_SCHEMA),
        _table(
            storage,
            "delay_predictions",
            "How likely a model thought flights to be late; not every day",
            PREDICTIONS_SCHEMA,
        ),
        _table(storage, "planes", "Aircraft by tail number; not all of them", PLANES_SCHEMA),
        _table(storage, "airports", "Airports by FAA code", AIRPORTS_SCHEMA),
        _table(storage, "airlines", "Airlines by carrier code", AIRLINES_SCHEMA),
    ]
    return tuple(table for table in tables if table is not None)


def _table(storage: Tables, name: str, description: str, schema: dg.TableSchema) -> "Table | None":
    from ledgerline.agent.sql_sandbox import Column, Table

    asset = dg.AssetKey(name)
    keys = storage.stored_partitions(asset) or None
    if keys is None and not storage.is_stored(asset):
        return None
    columns = tuple(Column(column.name, column.type, column.description or "") for column in schema.columns)
    return Table(name, description, columns, partial(_read, storage, asset, keys))


def _read(storage: Tables, asset: dg.AssetKey, keys: Sequence[str] | None) -> "pa.Table":
    import pyarrow as pa

    return pa.concat_tables(list(storage.stored(asset, keys)), promote_options="permissive")
