"""A sandbox with two tables, which tests share."""

from collections.abc import Iterator

import pytest

from ledgerline.agent.sql_sandbox import SqlSandbox
from tests.agent.sql.tables import AIRPORTS, FLIGHTS


@pytest.fixture(scope="module")
def shared() -> Iterator[SqlSandbox]:
    tables = SqlSandbox((FLIGHTS, AIRPORTS))
    yield tables
    tables.close()


@pytest.fixture
def sandbox(shared: SqlSandbox) -> Iterator[SqlSandbox]:
    """One with two tables, which are the same after the test."""
    yield shared
    found = shared.run("SELECT count(*), round(sum(delay), 1), count(DISTINCT carrier) FROM flights", 10)
    assert found.rows == (("1000", "49949.3", "2"),)
