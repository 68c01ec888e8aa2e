"""Questions for the analyst with their right answers. The questions are in analyst_questions.yaml."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml

from assets import policies
from assets.analyst import tables_of
from assets.columns import Frame, optional, required
from ledgerline.dagster.storage.io_managers import Tables

if TYPE_CHECKING:
    from ledgerline.agent.sql_sandbox import SqlSandbox, Table

FILE = Path(__file__).with_suffix(".yaml")
GROUP = "analyst"
SECONDS = 60


class Kind(StrEnum):
    """The kind of the right answer."""

    NUMBER = "number"
    TEXT = "text"
    UNANSWERABLE = "unanswerable"


@dataclass(frozen=True)
class Question:
    """A question with the query for its right answer.

    Attributes:
        question: Text, in which {first} and {last} stand for the first and the last stored day.
        sql: Query of the right answer, which returns one column and at most one row; None if no table has the
            answer.
        decimals: Number of decimals that are compared; None if the answer is a text.
        needs: Tables that the query reads besides flights.
    """

    id: str
    question: str
    sql: str | None = None
    decimals: int | None = None
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind of the right answer."""
        if self.sql is None:
            return Kind.UNANSWERABLE
        return Kind.TEXT if self.decimals is None else Kind.NUMBER


@cache
def questions() -> Sequence[Question]:
    """Return all questions in their order."""
    return [
        Question(**entry | {"needs": tuple(entry.get("needs", ()))})
        for entry in yaml.safe_load(FILE.read_text())
    ]


QUESTIONS_SCHEMA = dg.TableSchema(
    [
        required("id", "string", "Identifier of the question"),
        required("question", "string", "Text of the question"),
        required("kind", "string", "Kind of the right answer: number, text or unanswerable"),
        optional("expected", "string", "Right answer; empty if the question has none"),
        optional("decimals", "int8", "Number of decimals that are compared"),
        optional("sql", "string", "Query of the right answer"),
    ]
)


@dg.asset(
    deps=[dg.AssetDep("flights"), dg.AssetDep("weather")],
    io_manager_key="tables",
    retry_policy=policies.RETRY,
    group_name=GROUP,
    kinds={"parquet", "duckdb"},
    code_version=hashlib.sha256(FILE.read_bytes()).hexdigest()[:12],
    metadata={"dagster/column_schema": QUESTIONS_SCHEMA},
)
def analyst_questions(context: dg.AssetExecutionContext, tables: dg.ResourceParam[Tables]) -> Frame:
    """Questions about the flights with their right answers, and questions that no table can answer.

    The table has one row for each question. The right answers are results of SQL queries on the stored
    tables, so they are exact, and the data version changes with the stored days. Questions about tables that
    are not stored are omitted.
    """
    import pandas as pd

    with_answers = list(_with_answers(tables_of(tables)))
    left_out = len(questions()) - len(with_answers)
    if left_out:
        context.log.warning(f"{left_out} questions are omitted, because their tables are not stored.")
    frame = pd.DataFrame(with_answers)
    counts = frame["kind"].value_counts()
    context.add_output_metadata({f"{kind}s": int(counts.get(kind, 0)) for kind in Kind})
    return frame


def _with_answers(tables: "tuple[Table, ...]") -> Iterator[dict[str, Any]]:
    from ledgerline.agent.sql_sandbox import Limits, SqlSandbox

    names = {table.name for table in tables}
    sandbox = SqlSandbox(tables, Limits(seconds=SECONDS))
    ((first, last),) = sandbox.run("SELECT min(date), max(date) FROM flights", SECONDS).rows
    for question in questions():
        if not names.issuperset(question.needs):
            continue
        sql = question.sql.format(first=first, last=last) if question.sql is not None else None
        yield {
            "id": question.id,
            "question": question.question.format(first=first, last=last),
            "kind": question.kind.value,
            "expected": _answer(sandbox, sql) if sql is not None else None,
            "decimals": question.decimals,
            "sql": sql,
        }


def _answer(sandbox: "SqlSandbox", sql: str) -> str | None:
    value = next((row[0] for row in sandbox.run(sql, SECONDS).rows), None)
    return None if value is None else str(value)
