"""What the analyst is asked to see how good it is, with the right answers. The questions: the YAML file."""

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
    """What a right answer is."""

    NUMBER = "number"
    TEXT = "text"
    UNANSWERABLE = "unanswerable"


@dataclass(frozen=True)
class Question:
    """A question, and how its answer is found.

    Attributes:
        id: Names it.
        question: As it is asked; {first} and {last} are the first and the last day there is.
        sql: Finds the answer: one row, one column, or no row where these days have none; None: no table can
            answer it.
        decimals: How exact a number has to be; None: the answer is a text.
        needs: Tables besides flights.
    """

    id: str
    question: str
    sql: str | None = None
    decimals: int | None = None
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What a right answer is."""
        if self.sql is None:
            return Kind.UNANSWERABLE
        return Kind.TEXT if self.decimals is None else Kind.NUMBER


@cache
def questions() -> Sequence[Question]:
    """All questions, in the order in which they are asked."""
    return [
        Question(**entry | {"needs": tuple(entry.get("needs", ()))})
        for entry in yaml.safe_load(FILE.read_text())
    ]


QUESTIONS_SCHEMA = dg.TableSchema(
    [
        required("id", "string", "Names the question"),
        required("question", "string", "As it is asked"),
        required("kind", "string", "What a right answer is: number, text or unanswerable"),
        optional("expected", "string", "The right answer; empty if there is none"),
        optional("decimals", "int8", "How exact a number has to be"),
        optional("sql", "string", "What found the right answer"),
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
    """Questions about the flights with their right answers, and some that no table can answer.

    One row for each question. The right answers are found by SQL in what is stored now, so they are exact,
    and another set of days has other ones: the data version tells them apart. Questions about tables that
    are not stored are left out.
    """
    import pandas as pd

    stored = tables_of(tables)
    with_answers = list(_with_answers(stored))
    left_out = len(questions()) - len(with_answers)
    if left_out:
        context.log.warning(f"{left_out} questions are left out: their tables are not stored.")
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
