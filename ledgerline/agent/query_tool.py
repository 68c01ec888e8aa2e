"""The tool that answers questions about tables with SQL. How it is kept harmless: sql_sandbox.py."""

import csv
import io

from pydantic import BaseModel, Field

from ledgerline.agent import conventions
from ledgerline.agent.recording import Recorder
from ledgerline.agent.sql_sandbox import LONGEST_SQL, Found, SqlSandbox, Table
from ledgerline.agent.tools import ToolAnswer


class QueryArguments(BaseModel):
    """What a query is asked with."""

    sql: str = Field(
        min_length=1, max_length=LONGEST_SQL, description="One SELECT statement of DuckDB's SQL."
    )


def tool_name(subject: str) -> str:
    """Return the name of the tool over tables about a subject, by which language models call it."""
    return f"query_{subject}"


class QueryTool:
    """Read-only SQL over some tables."""

    arguments = QueryArguments

    def __init__(self, sandbox: SqlSandbox, subject: str) -> None:
        """Describe the tables to the language model; nothing is run yet.

        Args:
            sandbox: Runs the queries.
            subject: What the tables are about, in one word that becomes part of the name of the tool.
        """
        self.name = tool_name(subject)
        self._sandbox = sandbox
        limits = sandbox.limits
        self.description = "\n".join(
            [
                f"Answers questions about {subject} with SQL (DuckDB's dialect) over these tables:",
                *map(_described, sandbox.tables),
                "Rules:",
                "- One SELECT statement; the tables are read-only, and there are no others.",
                f"- At most {limits.rows} rows are shown: aggregate, filter, order and limit in SQL.",
                f"- A query is ended after {limits.seconds:g} seconds.",
                "- The answer is CSV; an empty cell is NULL.",
            ]
        )

    def call(self, arguments: QueryArguments, recorder: Recorder, seconds: float) -> ToolAnswer:
        """Run the query.

        Args:
            arguments: The SQL.
            recorder: Not needed: the tool's own span has it all.
            seconds: What is left of the execution's time.

        Raises:
            ToolError: The query was refused or failed.
        """
        found = self._sandbox.run(arguments.sql, seconds)
        text = self._text(found)
        return ToolAnswer(
            text,
            {
                conventions.ROWS: len(found.rows),
                conventions.BYTES: len(text.encode()),
                conventions.IS_CUT: found.is_cut,
            },
        )

    def _text(self, found: Found) -> str:
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(found.columns)
        writer.writerows(found.rows)
        notes = []
        if not found.rows:
            notes.append("(no rows)")
        if found.has_more:
            notes.append(f"(only the first {len(found.rows)} rows are shown)")
        if found.has_cut_cells:
            notes.append(f"(cells are cut after {self._sandbox.limits.characters} characters)")
        return "\n".join([output.getvalue(), *notes]) if notes else output.getvalue()


def _described(table: Table) -> str:
    columns = "\n".join(
        f"  - {column.name} ({column.type}): {column.description}" for column in table.columns
    )
    return f"{table.name}: {table.description}\n{columns}"
