"""How good the analyst's answers are, by rules, and what they cost. The answers: analyst_answers."""

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

# What a materialisation says of itself, for the next one to be compared with.
ACCURACY = "accuracy"
GROUNDED = "grounded"
TOKENS = "tokens"
SECONDS = "seconds"
COST = "cost"
RIGHT = "right"  # the ids of the questions
QUESTIONS_VERSION = "questions_version"

SCORES_SCHEMA = dg.TableSchema(
    [
        required("id", "string", "Names the question"),
        required("kind", "string", "What a right answer is: number, text or unanswerable"),
        optional("expected", "string", "The right answer; empty if there is none"),
        optional("stated", "string", "What the answer's last line states"),
        required("is_right", "bool", "Whether that is right; of what cannot be answered: whether it says so"),
        required(
            "is_grounded",
            "bool",
            "Whether it states something, and every number of it is in a tool's answer or the question",
        ),
        required("ungrounded", "string", "The numbers that are in neither, with commas"),
        required("refused", "bool", "Whether it says that it cannot be answered"),
        required("tools", "string", "The tools it called, in order, with commas"),
        required("tokens", "int64", "Of the language model, in and out"),
        required("seconds", "double", "From question to answer"),
        required("cost", "double", "Of the tokens, by the configured prices"),
    ]
)


class Prices(dg.Config):
    """What tokens cost."""

    per_million_input_tokens: float = Field(
        default=0.0, ge=0, description="In any currency; 0 for one's own machine."
    )
    per_million_output_tokens: float = Field(default=0.0, ge=0, description="In the same currency.")


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
    """How good the analyst's answers are: right, grounded, refused where they must be, and what they cost.

    One row for each question. By rules, no other model judges: a number is right if it is exact to the
    decimals asked for, an answer is grounded if it states something and has every number from a tool's
    answer, and what no table can answer must be refused. Also a run in MLflow, with the table.
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
        run.log_table(_for_people(frame, analyst_answers), TABLE_FILE)
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
    """Judge every answer.

    Raises:
        PermanentFailure: The answers are to other questions.
    """
    import pandas as pd

    if set(zip(questions["id"], questions["question"], strict=True)) != set(
        zip(answers["id"], answers["question"], strict=True)
    ):
        raise PermanentFailure(
            "analyst_answers has answers to other questions than analyst_questions has now.",
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
    sources = [row["question"], *_told(json.loads(row["calls"]))]
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


def _told(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What tools found; of tables each cell, as the commas between them would join two numbers."""
    for call in calls:
        if call["failed"]:
            continue
        if call["tool"] == QUERY_TOOL:
            for cells in csv.reader(io.StringIO(call["answer"])):
                yield from cells
        else:
            yield call["answer"]


def _text(value: Any) -> str | None:
    """A text of a table, where a gap may be None or NaN."""
    return value if isinstance(value, str) else None


def _mean(column: "pd.Series") -> float:
    return float(column.mean()) if len(column) else 1.0


def _for_people(scores: "pd.DataFrame", answers: "pd.DataFrame") -> "pd.DataFrame":
    columns = [
        "id",
        "question",
        "answer",
        "turns",
        "input_tokens",
        "output_tokens",
        "stopped_by",
        "trace_id",
        "span_id",
    ]
    shown = scores.drop(columns=["tokens"]).merge(answers[columns], on="id")
    first = ["id", "question", "answer", "expected", "stated", "is_right", "is_grounded", "tools"]
    return shown[first + [column for column in shown.columns if column not in first]]


def _wrong(scores: "pd.DataFrame") -> str:
    lines = [
        f"| {row['id']} | {row['expected'] or UNKNOWN} | {row['stated'] or ''} | {row['ungrounded']} |"
        for row in scores[~(scores["is_right"] & scores["is_grounded"])].to_dict("records")
    ]
    return "\n".join(["| question | expected | stated | ungrounded |", "| --- | --- | --- | --- |", *lines])
