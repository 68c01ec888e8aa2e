"""Tests which SQL runs, which resources it may use, and that it stays in the sandbox."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ledgerline.agent.sql_check import MAX_JOINED, QueryError
from ledgerline.agent.sql_sandbox import Column, Limits, QueryResult, SqlSandbox, Table, isolated_database
from ledgerline.agent.tools import ToolError

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


@pytest.fixture(scope="module")
def shared() -> Iterator[SqlSandbox]:
    sandbox = SqlSandbox((FLIGHTS, AIRPORTS))
    yield sandbox
    sandbox.close()


@pytest.fixture
def sandbox(shared: SqlSandbox) -> Iterator[SqlSandbox]:
    """One with two tables, which are the same after the test."""
    yield shared
    found = shared.run("SELECT count(*), round(sum(delay), 1), count(DISTINCT carrier) FROM flights", 10)
    assert found.rows == (("1000", "49949.3", "2"),)


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


def refusal(sandbox: SqlSandbox, sql: str) -> str:
    with pytest.raises(QueryError) as error:
        sandbox.run(sql, 10)
    return str(error.value)


# Results


def test_a_query_is_answered_with_names_types_and_cells_as_text(sandbox: SqlSandbox) -> None:
    found = sandbox.run(
        "SELECT carrier, count(*) AS flights, max(delay) AS longest, min(NULL) AS nothing, "
        "DATE '2013-01-02' AS day, true AS yes FROM flights GROUP BY carrier ORDER BY carrier",
        10,
    )
    assert found == QueryResult(
        columns=("carrier", "flights", "longest", "nothing", "day", "yes"),
        types=("VARCHAR", "BIGINT", "DOUBLE", found.types[3], "DATE", "BOOLEAN"),
        rows=(
            ("AA", "500", "99.8", None, "2013-01-02", "true"),
            ("UA", "500", "99.9", None, "2013-01-02", "true"),
        ),
        has_more=False,
        has_cut_cells=False,
        seconds=found.seconds,
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


def test_values_that_python_has_no_type_for_are_answered(sandbox: SqlSandbox) -> None:
    found = sandbox.run("SELECT TIMESTAMP '290000-01-01', 'infinity'::DATE, '\\xAA'::BLOB, 'nan'::DOUBLE", 10)
    assert found.rows == (("290000-01-01 00:00:00", "infinity", "\\xAA", "nan"),)


# Refused queries

OTHER_STATEMENTS = [
    "ATTACH '{file}' AS other",
    "DETACH memory",
    "USE memory",
    "COPY flights TO '{new}'",
    "COPY (SELECT 1) TO '{new}' (FORMAT parquet)",
    "COPY flights FROM '{file}'",
    "EXPORT DATABASE '{new}'",
    "IMPORT DATABASE '{new}'",
    "INSTALL httpfs",
    "LOAD '{file}'",
    "SET threads = 8",
    "SET VARIABLE x = 1",
    "RESET memory_limit",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CREATE TABLE made AS SELECT 1",
    "CREATE TEMP TABLE made AS SELECT 1",
    "CREATE VIEW made AS SELECT 1",
    "CREATE MACRO made() AS 1",
    "CREATE SEQUENCE made",
    "CREATE SECRET made (TYPE s3)",
    "CREATE FUNCTION made(a) AS a",
    "INSERT INTO flights VALUES ('XX', 1)",
    "UPDATE flights SET delay = 0",
    "DELETE FROM flights",
    "TRUNCATE flights",
    "MERGE INTO flights USING airports ON true WHEN MATCHED THEN DELETE",
    "DROP TABLE flights",
    "ALTER TABLE flights ADD COLUMN more INTEGER",
    "COMMENT ON TABLE flights IS 'x'",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE made AS SELECT 1",
    "EXECUTE made",
    "DEALLOCATE made",
]
SEVERAL_STATEMENTS = [
    "",
    ";",
    "-- nothing",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE flights",
    "SELECT 1 /* ; */; DELETE FROM flights -- ;",
    "SELECT 1 --\n; DELETE FROM flights",
    "SELECT 1); DELETE FROM flights; SELECT (1",
    "SELECT 1) UNION ALL (SELECT 2",
    "SELECT ';'; COPY flights TO '{new}'",
]
CHANGES_IN_A_SELECT = [
    "WITH gone AS (DELETE FROM flights RETURNING *) SELECT * FROM gone",
    "WITH more AS (INSERT INTO flights VALUES ('XX', 1) RETURNING *) SELECT * FROM more",
    "WITH other AS (UPDATE flights SET delay = 0 RETURNING *) SELECT * FROM other",
    "SELECT * INTO made FROM flights",
    "SELECT nextval('made')",
    "SELECT setval('made', 1)",
    "SELECT setseed(0.5)",
    "SELECT write_log('x')",
]
WAYS_TO_FILES = [
    "SELECT * FROM '{file}'",
    'SELECT * FROM "{file}"',
    "FROM '{folder}/*.csv'",
    "SELECT * FROM 'https://example.invalid/x.parquet'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM read_csv_auto('{file}')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM parquet_scan('{file}')",
    "SELECT * FROM read_json('{file}')",
    "SELECT * FROM read_json_auto('{file}')",
    "SELECT * FROM read_ndjson('{file}')",
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM READ_BLOB('{file}')",
    "SELECT * FROM main.read_text('{file}')",
    "SELECT * FROM system.main.read_text('{file}')",
    "SELECT * FROM \"read_text\"('{file}')",
    "SELECT * FROM read_duckdb('{file}')",
    "SELECT * FROM glob('{file}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM parquet_metadata('{file}')",
    "SELECT * FROM parquet_schema('{file}')",
    "SELECT * FROM parquet_kv_metadata('{file}')",
    "SELECT * FROM parquet_file_metadata('{file}')",
    "SELECT (SELECT content FROM read_text('{file}'))",
    "SELECT 1 WHERE 1 IN (SELECT 1 FROM read_csv('{file}'))",
    "SELECT 1 FROM range((SELECT count(*) FROM read_text('{file}')))",
    "SELECT 1 FROM flights ORDER BY (SELECT 1 FROM read_text('{file}')) LIMIT 1",
    "SELECT 1 LIMIT (SELECT count(*) FROM read_text('{file}'))",
    "SELECT sum(delay) OVER (ORDER BY (SELECT 1 FROM read_text('{file}'))) FROM flights",
    "SELECT 1 FROM flights JOIN airports ON EXISTS (FROM read_text('{file}'))",
    "DESCRIBE FROM read_csv('{file}')",
    "SUMMARIZE '{file}'",
    "PIVOT '{file}' ON a IN (1) USING count(*)",
    "FROM (UNPIVOT (FROM read_csv('{file}')) ON a)",
    "FROM query('SELECT * FROM read_text(''{file}'')')",
    "FROM query_table('{file}')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "WITH flights AS (FROM read_text('{file}')) FROM flights",
    "WITH \"{file}\" AS (FROM '{file}') FROM '{file}'",
    "SELECT * FROM (WITH \"{file}\" AS (SELECT 1) SELECT 1), '{file}'",
]
WAYS_TO_THE_PROCESS = [
    "SELECT getenv('HOME')",
    "SELECT current_setting('memory_limit')",
    "SELECT getvariable('x')",
    "SELECT current_query()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM duckdb_settings",
    "SELECT * FROM duckdb_tables",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_table_info('flights')",
    "SELECT * FROM pragma_database_size()",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SELECT * FROM (SHOW TABLES)",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan('flights')",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM local_variable",
    "SELECT sleep_ms(100000)",
    "SELECT pg_sleep(100)",
    "SELECT error('x')",
    "WITH duckdb_settings AS (FROM duckdb_settings) FROM duckdb_settings",
    'WITH "duc\u212adb_settings" AS (SELECT 1) FROM duckdb_settings',  # Kelvin's sign
    "WITH a AS (FROM duckdb_settings), duckdb_settings AS (SELECT 1) FROM a",
    "SELECT * FROM memory.main.flights",
    "SELECT ?",
    "SELECT $1",
    "SELECT $name",
]


@pytest.mark.parametrize(
    "sql",
    [*OTHER_STATEMENTS, *SEVERAL_STATEMENTS, *CHANGES_IN_A_SELECT, *WAYS_TO_FILES, *WAYS_TO_THE_PROCESS],
)
def test_this_is_refused_and_leaves_nothing(
    sandbox: SqlSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file.csv"
    file.write_text(f"a,b\n{SECRET},1\n")
    local_variable = pa.table({"a": [SECRET]})
    asked = (
        sql.replace("{file}", str(file))
        .replace("{folder}", str(tmp_path))
        .replace("{new}", f"{tmp_path}/new")
    )
    assert SECRET not in refusal(sandbox, asked)
    assert list(tmp_path.iterdir()) == [file]
    assert local_variable.num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1000000000)",
        "SELECT lpad('x', 1000000000, 'y')",
        "SELECT format('{:>1000000000}', 'x')",
        "SELECT printf('%1000000000d', 1)",
        "SELECT levenshtein('a', 'b')",
        "SELECT sum(n) FROM (SELECT unnest(range(100000000)) AS n)",
        "SELECT replace('x', 'x', 'xx')",
        "SELECT length(list_distinct(list(range))) FROM range(20000000)",
        "SELECT list_transform([1], x -> x)",
    ],
)
def test_a_function_that_may_never_end_or_fill_the_memory_is_refused(sandbox: SqlSandbox, sql: str) -> None:
    assert "is not allowed" in refusal(sandbox, sql)


def test_only_so_many_texts_are_joined(sandbox: SqlSandbox) -> None:
    query = "SELECT 'x' AS t"
    for _ in range(4):
        query = f"SELECT t || t || t AS t FROM ({query})"  # noqa: S608 (each has four arguments)
    assert sandbox.run(query, 10).rows == (("x" * 81,),)
    assert refusal(sandbox, query.replace("t || t || t", "t || t || t || t", 1)) == (
        f"The query joins more than {MAX_JOINED} values. Select the columns instead."
    )


@pytest.mark.parametrize("form", ["({})", "abs({})", "NOT {}", "(SELECT {})", "-{}", "1 + {}", "[{}]"])
@pytest.mark.parametrize("depth", [50, 200, 480])
def test_nesting_ends_in_an_answer_or_a_refusal(sandbox: SqlSandbox, form: str, depth: int) -> None:
    sql = "1"
    for _ in range(depth):
        sql = form.replace("{}", sql)
    with suppress(QueryError):
        assert len(sandbox.run(f"SELECT {sql}", 10).rows) == 1
    assert sandbox.run("SELECT 1", 10).rows == (("1",),)


def test_a_mistake_is_explained(sandbox: SqlSandbox) -> None:
    assert refusal(sandbox, "SELECT delays FROM flights") == (
        'Binder Error: Referenced column "delays" not found in FROM clause!\nCandidate bindings: "delay"'
    )
    assert refusal(sandbox, "SELEC 1") == 'Parser Error: syntax error at or near "SELEC"'
    assert refusal(sandbox, "SELECT 'x'::INTEGER").startswith(
        "Conversion Error: Could not convert string 'x'"
    )
    assert refusal(sandbox, "FROM flight") == "There is no table 'flight'. The tables are: airports, flights."
    assert refusal(sandbox, "SELECT avgg(delay) FROM flights") == (
        "The function 'avgg' is not allowed. Did you mean avg?"
    )
    assert refusal(sandbox, "PIVOT flights ON carrier USING count(*)") == (
        "PIVOT needs its values, like PIVOT ... ON month IN (1, 2, 3)."
    )
    assert refusal(sandbox, "DROP TABLE flights") == (
        "The tables are read-only, and DROP is not allowed. Give a SELECT statement."
    )
    assert refusal(sandbox, f"SELECT '{'x' * 4000}'") == "The SQL is longer than 4000 characters."


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT 1 // 0", "Use TRY(...) to return NULL for this expression."),
        ("SELECT mod(1, 0)", "Use TRY(...) to return NULL for this expression."),
        ("SELECT (SELECT delay FROM flights)", "scalar subqueries can only return a single row."),
        ("SELECT delay FROM flights ORDER BY 'delay'", "ORDER BY non-integer literal has no effect."),
    ],
)
def test_nothing_is_advised_that_would_be_refused(sandbox: SqlSandbox, sql: str, kept: str) -> None:
    with pytest.raises(QueryError) as error:
        sandbox.run(sql, 10)
    assert str(error.value).endswith(kept)
    assert "SET" not in str(error.value)


def test_what_is_advised_instead_works(sandbox: SqlSandbox) -> None:
    assert sandbox.run("SELECT TRY(1 // 0)", 10).rows == ((None,),)


def test_columns_that_are_not_declared_are_not_there(sandbox: SqlSandbox) -> None:
    assert "not found" in refusal(sandbox, "SELECT hidden FROM flights")
    assert sandbox.run("SELECT * FROM flights LIMIT 1", 10).columns == ("carrier", "delay")


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
def test_a_query_that_takes_too_long_is_ended(limited: Callable[[Limits], SqlSandbox], sql: str) -> None:
    short = limited(Limits(seconds=0.2))
    assert refusal(short, sql) == "The query took too long and was stopped. Filter or aggregate more."
    assert short.run("SELECT 1", 10).rows == (("1",),)


def test_what_is_left_of_the_time_ends_a_query_too(sandbox: SqlSandbox) -> None:
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


def test_who_waits_too_long_for_a_table_is_told_so() -> None:
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


# The walls behind what is let through, each by itself


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = isolated_database(Limits())
    connection.execute("CREATE TABLE flights AS SELECT 1 AS delay")
    yield connection
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('{folder}/*')",
        "COPY flights TO '{folder}/new'",
        "ATTACH '{folder}/new' AS other",
        "EXPORT DATABASE '{folder}/new'",
        "LOAD '{file}'",
        "INSTALL httpfs",
        "SELECT * FROM read_text('https://example.invalid/')",
        "CREATE PERSISTENT SECRET made (TYPE http)",
        "SET threads = 8",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET temp_directory = '{folder}/new'",
        "SET GLOBAL python_enable_replacements = true",
        "RESET memory_limit",
        "PRAGMA profiling_output = '{folder}/new'",
        "SELECT * FROM local_variable",
    ],
)
def test_the_database_itself_has_no_way_out(
    database: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str
) -> None:
    file = tmp_path / "file.csv"
    file.write_text(f"{SECRET}\n")
    local_variable = pa.table({"a": [SECRET]})
    with pytest.raises(duckdb.Error) as error:
        database.execute(sql.replace("{file}", str(file)).replace("{folder}", str(tmp_path))).fetchall()
    assert SECRET not in str(error.value)
    assert list(tmp_path.iterdir()) == [file]
    assert local_variable.num_rows == 1


@pytest.mark.parametrize("sql", CHANGES_IN_A_SELECT[:3])
def test_a_read_only_transaction_changes_nothing(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    database.execute("BEGIN TRANSACTION READ ONLY")
    with pytest.raises(duckdb.Error):
        database.execute(sql.replace("('XX', 1)", "(1)")).fetchall()
    database.execute("ROLLBACK")
    assert database.execute("FROM flights").fetchall() == [(1,)]
