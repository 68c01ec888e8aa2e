"""The analyst's answers, one step for each question. The questions are in analyst_questions.py."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import dagster as dg

from assets import policies
from assets.analyst import NAME, PROMPT, finding, tools_of
from assets.analyst_questions import GROUP
from assets.columns import Frame, schema_of
from ledgerline.dagster.agent import AgentResource
from ledgerline.dagster.executors import USES_LANGUAGE_MODEL
from ledgerline.dagster.failures import permanent_failures
from ledgerline.dagster.prompts import registered_prompt
from ledgerline.dagster.storage.io_managers import Records, Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource

if TYPE_CHECKING:
    from ledgerline.agent.execution import Execution


# A failed run can be re-executed from the failure within this time.
KEPT_FOR = timedelta(days=30)


@dataclass(frozen=True)
class Task:
    """The input of one step: a question, and the prompt with its version in MLflow's registry."""

    id: str
    question: str
    prompt: str
    prompt_version: int
    template: str


@dataclass(frozen=True)
class Answer:
    """The analyst's answer to one question. Each field has its Arrow type and its description."""

    id: Annotated[str, "string", "Identifier of the question"]
    question: Annotated[str, "string", "Text of the question"]
    answer: Annotated[str, "string", "Whole answer; empty if a limit was reached before"]
    stated: Annotated[str | None, "string", "Fact that the last line of the answer states"]
    tools: Annotated[str, "string", "Names of the called tools, in order, separated by commas"]
    calls: Annotated[str, "string", "Arguments and results of the calls, as JSON"]
    turns: Annotated[int, "int32", "Number of completions of the language model"]
    input_tokens: Annotated[int, "int64", "Input tokens of the language model"]
    output_tokens: Annotated[int, "int64", "Output tokens of the language model"]
    seconds: Annotated[float, "double", "Seconds from the question to the answer"]
    stopped_by: Annotated[str | None, "string", "Limit that stopped it: turns, tokens, seconds or length"]
    model: Annotated[str, "string", "Name of the language model"]
    prompt: Annotated[str, "string", "Name of the prompt"]
    prompt_version: Annotated[int, "int32", "Version of the prompt in MLflow's registry"]
    trace_id: Annotated[str | None, "string", "Id of the trace of the run"]
    span_id: Annotated[str | None, "string", "Id of the execution's span in that trace"]
    # Tables of earlier versions have no outcome.
    outcome: Annotated[str | None, "string", "Outcome: answered, no_finding, empty or stopped"] = None


@dg.op(out=dg.DynamicOut(io_manager_key="run_records"), retry_policy=policies.RETRY)
def ask_each(
    context: dg.OpExecutionContext,
    analyst_questions: Frame,
    agent: AgentResource,
    mlflow: MLflowResource,
    run_records: dg.ResourceParam[Records],
) -> Iterator[dg.DynamicOutput[Task]]:
    """Check the language model, register the prompt, and start a step for each question."""
    agent.require()
    run_records.delete_runs(context.instance, KEPT_FOR)
    prompt = registered_prompt(mlflow, NAME, PROMPT, agent.prompt)
    assert prompt.version is not None  # noqa: S101 (it comes from the registry)
    context.log.info(
        f"{len(analyst_questions)} questions for {agent.model} with {prompt.name} version {prompt.version}"
    )
    for key, question in analyst_questions[["id", "question"]].to_numpy().tolist():
        task = Task(key, question, prompt.name, prompt.version, prompt.template)
        yield dg.DynamicOutput(task, mapping_key=key)


@dg.op(out=dg.Out(io_manager_key="run_records"), tags=USES_LANGUAGE_MODEL, retry_policy=policies.RETRY)
def answer(
    context: dg.OpExecutionContext,
    task: Task,
    agent: AgentResource,
    tables: dg.ResourceParam[Tables],
    otel: OTelResource,
) -> Answer:
    """Answer one question without memory, since a remembered answer says nothing about the analyst."""
    from ledgerline.agent.prompt import Prompt

    prompt = Prompt(task.prompt, task.template, task.prompt_version)
    analyst = agent.agent(NAME, prompt, tools_of(tables), memory=None, tracer=otel.tracer(), finding=finding)
    with permanent_failures():
        execution = analyst.ask(task.question)
    record = _answer_of(task, execution)
    context.add_output_metadata(
        {
            "question": task.question,
            "answer": execution.answer,
            "outcome": execution.outcome.value,
            "tools": record.tools,
            "tokens": execution.usage.total,
            "seconds": round(execution.seconds, 3),
        }
    )
    return record


@dg.op(
    out=dg.Out(io_manager_key="tables", metadata={"dagster/column_schema": schema_of(Answer)}),
    retry_policy=policies.RETRY,
)
def gather_answers(context: dg.OpExecutionContext, answers: list[Answer]) -> Frame:
    """Collect the answers in one table."""
    import pandas as pd

    frame = pd.DataFrame([asdict(one) for one in answers])
    context.add_output_metadata(
        {
            "tokens": int(frame["input_tokens"].sum() + frame["output_tokens"].sum()),
            "stopped by a limit": int(frame["stopped_by"].notna().sum()),
            "without a finding": int(frame["stated"].isna().sum()),
            "model": answers[0].model,
            "prompt": f"{answers[0].prompt} version {answers[0].prompt_version}",
        }
    )
    return frame


@dg.graph_asset(
    group_name=GROUP,
    kinds={"ollama", "parquet"},
    code_version=hashlib.sha256(PROMPT.encode()).hexdigest()[:12],
)
def analyst_answers(analyst_questions: Frame) -> Frame:
    """Answers of the analyst to the questions in `analyst_questions`.

    The table has one row for each question. Each question is a step of the run, with a span in its trace. A
    failed question is retried alone, and a re-execution from the failure keeps the other answers.
    LEDGERLINE_AGENT_EXECUTIONS limits how many questions run at once. The asset needs a language model server
    (OLLAMA_HOST).
    """
    return gather_answers(ask_each(analyst_questions).map(answer).collect())


def _answer_of(task: Task, execution: "Execution") -> Answer:
    calls = [
        {"tool": use.call.name, "arguments": use.call.arguments, "answer": use.result, "failed": use.failed}
        for use in execution.tools
    ]
    return Answer(
        id=task.id,
        question=task.question,
        answer=execution.answer,
        stated=execution.finding,
        tools=",".join(use.call.name for use in execution.tools),
        calls=json.dumps(calls, default=str),
        turns=execution.turns,
        input_tokens=execution.usage.input_tokens,
        output_tokens=execution.usage.output_tokens,
        seconds=execution.seconds,
        stopped_by=execution.stopped_by.value if execution.stopped_by else None,
        model=execution.model,
        prompt=task.prompt,
        prompt_version=task.prompt_version,
        trace_id=execution.trace_id,
        span_id=execution.span_id,
        outcome=execution.outcome.value,
    )
