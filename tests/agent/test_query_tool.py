"""Tests the description of the tables for the model, and the results of queries."""

import csv
import io
from collections.abc import Iterator

import pyarrow as pa
import pytest

from ledgerline.agent.messages import ToolCall
from ledgerline.agent.query_tool import QueryTool
from ledgerline.agent.recording import Recorder
from ledgerline.agent.sql_sandbox import Column, Limits, SqlSandbox, Table
from ledgerline.agent.tools import ToolError, ToolResult, describe, valid_arguments

FLIGHTS = Table(
    name="flights",
    description="One row for each flight.",
    columns=(Column("carrier", "VARCHAR", "The airline."), Column("delay", "DOUBLE", "In minutes.")),
    read=lambda: pa.table({"carrier": ["UA", "AA", None], "delay": [1.5, None, -0.1]}),
)


@pytest.fixture
def tool() -> Iterator[QueryTool]:
    sandbox = SqlSandbox((FLIGHTS,), Limits(rows=5, characters=30))
    yield QueryTool("query_flights", "flights", sandbox)
    sandbox.close()


def query(tool: QueryTool, sql: str, seconds: float = 10) -> ToolResult:
    call = ToolCall("call", "query_flights", {"sql": sql})
    return tool.call(valid_arguments(tool, call), Recorder(), seconds)


def test_the_description_has_the_tables_and_the_rules(tool: QueryTool) -> None:
    described = describe(tool)
    assert described.name == "query_flights"
    assert described.description == (
        "Answers questions about flights with SQL (DuckDB's dialect) over these tables:\n"
        "flights: One row for each flight.\n"
        "  - carrier (VARCHAR): The airline.\n"
        "  - delay (DOUBLE): In minutes.\n"
        "Rules:\n"
        "- One SELECT statement; the tables are read-only, and there are no others.\n"
        "- At most 5 rows are returned: aggregate, filter, order and limit in SQL.\n"
        "- A query is stopped after 5 seconds.\n"
        "- The result is CSV; an empty cell is NULL."
    )
    assert described.parameters == {
        "type": "object",
        "description": "The arguments of a query.",
        "properties": {
            "sql": {
                "type": "string",
                "minLength": 1,
                "maxLength": 4000,
                "description": "One SELECT statement of DuckDB's SQL.",
            }
        },
        "required": ["sql"],
    }


def test_the_answer_is_csv(tool: QueryTool) -> None:
    answer = query(tool, "SELECT carrier, delay, delay / 3 AS third FROM flights ORDER BY delay")
    assert answer.text == "carrier,delay,third\n,-0.1,-0.03333333333333333\nUA,1.5,0.5\nAA,,\n"
    assert answer.attributes == {
        "ledgerline.tool.rows": 3,
        "ledgerline.tool.bytes": len(answer.text),
        "ledgerline.tool.is_cut": False,
    }


def test_a_cell_stays_one_cell(tool: QueryTool) -> None:
    answer = query(tool, "SELECT 'a,\"b\"\n(no rows)\r\n' AS \"x,\ny\", 1 AS n, '' AS empty")
    assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
        ["x,\ny", "n", "empty"],
        ['a,"b"\n(no rows)\r\n', "1", ""],
    ]


def test_an_empty_result_is_reported_as_empty(tool: QueryTool) -> None:
    answer = query(tool, "SELECT carrier, delay FROM flights WHERE delay > 100")
    assert answer.text == "carrier,delay\n\n(no rows)"
    assert answer.attributes["ledgerline.tool.rows"] == 0


def test_a_cut_result_is_reported_as_cut(tool: QueryTool) -> None:
    answer = query(tool, "SELECT range AS n, 'a text that is much too long to be shown' AS t FROM range(100)")
    lines = answer.text.splitlines()
    assert lines[:2] == ["n,t", "0,a text that is much too long t…"]
    assert lines[-3:] == ["", "(only the first 5 rows are returned)", "(cells are cut after 30 characters)"]
    assert answer.attributes["ledgerline.tool.rows"] == 5
    assert answer.attributes["ledgerline.tool.is_cut"] is True


def test_a_mistake_is_reported_to_the_model(tool: QueryTool) -> None:
    with pytest.raises(ToolError, match='Candidate bindings: "delay"'):
        query(tool, "SELECT dely FROM flights")
    with pytest.raises(ToolError, match="read-only"):
        query(tool, "DELETE FROM flights")
    with pytest.raises(ToolError, match="its arguments are invalid"):
        query(tool, "x" * 4001)
    with pytest.raises(ToolError, match="took too long"):
        query(tool, "SELECT count(*) FROM range(10000000) a, range(10000000) b", 0.1)
