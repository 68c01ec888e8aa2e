"""Answers questions with a language model, tools and memory, within a budget, and records spans.

This module depends neither on Dagster nor on a particular provider.
"""

import logging
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
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
from ledgerline.agent.recording import RecordedSpan, Recorder, replace_invalid_unicode
from ledgerline.agent.retrying import time_limit
from ledgerline.agent.tool_calls import with_valid_unicode
from ledgerline.agent.tools import Tool, ToolError, ToolResult, describe, valid_arguments

logger = logging.getLogger(__name__)

NO_MORE_TOOLS = "No more tool calls are possible. Answer now, with what you have."
NO_ANSWER = "Your last message is not an answer."
NOT_PARSED = "If it was a tool call, it could not be parsed: call one of these tools"


def non_empty(answer: str) -> str | None:
    """Return the whole answer as the finding; None if it is empty."""
    return answer or None


@dataclass(frozen=True)
class Agent:
    """Answers questions. Safe to use from several threads at once.

    Attributes:
        name: Name of the agent in traces.
        model: Language model.
        prompt: System prompt; it may use the variable {{ memories }}.
        tools: Tools that the model may call. No name may be a part of another name, because Ollama searches
            the model's text for the names of tools.
        memory: Memory of earlier answers; None for an agent without one.
        budget: Limits of one execution.
        recorder: Recorder of the spans.
        finding: Function that extracts the fact from an answer; it returns None if the answer states no fact.

    Example:
        >>> from ledgerline.agent.ollama_provider import OllamaModel
        >>> from ledgerline.testing.fake_ollama import FakeOllama, Reply, scripted
        >>> with FakeOllama(scripted(Reply(pieces=("Three.",)))) as server:
        ...     model = OllamaModel(server.url, "qwen3:8b")
        ...     agent = Agent("analyst", model, Prompt("analyst", "Answer in one word."), tools=[])
        ...     execution = agent.ask("How many loaves are left?")
        >>> execution.answer, execution.outcome.value, execution.turns
        ('Three.', 'answered', 1)
    """

    name: str
    model: LanguageModel
    prompt: Prompt
    tools: Sequence[Tool[Any]]
    memory: Memory | None = None
    budget: Budget = field(default_factory=Budget)
    recorder: Recorder = field(default_factory=Recorder)
    finding: Callable[[str], str | None] = non_empty

    def __post_init__(self) -> None:
        for name, other in permutations([tool.name for tool in self.tools], 2):
            if name in other:
                raise ValueError(f"The tool name {name!r} is a part of {other!r}: rename one of the tools.")

    def ask(self, question: str, watcher: Watcher | None = None) -> Execution:
        """Answer a question; invalid Unicode in it is replaced.

        Args:
            question: Question in natural language.
            watcher: Receiver of the execution's events.

        Raises:
            LanguageModelError: The language model cannot be used.
            PromptError: The prompt cannot be rendered.
        """
        attributes = {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT_NAME: self.name,
            names.CONVERSATION: str(uuid.uuid4()),
            names.PROMPT: self.prompt.name,
            names.PROMPT_VERSION: self.prompt.version,
            names.PROMPT_SHA256: self.prompt.sha256,
            names.SPAN_TYPE: names.AGENT_TYPE,
            **_model_attributes(self.model),
        }
        question = replace_invalid_unicode(question)
        with self.recorder.span(f"{names.INVOKE_AGENT} {self.name}", attributes) as span:
            question_messages = genai_messages.messages([Message(Role.USER, question)])
            span.content({names.INPUT_MESSAGES: question_messages, names.MLFLOW_INPUTS: question})
            running = _RunningExecution(self, question, watcher or Watcher())
            execution = running.run(span)
            answer_messages = genai_messages.messages([Message(Role.ASSISTANT, execution.answer)])
            span.content({names.OUTPUT_MESSAGES: answer_messages, names.MLFLOW_OUTPUTS: execution.answer})
        return execution


def _model_attributes(model: LanguageModel) -> Mapping[str, str | int | None]:
    url = urlsplit(model.address)
    return {
        names.PROVIDER: model.provider,
        names.REQUEST_MODEL: model.model,
        names.SERVER_ADDRESS: url.hostname,
        names.SERVER_PORT: url.port,
    }


def _record(span: RecordedSpan, execution: Execution) -> None:
    outcome, limit = execution.outcome, execution.stopped_by
    span.set({names.OUTCOME: outcome.value, names.STOPPED_BY: limit.value if limit else None})
    if limit is not None:
        span.failed("budget", f"The execution was stopped by its limit of {limit.value}.")
    elif outcome is Outcome.EMPTY:
        span.failed(outcome.value, "The language model returned no answer.")
    elif outcome is Outcome.NO_FINDING:
        span.failed(outcome.value, "The answer does not state what was asked for.")
    else:
        span.succeeded()


