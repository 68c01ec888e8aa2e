"""Tables of a sandbox, and the refusal of a query."""

import pyarrow as pa
import pytest

from ledgerline.agent.sql_check import QueryError
from ledgerline.agent.sql_sandbox import Column, SqlSandbox, Table

SECRET = "what-the-file-says"
ROWS = 1000


def flights() -> pa.Table:
    return pa.table(
        {
            "carrier": ["UA" if number % 2 else "AA" for number in range(ROWS)],
            "delay": [None if number == 7 else number / 10 for number in range(ROWS)],
            "hidden": [SECRET] * ROWS,
        }
    )


def airports() -> pa.Table:
    return pa.table({"code": ["JFK", "EWR"]})


FLIGHTS = Table(
    name="flights",
    description="One row for each flight.",
    columns=(Column("carrier", "VARCHAR", "The airline."), Column("delay", "DOUBLE", "In minutes.")),
    read=flights,
)
AIRPORTS = Table("airports", "One row for each airport.", (Column("code", "VARCHAR", "IATA's."),), airports)


def refusal(sandbox: SqlSandbox, sql: str) -> str:
    with pytest.raises(QueryError) as error:
        sandbox.run(sql, 10)
    return str(error.value)
