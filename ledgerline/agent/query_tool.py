"""A tool that queries tables with SQL. The queries run in sql_sandbox.py, which restricts them."""

import csv
import io

from pydantic import BaseModel, Field

from ledgerline.agent import conventions
from ledgerline.agent.recording import Recorder
from ledgerline.agent.sql_sandbox import MAX_SQL_CHARACTERS, QueryResult, SqlSandbox, Table
from ledgerline.agent.tools import ToolResult


class QueryArguments(BaseModel):
    """The arguments of a query."""

    sql: str = Field(
        min_length=1, max_length=MAX_SQL_CHARACTERS, description="One SELECT statement of DuckDB's SQL."
    )


class QueryTool:
    """Runs read-only SQL over some tables."""

    arguments = QueryArguments

    def __init__(self, name: str, subject: str, sandbox: SqlSandbox) -> None:
        """Describe the tables for the language model; no query runs yet.

        Args:
            name: Name by which the language model calls the tool.
            subject: Subject of the tables, in a few words.
            sandbox: Sandbox that runs the queries.
        """
        self.name = name
        self._sandbox = sandbox
        limits = sandbox.limits
        self.description = "\n".join(
            [
                f"Answers questions about {subject} with SQL (DuckDB's dialect) over these tables:",
                *map(_described, sandbox.tables),
                "Rules:",
                "- One SELECT statement; the tables are read-only, and there are no others.",
                f"- At most {limits.rows} rows are returned: aggregate, filter, order and limit in SQL.",
                f"- A query is stopped after {limits.seconds:g} seconds.",
                "- The result is CSV; an empty cell is NULL.",
            ]
        )

    def call(self, arguments: QueryArguments, recorder: Recorder, seconds: float) -> ToolResult:
        """Run the query; see Tool.call. The tool's span has all attributes.

        Raises:
            ToolError: The query was refused or failed.
        """
        result = self._sandbox.run(arguments.sql, seconds)
        text = self._text(result)
        return ToolResult(
            text,
            {
                conventions.ROWS: len(result.rows),
                conventions.BYTES: len(text.encode()),
                conventions.IS_CUT: result.is_cut,
            },
        )

    def _text(self, result: QueryResult) -> str:
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(result.rows)
        notes = []
        if not result.rows:
            notes.append("(no rows)")
        if result.has_more:
            notes.append(f"(only the first {len(result.rows)} rows are returned)")
        if result.has_cut_cells:
            notes.append(f"(cells are cut after {self._sandbox.limits.characters} characters)")
        return "\n".join([output.getvalue(), *notes]) if notes else output.getvalue()


def _described(table: Table) -> str:
    columns = "\n".join(
        f"  - {column.name} ({column.type}): {column.description}" for column in table.columns
    )
    return f"{table.name}: {table.description}\n{columns}"
