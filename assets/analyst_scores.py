"""Scores of the analyst's answers, by rules, and their costs. The answers are in analyst_answers.py."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets import policies
from assets.analyst import QUERY_TOOL, UNKNOWN
from assets.analyst_questions import GROUP, Kind
from assets.columns import Frame, lineage, optional, required
from ledgerline.agent import evaluation
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage import digests
from ledgerline.dagster.tracking import MLflowResource

if TYPE_CHECKING:
    import pandas as pd

TABLE_FILE = "analyst_answers.json"
MILLION = 1_000_000

# The checks compare the metadata of these names with that of the next materialisation.
ACCURACY = "accuracy"
GROUNDED = "grounded"
TOKENS = "tokens"
SECONDS = "seconds"
COST = "cost"
RIGHT = "right"  # the ids of the questions
QUESTIONS_VERSION = "questions_version"

SCORES_SCHEMA = dg.TableSchema(
    [
        required("id", "string", "Identifier of the question"),
        required("kind", "string", "Kind of the right answer: number, text or unanswerable"),
        optional("expected", "string", "Right answer; empty if the question has none"),
        optional("stated", "string", "Fact that the last line of the answer states"),
        required("is_right", "bool", "True if the fact is right, or if an unanswerable question is refused"),
        required(
            "is_grounded",
            "bool",
            "True if the answer states a fact and all its numbers are in a tool's result or the question",
        ),
        required("ungrounded", "string", "Numbers of the answer that are in neither, separated by commas"),
        required("refused", "bool", "True if the answer says that the question cannot be answered"),
        required("tools", "string", "Names of the called tools, in order, separated by commas"),
        required("tokens", "int64", "Input and output tokens of the language model"),
        required("seconds", "double", "Seconds from the question to the answer"),
        required("cost", "double", "Cost of the tokens at the configured prices"),
    ]
)


class Prices(dg.Config):
    """The prices of tokens."""

    per_million_input_tokens: float = Field(
        default=0.0, ge=0, description="Price of a million input tokens in any currency; 0 for a local model."
    )
    per_million_output_tokens: float = Field(
        default=0.0, ge=0, description="Price of a million output tokens in the same currency."
    )


@dg.asset(
    io_manager_key="tables",
    retry_policy=policies.RETRY,
    group_name=GROUP,
    kinds={"mlflow", "parquet"},
    code_version="2",
    metadata={
        "dagster/column_schema": SCORES_SCHEMA,
        "dagster/column_lineage": lineage(
            {
                "expected": [("analyst_questions", "expected")],
                "stated": [("analyst_answers", "stated")],
                "is_right": [("analyst_questions", "expected"), ("analyst_answers", "stated")],
                "is_grounded": [("analyst_answers", "answer"), ("analyst_answers", "calls")],
            }
        ),
    },
)
def analyst_scores(
    context: dg.AssetExecutionContext,
    config: Prices,
    analyst_questions: Frame,
    analyst_answers: Frame,
    mlflow: MLflowResource,
) -> Frame:
    """Scores of the analyst's answers: right, grounded, and refused where necessary; and their costs.

    The table has one row for each question. The scores follow rules and use no other model. A number is
    right if it agrees to the required decimals. An answer is grounded if it states a fact and all its numbers
    come from a tool's result or the question. A question that no table can answer must be refused. The scores
    and the table are also a run in MLflow.
    """
    frame = scores_of(analyst_questions, analyst_answers, config)
    answerable = frame["kind"] != Kind.UNANSWERABLE.value
    summary: dict[str, float] = {
        ACCURACY: float(frame["is_right"].mean()),
        "accuracy_of_facts": _mean(frame.loc[answerable, "is_right"]),
        "refused_when_it_must": _mean(frame.loc[~answerable, "refused"]),
        "refused_needlessly": _mean(frame.loc[answerable, "refused"]),
        GROUNDED: float(frame["is_grounded"].mean()),
        TOKENS: float(frame["tokens"].sum()),
        SECONDS: float(frame["seconds"].sum()),
        COST: float(frame["cost"].sum()),
    }
    first = analyst_answers.iloc[0]
    name = f"analyst {first['model']}, prompt {first['prompt_version']}"
    version = digests.frame_sha256(analyst_questions)
    with mlflow.training_run(context, name) as run:
        run.log_params(
            {
                "model": first["model"],
                "prompt": f"prompts:/{first['prompt']}/{first['prompt_version']}",
                "questions": len(frame),
                QUESTIONS_VERSION: version,
            }
        )
        run.log_metrics(summary, model_id=None, dataset=None)
        run.log_table(_table_for_mlflow(frame, analyst_answers), TABLE_FILE)
        link = mlflow.link(run)
    right = frame.loc[frame["is_right"], "id"].tolist()
    context.add_output_metadata(
        {
            **summary,
            RIGHT: dg.MetadataValue.json(right),
            QUESTIONS_VERSION: version,
            "model": str(first["model"]),
            "mlflow_run": link,
            "wrong": dg.MetadataValue.md(_wrong(frame)),
        }
    )
    return frame


def scores_of(questions: "pd.DataFrame", answers: "pd.DataFrame", prices: Prices) -> "pd.DataFrame":
    """Return the scores of every answer.

    Raises:
        PermanentFailure: The answers belong to other questions.
    """
    import pandas as pd

    if set(zip(questions["id"], questions["question"], strict=True)) != set(
        zip(answers["id"], answers["question"], strict=True)
    ):
        raise PermanentFailure(
            "The answers in analyst_answers belong to other questions than those in analyst_questions.",
            "Materialise analyst_answers again.",
        )
    both = questions.merge(answers.drop(columns="question"), on="id", validate="one_to_one")
    return pd.DataFrame([_score(row, prices) for row in both.to_dict("records")])


def _score(row: Mapping[Any, Any], prices: Prices) -> dict[str, Any]:
    kind = Kind(row["kind"])
    stated, expected = _text(row["stated"]), _text(row["expected"])
    refused = stated is not None and evaluation.is_text(stated, UNKNOWN)
    if kind is Kind.UNANSWERABLE or expected is None:
        is_right = refused
    elif kind is Kind.NUMBER:
        is_right = evaluation.is_number(stated, expected, int(row["decimals"]))
    else:
        is_right = evaluation.is_text(stated, expected)
    sources = [row["question"], *_results(json.loads(row["calls"]))]
    ungrounded = evaluation.ungrounded(row["answer"], sources)
    tokens = row["input_tokens"], row["output_tokens"]
    cost = tokens[0] * prices.per_million_input_tokens + tokens[1] * prices.per_million_output_tokens
    return {
        "id": row["id"],
        "kind": kind.value,
        "expected": expected,
        "stated": stated,
        "is_right": bool(is_right),
        "is_grounded": stated is not None and not ungrounded,
        "ungrounded": ",".join(ungrounded),
        "refused": refused,
        "tools": row["tools"],
        "tokens": int(sum(tokens)),
        "seconds": float(row["seconds"]),
        "cost": cost / MILLION,
    }


def _results(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield results of tools; a table cell by cell, because commas between cells would join numbers."""
    for call in calls:
        if call["failed"]:
            continue
        if call["tool"] == QUERY_TOOL:
            for cells in csv.reader(io.StringIO(call["answer"])):
                yield from cells
        else:
            yield call["answer"]


def _text(value: Any) -> str | None:
    """Return a text from a table; None for a missing value, which may be None or NaN."""
    return value if isinstance(value, str) else None


def _mean(column: "pd.Series") -> float:
    return float(column.mean()) if len(column) else 1.0


def _table_for_mlflow(scores: "pd.DataFrame", answers: "pd.DataFrame") -> "pd.DataFrame":
    first = ["id", "question", "answer", "expected", "stated", "is_right", "is_grounded", "tools"]
    of_answers = ["question", "answer", "turns", "input_tokens", "output_tokens", "stopped_by"]
    columns = answers[["id", *of_answers, "trace_id", "span_id"]]
    table = scores.drop(columns=["tokens"]).merge(columns, on="id")
    return table[first + [column for column in table.columns if column not in first]]


def _wrong(scores: "pd.DataFrame") -> str:
    lines = [
        f"| {row['id']} | {row['expected'] or UNKNOWN} | {row['stated'] or ''} | {row['ungrounded']} |"
        for row in scores[~(scores["is_right"] & scores["is_grounded"])].to_dict("records")
    ]
    return "\n".join(["| question | expected | stated | ungrounded |", "| --- | --- | --- | --- |", *lines])
