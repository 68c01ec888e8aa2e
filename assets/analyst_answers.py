"""What the analyst answers to each question, one step each. What is asked: analyst_questions."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from assets import policies
from assets.analyst import NAME, PROMPT, finding, tools_of
from assets.analyst_questions import GROUP
from assets.columns import Frame, optional, required
from ledgerline.dagster.agent import AgentResource
from ledgerline.dagster.executors import USES_LANGUAGE_MODEL
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.prompts import registered_prompt
from ledgerline.dagster.storage.io_managers import Records, Tables
from ledgerline.dagster.tracing import OTelResource
from ledgerline.dagster.tracking import MLflowResource

if TYPE_CHECKING:
    from ledgerline.agent.execution import Execution


# A run can be executed again from where it failed for so long.
KEPT_FOR = timedelta(days=30)


@dataclass(frozen=True)
class Task:
    """A question on its way to the analyst.

    Attributes:
        id: Names the question.
        prompt, prompt_version, template: What the analyst is told first.
    """

    id: str
    question: str
    prompt: str
    prompt_version: int
    template: str


@dataclass(frozen=True)
class Answer:
    """What the analyst answered.

    Attributes:
        stated: What its last line states; None: there is no such line.
        tools: The tools it called, in order, with commas.
        calls: Their arguments and answers, as JSON.
        stopped_by: The limit it ran into, if it did.
        span_id: Of the execution, in the trace of the run.
        outcome: How it ended; None: that was not kept.
    """

    id: str
    question: str
    answer: str
    stated: str | None
    tools: str
    calls: str
    turns: int
    input_tokens: int
    output_tokens: int
    seconds: float
    stopped_by: str | None
    model: str
    prompt: str
    prompt_version: int
    trace_id: str | None
    span_id: str | None
    outcome: str | None = None


ANSWERS_SCHEMA = dg.TableSchema(
    [
        required("id", "string", "Names the question"),
        required("question", "string", "As it was asked"),
        required("answer", "string", "The whole answer; empty if a limit came first"),
        optional("stated", "string", "What its last line states"),
        required("tools", "string", "The tools it called, in order, with commas"),
        required("calls", "string", "Their arguments and answers, as JSON"),
        required("turns", "int32", "How often the language model was asked"),
        required("input_tokens", "int64", "Tokens that the language model took in"),
        required("output_tokens", "int64", "Tokens that it gave out"),
        required("seconds", "double", "From question to answer"),
        optional("stopped_by", "string", "The limit it ran into: turns, tokens, seconds or length"),
        required("model", "string", "The language model"),
        required("prompt", "string", "Name of the prompt"),
        required("prompt_version", "int32", "Its version in MLflow's prompt registry"),
        optional("trace_id", "string", "Trace of the execution"),
        optional("span_id", "string", "Its span in that trace"),
        optional("outcome", "string", "How it ended: answered, no_finding, empty or stopped"),
    ]
)


@dg.op(out=dg.DynamicOut(io_manager_key="run_records"), retry_policy=policies.RETRY)
def ask_each(
    context: dg.OpExecutionContext,
    analyst_questions: Frame,
    agent: AgentResource,
    mlflow: MLflowResource,
    run_records: dg.ResourceParam[Records],
) -> Iterator[dg.DynamicOutput[Task]]:
    """Make sure that the language model is there, register the prompt, and hand out the questions."""
    agent.require()
    run_records.delete_runs(context.instance, KEPT_FOR)
    prompt = registered_prompt(mlflow, NAME, PROMPT, agent.prompt)
    assert prompt.version is not None  # noqa: S101 (it comes from the registry)
    context.log.info(
        f"{len(analyst_questions)} questions to {agent.model}, prompt {prompt.name} {prompt.version}."
    )
    for key, question in analyst_questions[["id", "question"]].to_numpy().tolist():
        task = Task(key, question, prompt.name, prompt.version, prompt.template)
        yield dg.DynamicOutput(task, mapping_key=key)


@dg.op(
    out=dg.Out(io_manager_key="run_records"),
    tags=USES_LANGUAGE_MODEL,
    retry_policy=policies.RETRY,
)
def answer(
    context: dg.OpExecutionContext,
    task: Task,
    agent: AgentResource,
    tables: dg.ResourceParam[Tables],
    otel: OTelResource,
) -> Answer:
    """Answer one question.

    It remembers nothing: an answer that it found in its memory would say nothing of how good it is.
    """
    from ledgerline.agent.language_model import LanguageModelError, is_permanent
    from ledgerline.agent.prompt import Prompt

    prompt = Prompt(task.prompt, task.template, task.prompt_version)
    analyst = agent.agent(NAME, prompt, tools_of(tables), memory=None, tracer=otel.tracer(), finding=finding)
    try:
        execution = analyst.ask(task.question)
    except LanguageModelError as error:
        if is_permanent(error):
            raise PermanentFailure(error.problem, error.remedy) from error
        raise
    found = _answer_of(task, execution)
    context.add_output_metadata(
        {
            "question": task.question,
            "answer": execution.answer,
            "outcome": execution.outcome.value,
            "tools": found.tools,
            "tokens": execution.usage.total,
            "seconds": round(execution.seconds, 3),
        }
    )
    return found


@dg.op(
    out=dg.Out(io_manager_key="tables", metadata={"dagster/column_schema": ANSWERS_SCHEMA}),
    retry_policy=policies.RETRY,
)
def gather_answers(context: dg.OpExecutionContext, answers: list[Answer]) -> Frame:
    """Put the answers into one table."""
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
    """What the analyst answered to each question: an agent with a language model and the tables.

    One row for each question, and one step of the run, with its trace. A question that fails is tried again
    alone; what is answered stays answered when the run is re-executed from the failure. How many are asked at
    once: LEDGERLINE_AGENT_EXECUTIONS. Needs a server of language models (OLLAMA_HOST).
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
