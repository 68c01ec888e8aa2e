"""Lets a language model answer a question with tools and memory, within a budget, and records how.

Nothing here knows of Dagster, or of a certain provider.
"""

import logging
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from ledgerline.agent import conventions as names
from ledgerline.agent import genai_messages
from ledgerline.agent.execution import Budget, Execution, Limit, Outcome, ToolUse, Watcher
from ledgerline.agent.language_model import LanguageModel, TooSlowError
from ledgerline.agent.memory import Memory, MemoryUnusableError, Recalled
from ledgerline.agent.messages import Completion, Message, Role, ToolCall, ToolDescription, Usage
from ledgerline.agent.prompt import Prompt
from ledgerline.agent.readable_messages import unicode_only
from ledgerline.agent.recording import RecordedSpan, Recorder, readable
from ledgerline.agent.retrying import ending_within
from ledgerline.agent.tools import Tool, ToolAnswer, ToolError, describe, valid_arguments

logger = logging.getLogger(__name__)

NO_MORE_TOOLS = "No more tool calls are possible. Answer now, with what you have."
NO_ANSWER = "Your last message is no answer."
NOT_UNDERSTOOD = "If it was to call a tool, the call was not understood: call one that there is"


def whole(answer: str) -> str | None:
    """Return an answer as its own finding; None if there is no text."""
    return answer or None


@dataclass(frozen=True)
class Agent:
    """Answers questions. Safe to use from several threads at once.

    Attributes:
        name: As traces show it.
        model: The language model.
        prompt: What the model is told first; may use {{ memories }}.
        tools: All that it may use: whatever it is talked into, it has no others. No name is a part of
            another: Ollama calls the tool whose name it finds anywhere in what a model wrote.
        memory: Where it looks for what was answered before; None: it does not.
        budget: How far one execution may go.
        recorder: Where its spans go.
        finding: Finds in an answer what it states; None: that is no answer to the question.
    """

    name: str
    model: LanguageModel
    prompt: Prompt
    tools: Sequence[Tool[Any]]
    memory: Memory | None = None
    budget: Budget = field(default_factory=Budget)
    recorder: Recorder = field(default_factory=Recorder)
    finding: Callable[[str], str | None] = whole

    def __post_init__(self) -> None:
        called = [tool.name for tool in self.tools]
        for number, name in enumerate(called):
            for other in called[:number] + called[number + 1 :]:
                if name in other:
                    raise ValueError(f"The tools {name!r} and {other!r} cannot be told apart: rename one.")

    def ask(self, question: str, watcher: Watcher | None = None) -> Execution:
        """Answer a question; characters in it that are not valid Unicode are replaced.

        Raises:
            LanguageModelError: The language model cannot be used.
            PromptError: The prompt cannot be filled in.
        """
        attributes = {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT_NAME: self.name,
            names.CONVERSATION: str(uuid.uuid4()),
            names.PROMPT: self.prompt.name,
            names.PROMPT_VERSION: self.prompt.version,
            names.PROMPT_SHA256: self.prompt.sha256,
            names.SPAN_TYPE: names.AGENT_TYPE,
            **_who(self.model),
        }
        question = readable(question)
        with self.recorder.span(f"{names.INVOKE_AGENT} {self.name}", attributes) as span:
            asked = genai_messages.messages([Message(Role.USER, question)])
            span.content({names.INPUT_MESSAGES: asked, names.MLFLOW_INPUTS: question})
            under_way = _UnderWay(self, question, watcher or Watcher())
            execution = under_way.run(span)
            answered = genai_messages.messages([Message(Role.ASSISTANT, execution.answer)])
            span.content({names.OUTPUT_MESSAGES: answered, names.MLFLOW_OUTPUTS: execution.answer})
        return execution


def _who(model: LanguageModel) -> Mapping[str, str | int | None]:
    where = urlsplit(model.address)
    return {
        names.PROVIDER: model.provider,
        names.REQUEST_MODEL: model.model,
        names.SERVER_ADDRESS: where.hostname,
        names.SERVER_PORT: where.port,
    }


def _record(span: RecordedSpan, execution: Execution) -> None:
    outcome, limit = execution.outcome, execution.stopped_by
    span.set({names.OUTCOME: outcome.value, names.STOPPED_BY: limit.value if limit else None})
    if limit is not None:
        span.failed("budget", f"Stopped by its limit of {limit.value}.")
    elif outcome is Outcome.EMPTY:
        span.failed(outcome.value, "The language model answered nothing.")
    elif outcome is Outcome.NO_FINDING:
        span.failed(outcome.value, "The answer does not state what was asked for.")
    else:
        span.succeeded()


