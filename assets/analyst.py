"""Declares the analyst, an agent that answers questions about flights: its prompt, tools and tables.

Agents in general are in ledgerline/agent/, and the resource that opens them is in
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

# The prompt asks for a last line that begins like this, and for this word if there is no answer.
STATED = "Answer:"
UNKNOWN = "unknown"

PROMPT = Path(__file__).with_name("analyst_prompt.md").read_text()

_FLIGHTS = dg.AssetKey("flights")


def finding(answer: str) -> str | None:
    """Return the fact that an answer of the analyst states; None if it states no fact."""
    return evaluation.stated(answer, STATED) or None


def tools_of(storage: Tables) -> "Sequence[Tool[Any]]":
    """Return new tools of the analyst, which read the tables as they are now.

    Raises:
        PermanentFailure: No flights are stored.
    """
    from ledgerline.agent.query_tool import QueryTool
    from ledgerline.agent.sql_sandbox import SqlSandbox

    return [QueryTool(QUERY_TOOL, "flights", SqlSandbox(tables_of(storage)))]


def tables_of(storage: Tables) -> "tuple[Table, ...]":
    """Return the tables that the analyst may query: flights, and the other tables that are stored.

    Raises:
        PermanentFailure: No flights are stored.
    """
    if not storage.stored_partitions(_FLIGHTS):
        raise PermanentFailure(
            "No flights are stored, so the analyst has no data.",
            "Ingest some: `ledgerline run`, or `ledgerline backfill ingest_flights --from 2013-01-01`.",
        )
    tables = [
        _table(storage, "flights", "Every scheduled flight, one row each", FLIGHTS_SCHEMA),
        _table(storage, "weather", "The weather at the three airports, by hour", WEATHER_SCHEMA),
        _table(
            storage,
            "delay_predictions",
            "Predicted probability that a flight arrives late; not for all days",
            PREDICTIONS_SCHEMA,
        ),
        _table(storage, "planes", "Aircraft by tail number; incomplete", PLANES_SCHEMA),
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
