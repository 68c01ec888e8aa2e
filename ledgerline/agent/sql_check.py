"""Checks the SQL of a model: its statements, tables and functions. The queries run in sql_sandbox.py.

Only the constructs listed here are allowed, since a list of forbidden ones is never complete: functions of
DuckDB read files, settings and raw memory, and a WITH may change tables. A single call of some other
functions (repeat, levenshtein, list_distinct) takes minutes or gigabytes, and cannot be interrupted.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ledgerline.agent.tools import ToolError

if TYPE_CHECKING:
    import duckdb


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These are the names in DuckDB's syntax tree (json_serialize_sql).
NODES = _names("""
    SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION
    EXPRESSION_LIST EMPTY PIVOT SHOW_REF ORDER_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER
    DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING
""")
EXPRESSIONS = _names("""
    COLUMN_REF CONSTANT FUNCTION CAST TYPE CASE COMPARISON CONJUNCTION BETWEEN OPERATOR STAR SUBQUERY WINDOW
    COLLATE POSITIONAL_REFERENCE
""")
SHOW_TYPES = _names("DESCRIBE SUMMARY")

TABLE_FUNCTIONS = _names("range generate_series unnest")
AGGREGATES = _names("""
    any_value approx_count_distinct approx_quantile arg_max arg_min array_agg avg bool_and bool_or corr
    count count_if count_star covar_pop covar_samp entropy first group_concat grouping grouping_id histogram
    kurtosis last list listagg mad max max_by mean median min min_by mode product quantile quantile_cont
    quantile_disc regr_count regr_intercept regr_r2 regr_slope skewness stddev stddev_pop stddev_samp
    string_agg sum var_pop var_samp variance
""")
WINDOWS = _names("""
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
""")
NUMBERS = _names("""
    + - * / // % ** ^ @ abs acos add asin atan atan2 cbrt ceil ceiling cos degrees divide even exp fdiv
    floor fmod greatest isfinite isinf isnan least ln log log10 log2 mod multiply pi pow power radians
    random round round_even sign sin sqrt subtract tan trunc
""")
TEXTS = _names("""
    || ~~ !~~ ~~* !~~* like_escape ilike_escape not_like_escape not_ilike_escape ascii char_length
    character_length concat concat_ws contains ends_with hash instr lcase left len length lower ltrim md5
    position prefix regexp_extract regexp_full_match regexp_matches right rtrim split_part starts_with
    string_split strlen strpos substr substring suffix trim ucase upper
""")
TIMES = _names("""
    age century current_date date_add date_diff date_part date_sub date_trunc datediff datepart datesub
    datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms hour isodow
    isoyear last_day make_date make_time make_timestamp microsecond millennium millisecond minute month
    monthname now quarter second strftime strptime time_bucket timezone to_days to_hours to_microseconds
    to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years today
    try_strptime week weekday weekofyear year yearweek
""")
OTHERS = _names("""
    array_extract array_length element_at if ifnull list_contains list_extract list_value
    nullif struct_extract typeof unnest
""")
FUNCTIONS = AGGREGATES | WINDOWS | NUMBERS | TEXTS | TIMES | OTHERS

# Calls of these functions can be nested: 3 pieces of 3 pieces of 3 ... are gigabytes in one line of SQL.
JOINING = _names("|| concat concat_ws list_value")
MAX_JOINED = 16  # arguments of all these calls in one query

# DuckDB's errors recommend these statements, which are not allowed, in part of a sentence or in a whole
# sentence.
_REFUSED = re.compile(r"\b(?:SET|RESET|PRAGMA|INSTALL|LOAD|ATTACH)\s+\w")
_OR_REFUSED = re.compile(rf",? or [\"'`]?{_REFUSED.pattern}[^.\n]*")
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s)\s*|\n+|$)", re.DOTALL)


class QueryError(ToolError):
    """A query was refused, or failed."""


def single_select(sql: str, connection: "duckdb.DuckDBPyConnection") -> str:
    """Return the only statement of a text, without its semicolon; the connection only parses it.

    Raises:
        QueryError: The text is not exactly one SELECT statement.
        duckdb.Error: The text is not valid SQL.
    """
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"The SQL has {len(statements)} statements.", "Give exactly one SELECT statement.")
    if statements[0].type == duckdb.StatementType.MULTI:
        raise QueryError("PIVOT needs its values, like PIVOT ... ON month IN (1, 2, 3).")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError(
            f"The tables are read-only, and {statements[0].type.name} is not allowed.",
            "Give a SELECT statement.",
        )
    return sql.strip().rstrip("; \t\r\n")


def tables_read(sql: str, known: Iterable[str], connection: "duckdb.DuckDBPyConnection") -> set[str]:
    """Return the names of the tables that a SELECT reads.

    Args:
        sql: One SELECT statement, which is parsed but does not run.
        known: Names of the existing tables, in lower case.
        connection: Connection that parses the statement.

    Raises:
        QueryError: The statement uses something that is not allowed.
    """
    try:
        row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        tree = json.loads(row[0] if row else "")
        if tree["error"] or len(tree["statements"]) != 1:
            raise QueryError(f"The SQL cannot be parsed: {tree.get('error_message', 'it is not a SELECT')}.")
        check = _Check(frozenset(known))
        check.walk(tree["statements"][0], frozenset())
    except RecursionError as error:
        raise QueryError("The SQL is too deeply nested.") from error
    return check.read


def message_for_model(error: Exception) -> str:
    """Return DuckDB's error without the SQL that it quotes, and without advice that would be refused."""
    text = _OR_REFUSED.sub("", str(error).split("\n\nLINE ", 1)[0])
    kept = "".join(part for part in _SENTENCE.findall(text) if not _REFUSED.search(part))
    return (kept or text).strip()