class _UnderWay:
    """One execution: what was said and used so far."""

    def __init__(self, agent: Agent, question: str, watcher: Watcher) -> None:
        self._agent = agent
        self._question = question
        self._watcher = watcher
        self._began = time.monotonic()
        self._tools = {tool.name: tool for tool in agent.tools}
        self._offered = [describe(tool) for tool in agent.tools]
        self._messages: list[Message] = []
        self._uses: list[ToolUse] = []
        self._recalled: tuple[Recalled, ...] = ()
        self._usage = Usage()
        self._turns = 0
        self._answer = ""
        self._was_told = False
        self._model = agent.model.model

    def run(self, span: RecordedSpan) -> Execution:
        """Take turns until there is an answer, or a limit is reached."""
        stopped_by = None
        try:
            self._recalled = self._recall()
            stopped_by = self._take_turns()
        finally:
            span.set(
                {
                    names.INPUT_TOKENS: self._usage.input_tokens,
                    names.OUTPUT_TOKENS: self._usage.output_tokens,
                    names.TURNS: self._turns,
                    names.TOOL_CALLS: len(self._uses),
                    names.RESPONSE_MODEL: self._model,
                }
            )
        execution = self._execution(span, stopped_by)
        _record(span, execution)
        return execution

    def _execution(self, span: RecordedSpan, stopped_by: Limit | None) -> Execution:
        agent = self._agent
        return Execution(
            question=self._question,
            answer=self._answer,
            finding=agent.finding(self._answer),
            stopped_by=stopped_by,
            turns=self._turns,
            tools=tuple(self._uses),
            recalled=self._recalled,
            usage=self._usage,
            seconds=time.monotonic() - self._began,
            model=self._model,
            prompt=agent.prompt.name,
            prompt_version=agent.prompt.version,
            trace_id=f"{span.trace_id:032x}" if span.trace_id else None,
            span_id=f"{span.span_id:016x}" if span.span_id else None,
        )

    @property
    def _seconds_left(self) -> float:
        return self._agent.budget.seconds - (time.monotonic() - self._began)

    @property
    def _may_use_tools(self) -> bool:
        budget = self._agent.budget
        return self._turns < budget.turns and len(self._uses) < budget.tool_calls

    def _recall(self) -> tuple[Recalled, ...]:
        memory = self._agent.memory
        if memory is None:
            return ()
        try:
            with ending_within(self._seconds_left):
                recalled = memory.recall(self._question, self._agent.recorder)
        except MemoryUnusableError as error:
            self._watcher.forgot(str(error))
            return ()
        self._watcher.recalled(recalled)
        return recalled

    def _take_turns(self) -> Limit | None:
        budget = self._agent.budget
        while self._turns < budget.turns:
            if self._usage.total >= budget.tokens:
                return Limit.TOKENS
            if self._seconds_left <= 0:
                return Limit.SECONDS
            try:
                completion = self._chat()
            except TooSlowError:  # it had all the seconds that were left
                return Limit.SECONDS
            said = completion.message
            for call in said.tool_calls:
                self._use(call)
            if not said.tool_calls:
                self._answer = said.content.strip()
                if completion.finish_reason == "length":
                    return Limit.LENGTH
                if self._is_over():
                    return None
        return Limit.TURNS

    def _is_over(self) -> bool:
        """Return whether the execution is over after a response without a tool call."""
        if self._agent.finding(self._answer) is not None:
            return True
        if self._turns >= self._agent.budget.turns:
            return False  # with more turns, there might have been an answer
        if self._was_told:
            return True
        self._tell_that_it_is_no_answer()
        return False

    def _tell_that_it_is_no_answer(self) -> None:
        """Tell the model once; mostly it has tried to call a tool.

        Ollama leaves out a call that it cannot read, or to a tool that was not offered, without a word, or
        takes it for text.
        """
        self._was_told = True
        if not self._answer:
            self._messages.pop()  # some servers refuse a message without anything
        told = f"{NO_ANSWER} Answer as you were asked to, with what you have."
        if self._offered and self._may_use_tools:
            there_are = ", ".join(tool.name for tool in self._offered)
            told = f"{NO_ANSWER} {NOT_UNDERSTOOD} ({there_are}). Otherwise answer as you were asked to."
        self._messages.append(Message(Role.USER, told))

    def _chat(self) -> Completion:
        agent, recorder = self._agent, self._agent.recorder
        self._turns += 1
        self._watcher.turn_begins(self._turns)
        attributes = {
            names.OPERATION: names.CHAT,
            names.SPAN_TYPE: names.CHAT_TYPE,
            names.REQUEST_STREAM: True,
            **_who(agent.model),
            **{f"{names.REQUEST}{name}": value for name, value in agent.model.settings.items()},
        }
        with recorder.span(f"{names.CHAT} {agent.model.model}", attributes, SpanKind.CLIENT) as span:
            with recorder.span(names.PROMPT_CONSTRUCTION) as construction:
                offered = self._construct(construction)
            span.content(
                {
                    names.INPUT_MESSAGES: genai_messages.messages(self._messages),
                    names.TOOL_DEFINITIONS: genai_messages.definitions(offered),
                }
            )
            with recorder.span(names.MODEL_COMPLETION) as generation:
                completion = agent.model.complete(
                    self._messages, offered, self._seconds_left, self._watcher.heard
                )
                generation.set(
                    {
                        names.FIRST_CHUNK_SECONDS: completion.seconds_to_first_token,
                        names.TOKENS_PER_SECOND: completion.tokens_per_second,
                    }
                )
            completion = replace(completion, message=unicode_only(completion.message))
            self._usage += completion.usage
            self._model = completion.model
            self._messages.append(completion.message)
            span.set(
                {
                    names.INPUT_TOKENS: completion.usage.input_tokens,
                    names.OUTPUT_TOKENS: completion.usage.output_tokens,
                    names.FINISH_REASONS: (completion.finish_reason,),
                    names.RESPONSE_MODEL: completion.model,
                    names.RESPONSE_ID: completion.response_id,
                    names.FIRST_CHUNK_SECONDS: completion.seconds_to_first_token,
                }
            )
            span.content(
                {
                    names.OUTPUT_MESSAGES: genai_messages.messages(
                        [completion.message], completion.finish_reason
                    )
                }
            )
        return completion

    def _construct(self, span: RecordedSpan) -> Sequence[ToolDescription]:
        """Say what is to be said first, and choose the tools that are offered."""
        if not self._messages:
            memories = "\n\n".join(found.entry.text for found in self._recalled)
            system = self._agent.prompt.render(memories=memories)
            self._messages = [Message(Role.SYSTEM, system), Message(Role.USER, self._question)]
        offered = self._offered if self._may_use_tools else []
        span.set(
            {
                names.PROMPT_MESSAGES: len(self._messages),
                names.PROMPT_CHARACTERS: sum(len(message.content) for message in self._messages),
                names.PROMPT_TOOLS: len(offered),
                names.PROMPT_MEMORIES: len(self._recalled),
            }
        )
        return offered

    def _use(self, call: ToolCall) -> None:
        """Call a tool; whatever goes wrong there is an answer to the model."""
        self._watcher.tool_called(call)
        began = time.monotonic()
        attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.SPAN_TYPE: names.TOOL_TYPE_OF_SPAN,
            names.TOOL_NAME: call.name,
            names.TOOL_TYPE: "function",
            names.TOOL_CALL: call.id,
        }
        with self._agent.recorder.span(f"{names.EXECUTE_TOOL} {call.name}", attributes) as span:
            span.content({names.TOOL_ARGUMENTS: call.arguments})
            try:
                answer, failed = self._answer_of(call), False
                span.set(answer.attributes)
            except ToolError as error:
                answer, failed = ToolAnswer(f"Error: {error}"), True
                span.failed(type(error).__qualname__, str(error))
            text = readable(answer.text)
            span.content({names.TOOL_RESULT: text})
        use = ToolUse(call, text, failed, time.monotonic() - began)
        self._uses.append(use)
        self._messages.append(Message(Role.TOOL, text, answers=call))
        self._watcher.tool_answered(use)

    def _answer_of(self, call: ToolCall) -> ToolAnswer:
        if not self._may_use_tools or self._seconds_left <= 0:
            raise ToolError(NO_MORE_TOOLS)
        tool = self._tools.get(call.name)
        if tool is None:
            there_are = ", ".join(self._tools) or "none"
            raise ToolError(f"There is no tool {call.name[:100]!r}. There are: {there_are}.")
        arguments = valid_arguments(tool, call)
        try:
            return tool.call(arguments, self._agent.recorder, self._seconds_left)
        except ToolError:
            raise
        except Exception as error:
            # A defect of the tool: the execution goes on without it, and the log says where it is.
            trace = self._agent.recorder.redact(traceback.format_exc())
            logger.error("Tool %s failed.\n%s", call.name, trace)
            raise ToolError(f"{call.name} failed: {type(error).__name__}. Do without it.") from error
