"""Lets the analyst answer a question, traces it and remembers the answer, for `ledgerline ask`."""

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
from ledgerline.agent.memory import Memory, MemoryUnusableError
from ledgerline.agent.prompt import Prompt
from ledgerline.agent.vector_store import Entry
from ledgerline.cleaning.passwords import without_password_in
from ledgerline.cli.commands import OptionsError
from ledgerline.dagster.agent import TRACER, AgentResource
from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.prompts import registered_prompt
from ledgerline.dagster.resources import agent_of, mlflow_of
from ledgerline.dagster.settings import Settings
from ledgerline.dagster.storage.io_managers import open_tables
from ledgerline.mlflow_store import store
from ledgerline.settings.declaration import OFF
from ledgerline.traces.exporting import tracer_until_sent

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "analyst"  # the MLflow experiment for traces, unless a setting names another target


def with_options(settings: Settings, model: str | None, *, without_memory: bool) -> Settings:
    """Return the settings with the changes that the options of the command make."""
    changes = {} if model is None else {"model": model}
    changes |= {"memory_folder": OFF} if without_memory else {}
    return settings.model_copy(update={"agent": settings.agent.model_copy(update=changes)})


def ask(settings: Settings, question: str, watcher: Watcher, notes: Console) -> Execution:
    """Answer a question in an execution with a trace, and remember the answer if the settings have a memory.

    Optional parts that do not work are reported on the console for notes.

    Raises:
        LedgerlineError: The question cannot be answered.
    """
    if not question.strip():
        raise OptionsError("The question is empty.", 'Write one, such as `ledgerline ask "..."`.')
    with agent_of(settings) as agent:
        # The language model is checked first, because that is quick and nothing works without it.
        agent.require()
        tools = tools_of(open_tables(settings.data))
        prompt = _prompt(settings, agent, notes)
        memory = agent.open_memory()
        if memory is not None:
            with suppress(MemoryUnusableError):  # the execution reports it
                memory.warm_up()
        with tracer_until_sent(settings.telemetry, lambda: _experiment(settings), TRACER) as tracer:
            analyst = agent.agent(NAME, prompt, tools, memory, tracer, finding=finding)
            execution = analyst.ask(question, watcher)
    if memory is not None:
        _remember(memory, execution, notes)
    return execution


def trace_page(settings: Settings, execution: Execution) -> str | None:
    """Return the URL of the trace of an execution; None if there is no trace, or its URL is not known."""
    if execution.trace_id is None or settings.links.trace is None:
        return None
    if "{experiment_id}" not in settings.links.trace:
        return settings.links.page_of_trace(execution.trace_id, "")
    if settings.telemetry.endpoint is not None:
        return None  # only the collector knows to which experiment it sends the trace
    from mlflow.exceptions import MlflowException

    try:
        _, experiment_id = _experiment(settings)
    except (store.StoreUnreachableError, MlflowException):
        return None
    return settings.links.page_of_trace(execution.trace_id, experiment_id)


def as_json(execution: Execution) -> str:
    """Return an execution as JSON."""
    fields = dataclasses.asdict(execution)
    fields["outcome"] = execution.outcome.value
    fields["total_tokens"] = execution.usage.total
    return json.dumps(fields, indent=2, default=str)


def _prompt(settings: Settings, agent: AgentResource, notes: Console) -> Prompt:
    if agent.prompt is not None:
        return registered_prompt(mlflow_of(settings), NAME, PROMPT, agent.prompt)
    from mlflow.exceptions import MlflowException

    try:
        return registered_prompt(mlflow_of(settings), NAME, PROMPT, None)
    except PermanentFailure as failure:
        why = failure.problem
    except MlflowException as error:  # the server responds with an error, such as a missing permission
        why = without_password_in(str(error), settings.tracking_uri)
    # The trace has the digest of the prompt all the same.
    _note(notes, "The prompt has no version", why)
    return Prompt(NAME, PROMPT)


def _note(notes: Console, what: str, why: str) -> None:
    notes.print(Text.assemble((f"{what}: ", "yellow"), why), soft_wrap=True)


def _experiment(settings: Settings) -> "tuple[MlflowClient, str]":
    client = store.connect(settings.tracking_uri)
    return client, store.experiment_id(client, EXPERIMENT, settings.artifacts)


def _remember(memory: Memory, execution: Execution, notes: Console) -> None:
    """Remember an answer that is based on tools, in place of an earlier one to the same question.

    An answer without a call of a tool is a guess of the model, or is taken from memory.
    """
    refused = evaluation.is_text(execution.finding, UNKNOWN)
    if execution.outcome is not Outcome.ANSWERED or not execution.used_tools or refused:
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
        _note(notes, "The answer is not remembered", str(error))