@dataclass
class _RunningExecution:
    """The state of one execution: its messages, tool calls and usage so far."""

    _agent: Agent
    _question: str
    _watcher: Watcher
    _began: float = field(default_factory=time.monotonic)
    _messages: list[Message] = field(default_factory=list)
    _uses: list[ToolUse] = field(default_factory=list)
    _recalled: tuple[Recalled, ...] = ()
    _usage: Usage = field(default_factory=Usage)
    _turns: int = 0
    _answer: str = ""
    _has_asked_again: bool = False

    def __post_init__(self) -> None:
        self._tools = {tool.name: tool for tool in self._agent.tools}
        self._offered = [describe(tool) for tool in self._agent.tools]
        self._model = self._agent.model.model

    def run(self, span: RecordedSpan) -> Execution:
        """Take turns until there is an answer or a limit is reached."""
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
        agent = self._agent
        execution = Execution(
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
        _record(span, execution)
        return execution

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
            with time_limit(self._seconds_left):
                recalled = memory.recall(self._question, self._agent.recorder)
        except MemoryUnusableError as error:
            self._watcher.recall_failed(str(error))
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
            except TooSlowError:  # the request had all of the remaining time
                return Limit.SECONDS
            message = completion.message
            for call in message.tool_calls:
                self._use(call)
            if not message.tool_calls:
                self._answer = message.content.strip()
                if completion.finish_reason == "length":
                    return Limit.LENGTH
                if self._is_over():
                    return None
        return Limit.TURNS

    def _is_over(self) -> bool:
        """Return True if the execution is over after a response without a tool call."""
        if self._agent.finding(self._answer) is not None:
            return True
        if self._turns >= self._agent.budget.turns:
            return False  # more turns might have led to an answer
        if self._has_asked_again:
            return True
        self._ask_again()
        return False

    def _ask_again(self) -> None:
        """Request one more response; the model has usually tried to call a tool.

        Ollama silently drops a call that it cannot parse, or that names a tool which was not offered, or it
        treats the call as text.
        """
        self._has_asked_again = True
        if not self._answer:
            self._messages.pop()  # some servers refuse an empty message
        request = f"{NO_ANSWER} Answer as you were asked to, with what you have."
        if self._offered and self._may_use_tools:
            tool_names = ", ".join(tool.name for tool in self._offered)
            request = f"{NO_ANSWER} {NOT_PARSED} ({tool_names}). Otherwise answer as you were asked to."
        self._messages.append(Message(Role.USER, request))

    def _chat(self) -> Completion:
        agent, recorder = self._agent, self._agent.recorder
        self._turns += 1
        self._watcher.turn_begins(self._turns)
        attributes = {
            names.OPERATION: names.CHAT,
            names.SPAN_TYPE: names.CHAT_TYPE,
            names.REQUEST_STREAM: True,
            **_model_attributes(agent.model),
            **{f"{names.REQUEST}{name}": value for name, value in agent.model.settings.items()},
        }
        with recorder.span(f"{names.CHAT} {agent.model.model}", attributes, SpanKind.CLIENT) as span:
            with recorder.span(names.PROMPT_CONSTRUCTION) as construction:
                offered = self._construct(construction)
            span.content(
                {
                    names.INPUT_MESSAGES: genai_messages.messages(self._messages),
                    names.TOOL_DEFINITIONS: [{"type": "function", **asdict(tool)} for tool in offered],
                }
            )
            with recorder.span(names.MODEL_COMPLETION) as generation:
                completion = agent.model.complete(
                    self._messages, offered, self._seconds_left, self._watcher.text_received
                )
                generation.set(
                    {
                        names.FIRST_CHUNK_SECONDS: completion.seconds_to_first_token,
                        names.TOKENS_PER_SECOND: completion.tokens_per_second,
                    }
                )
            completion = replace(completion, message=with_valid_unicode(completion.message))
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
        """Render the prompt in the first turn, and return the tools that are offered."""
        if not self._messages:
            memories = "\n\n".join(recalled.entry.text for recalled in self._recalled)
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
        """Call a tool; an error is returned to the model."""
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
                result, failed = self._result_of(call), False
                span.set(result.attributes)
            except ToolError as error:
                result, failed = ToolResult(f"Error: {error}"), True
                span.failed(type(error).__qualname__, str(error))
            text = replace_invalid_unicode(result.text)
            span.content({names.TOOL_RESULT: text})
        use = ToolUse(call, text, failed, time.monotonic() - began)
        self._uses.append(use)
        self._messages.append(Message(Role.TOOL, text, responds_to=call))
        self._watcher.tool_returned(use)

    def _result_of(self, call: ToolCall) -> ToolResult:
        if not self._may_use_tools or self._seconds_left <= 0:
            raise ToolError(NO_MORE_TOOLS)
        tool = self._tools.get(call.name)
        if tool is None:
            tool_names = ", ".join(self._tools) or "none"
            raise ToolError(f"There is no tool {call.name[:100]!r}. The tools are: {tool_names}.")
        arguments = valid_arguments(tool, call)
        try:
            return tool.call(arguments, self._agent.recorder, self._seconds_left)
        except ToolError:
            raise
        except Exception as error:
            # The tool has a defect: the execution continues without it, and the log has the traceback.
            trace = self._agent.recorder.redact(traceback.format_exc())
            logger.error("Tool %s failed.\n%s", call.name, trace)
            raise ToolError(f"{call.name} failed: {type(error).__name__}.", "Do without it.") from error
