"""Tests the results of SQL, the resources that it may use, and when tables are read."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from ledgerline.agent.sql_check import QueryError
from ledgerline.agent.sql_sandbox import Limits, QueryResult, SqlSandbox, Table
from ledgerline.agent.tools import ToolError
from tests.agent.sql.tables import AIRPORTS, FLIGHTS, airports, flights, refusal


@pytest.fixture
def limited() -> Iterator[Callable[[Limits], SqlSandbox]]:
    """Makes sandboxes with other limits."""
    made = []

    def make(limits: Limits) -> SqlSandbox:
        made.append(SqlSandbox((FLIGHTS,), limits))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.close()


# Results


def test_a_query_returns_names_and_cells_as_text(sandbox: SqlSandbox) -> None:
    found = sandbox.run(
        "SELECT carrier, count(*) AS flights, max(delay) AS longest, min(NULL) AS nothing, "
        "DATE '2013-01-02' AS day, true AS yes FROM flights GROUP BY carrier ORDER BY carrier",
        10,
    )
    assert found == QueryResult(
        columns=("carrier", "flights", "longest", "nothing", "day", "yes"),
        rows=(
            ("AA", "500", "99.8", None, "2013-01-02", "true"),
            ("UA", "500", "99.9", None, "2013-01-02", "true"),
        ),
        has_more=False,
        has_cut_cells=False,
    )
    assert not found.is_cut


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS n;",
        "SELECT 1 AS n ; ;\n",
        "-- first a comment\nSELECT 1 AS n -- and one at the end; with a semicolon",
        "/* DROP TABLE flights; */ SELECT 1 AS n",
        "FROM (SELECT 1 AS n)",
        "WITH one AS (SELECT 1 AS n) SELECT * FROM one",
        "WITH RECURSIVE one AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM one WHERE n < 1) FROM one",
        "VALUES (1)",
        "SELECT count(*) - 1 FROM airports LEFT JOIN flights ON code = carrier",
        "SELECT ok FROM (SELECT count(*) // 1000 AS ok FROM FLIGHTS f, LATERAL (SELECT f.carrier))",
        "SELECT 1 FROM range(1)",
        "SELECT unnest([1])",
        "SELECT CAST(count(*) AS INTEGER) FROM flights WHERE carrier IN ('AA') AND delay BETWEEN 1 AND 1.1",
        "SELECT row_number() OVER (ORDER BY delay) AS n FROM flights QUALIFY n = 1",
        "SELECT CAST(extract(year FROM DATE '2013-05-06') - 2012 AS INTEGER)",
        "SELECT date_diff('day', DATE '2013-01-01', DATE '2013-01-01' + INTERVAL 1 DAY)",
        "SELECT CASE WHEN coalesce(max(delay), 0) > 5 THEN 1 ELSE 2 END FROM flights",
        "SELECT n FROM (SELECT 1 n UNION SELECT 1 INTERSECT SELECT 1 EXCEPT SELECT 2)",
        "SELECT 1 FROM airports WHERE EXISTS (SELECT 1 FROM flights WHERE carrier LIKE 'A%') AND code < 'F'",
        "SELECT approx.m FROM (SELECT CAST(quantile_cont(n, [0.5])[1] AS INT) m FROM (SELECT 1 n)) AS approx",
    ],
)
def test_this_is_a_plain_select(sandbox: SqlSandbox, sql: str) -> None:
    assert sandbox.run(sql, 10).rows == (("1",),)


def test_a_query_keeps_its_order(sandbox: SqlSandbox) -> None:
    found = sandbox.run("SELECT delay FROM flights WHERE delay < 90 ORDER BY delay DESC", 10)
    assert [float(row[0] or "nan") for row in found.rows] == [(899 - number) / 10 for number in range(50)]
    assert found.has_more


def test_a_table_is_described_and_summarised(sandbox: SqlSandbox) -> None:
    described = sandbox.run("DESCRIBE flights", 10)
    assert [row[:2] for row in described.rows] == [("carrier", "VARCHAR"), ("delay", "DOUBLE")]
    assert [row[0] for row in sandbox.run("SUMMARIZE flights", 10).rows] == ["carrier", "delay"]


def test_values_without_a_type_in_python_are_returned(sandbox: SqlSandbox) -> None:
    found = sandbox.run("SELECT TIMESTAMP '290000-01-01', 'infinity'::DATE, '\\xAA'::BLOB, 'nan'::DOUBLE", 10)
    assert found.rows == (("290000-01-01 00:00:00", "infinity", "\\xAA", "nan"),)


# Limits


def test_more_rows_and_bytes_and_longer_cells_are_cut(limited: Callable[[Limits], SqlSandbox]) -> None:
    few = limited(Limits(rows=3, characters=10, bytes=25))
    found = few.run("SELECT range FROM range(1000000000000)", 10)
    assert (found.rows, found.has_more, found.has_cut_cells) == ((("0",), ("1",), ("2",)), True, False)
    found = few.run("SELECT range FROM range(3)", 10)
    assert (len(found.rows), found.is_cut) == (3, False)
    found = few.run("SELECT 'äöü äöü äöü'", 10)
    assert (found.rows, found.has_more, found.has_cut_cells) == ((("äöü äöü äö…",),), False, True)
    found = few.run("SELECT 'ten bytes.' FROM range(3)", 10)
    assert (len(found.rows), found.has_more) == (2, True)


def test_too_many_columns_are_refused(limited: Callable[[Limits], SqlSandbox]) -> None:
    assert refusal(limited(Limits(columns=3)), "SELECT 1, 2, 3, 4") == (
        "4 columns are too many. Select those that you need."
    )


def test_a_cell_of_a_gigabyte_needs_too_much_memory(limited: Callable[[Limits], SqlSandbox]) -> None:
    small = limited(Limits(megabytes=64))
    for sql in (
        "WITH RECURSIVE m AS (SELECT 'xxxxxxxx' t UNION ALL SELECT t || t FROM m) SELECT max(t) FROM m",
        "SELECT string_agg('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', '') FROM range(1000000000)",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT * FROM range(100000000) ORDER BY hash(range) OFFSET 90000000",
    ):
        assert refusal(small, sql) == (
            "The query needs more than the available 64 MB of memory. Filter or aggregate more."
        )
    assert small.run("SELECT 1", 10).rows == (("1",),)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(10000000) a, range(10000000) b",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
        "SELECT max(a.delay + b.delay + c.delay + d.delay) FROM flights a, flights b, flights c, flights d",
    ],
)
def test_a_query_is_ended_after_its_time_limit(limited: Callable[[Limits], SqlSandbox], sql: str) -> None:
    short = limited(Limits(seconds=0.2))
    assert refusal(short, sql) == "The query took too long and was stopped. Filter or aggregate more."
    assert short.run("SELECT 1", 10).rows == (("1",),)


def test_the_remaining_time_limits_a_query_too(sandbox: SqlSandbox) -> None:
    with pytest.raises(QueryError, match="took too long"):
        sandbox.run("SELECT count(*) FROM range(10000000) a, range(10000000) b", 0.1)
    with pytest.raises(QueryError, match="took too long"):
        sandbox.run("SELECT count(*) FROM range(10000000) a, range(10000000) b", -1)


def test_ending_a_query_ends_no_other(sandbox: SqlSandbox) -> None:
    def ask(number: int) -> str | None:
        if number % 2:
            return sandbox.run("SELECT sum(range) FROM range(100000)", 60).rows[0][0]
        with pytest.raises(QueryError) as error:
            sandbox.run("SELECT count(*) FROM range(10000000) a, range(10000000) b", 0.1)
        return str(error.value)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert set(answers[1::2]) == {"4999950000"}
    assert set(answers[::2]) == {"The query took too long and was stopped. Filter or aggregate more."}
    assert not [thread for thread in threading.enumerate() if thread.name == "sql-watch"]


# Tables


def test_a_table_is_read_when_a_query_needs_it_and_once() -> None:
    read: list[str] = []

    def reading(name: str, rows: Callable[[], pa.Table]) -> Callable[[], pa.Table]:
        return lambda: (read.append(name), rows())[1]

    sandbox = SqlSandbox(
        (
            Table("flights", "", FLIGHTS.columns, reading("flights", flights)),
            Table("airports", "", AIRPORTS.columns, reading("airports", airports)),
        )
    )
    sandbox.run("SELECT 1", 10)
    assert read == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: sandbox.run("SELECT count(*) FROM flights", 10), range(16)))
    assert read == ["flights"]
    sandbox.run("SELECT 1 WHERE EXISTS (SELECT 1 FROM airports JOIN flights ON true)", 10)
    assert read == ["flights", "airports"]
    sandbox.close()


def test_a_table_that_cannot_be_read_now_is_read_later() -> None:
    answers: list[pa.Table | None] = [None, airports()]

    def read() -> pa.Table:
        answer = answers.pop(0)
        if answer is None:
            raise ToolError("There are no airports yet: materialise them.")
        return answer

    sandbox = SqlSandbox((Table("airports", "", AIRPORTS.columns, read),))
    with pytest.raises(ToolError, match="no airports yet"):
        sandbox.run("FROM airports", 10)
    assert len(sandbox.run("FROM airports", 10).rows) == 2
    sandbox.close()


def test_a_query_that_waits_too_long_for_a_table_is_refused() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def read() -> pa.Table:
        begun.set()
        go_on.wait(30)
        return airports()

    sandbox = SqlSandbox((Table("airports", "", AIRPORTS.columns, read),))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sandbox.run, "FROM airports", 60)
        assert begun.wait(30)
        with pytest.raises(QueryError, match="still being read"):
            sandbox.run("FROM airports", 0.05)
        go_on.set()
        assert len(first.result().rows) == 2
    sandbox.close()
