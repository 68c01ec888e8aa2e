"""Tests which SQL is refused, and that the database itself cannot be left."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ledgerline.agent.sql_check import MAX_JOINED, QueryError
from ledgerline.agent.sql_sandbox import Limits, SqlSandbox, isolated_database
from tests.agent.sql.tables import SECRET, refusal

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
def test_a_statement_with_side_effects_is_refused_and_leaves_nothing(
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


def test_the_number_of_joined_texts_is_limited(sandbox: SqlSandbox) -> None:
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
def test_suggested_queries_are_not_refused(sandbox: SqlSandbox, sql: str, kept: str) -> None:
    with pytest.raises(QueryError) as error:
        sandbox.run(sql, 10)
    assert str(error.value).endswith(kept)
    assert "SET" not in str(error.value)


def test_a_suggested_query_works(sandbox: SqlSandbox) -> None:
    assert sandbox.run("SELECT TRY(1 // 0)", 10).rows == ((None,),)


def test_columns_that_are_not_declared_are_not_there(sandbox: SqlSandbox) -> None:
    assert "not found" in refusal(sandbox, "SELECT hidden FROM flights")
    assert sandbox.run("SELECT * FROM flights LIMIT 1", 10).columns == ("carrier", "delay")


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