class _Check:
    """Checks a syntax tree, and collects the tables that it reads."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._joined = 0
        self.read: set[str] = set()

    def walk(self, part: Any, scope: frozenset[str]) -> None:
        """Check a part of the tree; the scope has the names that WITH clauses have defined so far."""
        if isinstance(part, list):
            for item in part:
                self.walk(item, scope)
        if not isinstance(part, dict):
            return
        self._check(part, scope)
        for named in (part.get("cte_map") or {}).get("map", ()):
            name = frozenset({_folded(named["key"])})
            is_recursive = named["value"]["query_node"]["type"] == "RECURSIVE_CTE_NODE"
            # Within a WITH clause that is not recursive, its own name means another table.
            self.walk(named["value"], scope | name if is_recursive else scope)
            scope |= name
        for name, value in part.items():
            if name != "cte_map":
                self.walk(_arguments(value) if part.get("type") == "TABLE_FUNCTION" else value, scope)

    def _check(self, part: dict[str, Any], scope: frozenset[str]) -> None:
        kind = part.get("class", part.get("type"))
        if "class" in part:
            self._require(part["class"], EXPRESSIONS)
        elif isinstance(kind, str):
            self._require(kind, NODES)
        if kind == "BASE_TABLE":
            self._check_table(part, scope)
        elif kind == "TABLE_FUNCTION":
            self._require_function(part["function"]["function_name"], TABLE_FUNCTIONS)
        elif kind == "SHOW_REF" and (part["show_type"] not in SHOW_TYPES or not part.get("query")):
            raise QueryError("SHOW is not allowed.", self._tables())
        elif kind in ("FUNCTION", "WINDOW"):
            name = part["function_name"].lower()
            self._require_function(name, FUNCTIONS)
            if name in JOINING:
                self._count_joined(part["arguments"])

    def _check_table(self, part: dict[str, Any], scope: frozenset[str]) -> None:
        path = part["qualified_name"]["path"]
        name = _folded(path[-1])
        if len(path) == 1 and name in scope:
            return
        if len(path) > 1 or name not in self._known:
            raise QueryError(f"There is no table {'.'.join(path)[:100]!r}.", self._tables())
        self.read.add(name)

    def _count_joined(self, pieces: list[Any]) -> None:
        self._joined += len(pieces)
        if self._joined > MAX_JOINED:
            raise QueryError(f"The query joins more than {MAX_JOINED} values.", "Select the columns instead.")

    def _require(self, kind: str, allowed: frozenset[str]) -> None:
        if kind not in allowed:
            name = kind.replace("_", " ").capitalize()
            raise QueryError(f"{name} is not allowed.", "Use a plain SELECT.")

    def _require_function(self, name: str, allowed: frozenset[str]) -> None:
        if name.lower() not in allowed:
            near = get_close_matches(name.lower(), sorted(allowed), n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else ""
            raise QueryError(f"The function {name[:100]!r} is not allowed.", hint)

    def _tables(self) -> str:
        return f"The tables are: {', '.join(sorted(self._known))}."


def _folded(name: str) -> str:
    """Return a name in lower case if it is ASCII, as DuckDB does."""
    return name.lower() if name.isascii() else name


def _arguments(value: Any) -> Any:
    """Return the arguments of a table function, whose name was checked against another list."""
    if isinstance(value, dict) and value.get("class") == "FUNCTION":
        return [value["arguments"], value["filter"], value["order_bys"]]
    return value
