"""`ledgerline ask`: lets the analyst answer, traces it, remembers the answer. How it works: agent/."""

import dataclasses
import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from assets.analyst import NAME, PROMPT, UNKNOWN, finding, tools_of
from ledgerline.agent import evaluation
from ledgerline.agent.execution import Execution, Outcome, Watcher
from ledgerline.agent.language_model import LanguageModelError
from ledgerline.agent.memory import Memory, MemoryUnusableError
from ledgerline.agent.prompt import Prompt, PromptError
from ledgerline.agent.vector_store import Entry
from ledgerline.dagster.agent import TRACER, AgentResource
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.prompts import registered_prompt
from ledgerline.dagster.resources import agent_of, mlflow_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.mlflow_store import store
from ledgerline.traces.exporting import tracer_until_sent

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "analyst"  # of MLflow, where traces go if no variable says otherwise


class AskingError(Exception):
    """The question could not be answered; the message says why and what to do."""


def with_options(settings: Settings, model: str | None, *, without_memory: bool) -> Settings:
    """The settings as the options of the command change them."""
    agent = settings.agent if model is None else dataclasses.replace(settings.agent, model=model)
    return dataclasses.replace(
        settings, agent=dataclasses.replace(agent, memory=None) if without_memory else agent
    )


def ask(settings: Settings, question: str, watcher: Watcher, say: Console) -> Execution:
    """Answer a question; the execution is a trace of its own, and its answer is remembered.

    Args:
        settings: The settings; without a memory nothing is recalled or remembered.
        question: The question.
        watcher: Told of what goes on.
        say: Where it is said what does not work, and is done without.

    Raises:
        AskingError: There is no answer.
    """
    if not question.strip():
        raise AskingError("The question is empty.")
    try:
        with agent_of(settings) as agent:
            # First what takes a moment only: without a language model there is nothing to wait for.
            agent.require()
            tools = tools_of(open_tables(settings.data))
            prompt = _prompt(settings, agent, say)
            memory = agent.open_memory()
            if memory is not None:
                with suppress(MemoryUnusableError):  # which the execution finds out, and says
                    memory.warm_up()
            with tracer_until_sent(settings.telemetry, lambda: _experiment(settings), TRACER) as tracer:
                analyst = agent.agent(NAME, prompt, tools, memory, tracer, finding=finding)
                execution = analyst.ask(question, watcher)
    except (PermanentFailure, LanguageModelError, PromptError) as error:
        raise AskingError(str(error)) from error
    if memory is not None:
        _remember(memory, execution, say)
    return execution


def trace_page(settings: Settings, execution: Execution) -> str | None:
    """Where the trace of an execution can be looked at; None: there is none, or it is not known."""
    if execution.trace_id is None or settings.links.trace is None:
        return None
    if "{experiment_id}" not in settings.links.trace:
        return settings.links.page_of_trace(execution.trace_id, "")
    if settings.telemetry.endpoint is not None:
        return None  # which experiment a collector sends it to, only that knows
    from mlflow.exceptions import MlflowException

    try:
        _, experiment_id = _experiment(settings)
    except (store.StoreUnreachableError, MlflowException):
        return None
    return settings.links.page_of_trace(execution.trace_id, experiment_id)


def as_json(execution: Execution) -> str:
    """An execution for programs."""
    fields = dataclasses.asdict(execution)
    fields["outcome"] = execution.outcome.value
    fields["total_tokens"] = execution.usage.total
    return json.dumps(fields, indent=2, default=str)


def _prompt(settings: Settings, agent: AgentResource, say: Console) -> Prompt:
    if agent.prompt is not None:
        return registered_prompt(mlflow_of(settings), NAME, PROMPT, agent.prompt)
    from mlflow.exceptions import MlflowException

    try:
        return registered_prompt(mlflow_of(settings), NAME, PROMPT, None)
    except PermanentFailure as failure:
        why = failure.problem
    except MlflowException as error:  # it answers, but not this: no permission, say
        why = store.without_password_in(str(error), settings.tracking_uri)
    # Its digest still is in the trace.
    _note(say, "The prompt has no version", why)
    return Prompt(NAME, PROMPT)


def _note(say: Console, what: str, why: str) -> None:
    say.print(Text.assemble((f"{what}: ", "yellow"), why), soft_wrap=True)


def _experiment(settings: Settings) -> "tuple[MlflowClient, str]":
    client = store.connect(settings.tracking_uri)
    return client, store.experiment_id(client, EXPERIMENT, settings.artifacts)


def _remember(memory: Memory, execution: Execution, say: Console) -> None:
    """Remember an answer that was looked up; a later one to the same question takes its place.

    What the model said without asking a tool is its own guess, or was remembered before.
    """
    refused = evaluation.is_text(execution.finding, UNKNOWN)
    if execution.outcome is not Outcome.ANSWERED or not execution.looked_up or refused:
        return
    asked = " ".join(execution.question.split())
    entry = Entry(
        key=f"answer:{hashlib.sha256(asked.casefold().encode()).hexdigest()[:16]}",
        kind="answer",
        text=f"Question: {asked}\n{execution.answer}",
        source=f"trace {execution.trace_id}" if execution.trace_id else execution.model,
        created=datetime.now(UTC),
    )
    try:
        memory.remember([entry])
    except MemoryUnusableError as error:
        _note(say, "The answer is not remembered", str(error))
