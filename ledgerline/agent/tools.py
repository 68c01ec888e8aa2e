"""What a tool is, and how one is called. The tools: query_tool, search_tool."""

import json
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.util.types import AttributeValue
from pydantic import BaseModel, ValidationError

from ledgerline.agent.messages import ToolCall, ToolDescription
from ledgerline.agent.recording import Recorder

Arguments_contra = TypeVar("Arguments_contra", bound=BaseModel, contravariant=True)


class ToolError(Exception):
    """A tool could not do what it was asked for; the message is the model's answer, so it says what to do."""


@dataclass(frozen=True)
class ToolAnswer:
    """What a tool found.

    Attributes:
        text: For the model.
        attributes: For the tool's span: how much there was of what, never the content.
    """

    text: str
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


class Tool(Protocol, Generic[Arguments_contra]):
    """Something the model may ask for. Safe to use from several threads at once."""

    @property
    def name(self) -> str:
        """As the model calls it."""
        ...

    @property
    def description(self) -> str:
        """For the model: what it is good for."""
        ...

    @property
    def arguments(self) -> type[Any]:
        """A pydantic model of the arguments, whose field descriptions are for the model."""
        ...

    def call(self, arguments: Arguments_contra, recorder: Recorder, seconds: float) -> ToolAnswer:
        """Do it.

        Args:
            arguments: Valid ones.
            recorder: Makes spans for parts of the work, under the tool's own.
            seconds: What is left of the execution's time.

        Raises:
            ToolError: It could not be done; the message is what the model is told.
        """
        ...


def describe(tool: Tool[Any]) -> ToolDescription:
    """A tool as the model is told of it."""
    schema = tool.arguments.model_json_schema()
    return ToolDescription(tool.name, tool.description, _without_titles(schema))


def valid_arguments(tool: Tool[Any], call: ToolCall) -> Any:
    """The arguments of a call, checked.

    One that the tool does not have is refused, and not passed over: the call may have been meant for another
    tool. Ollama calls the tool whose name it finds anywhere in what a model wrote, with the arguments that it
    finds there.

    Raises:
        ToolError: They are none that the tool takes.
    """
    if isinstance(call.arguments, str):
        raise ToolError(f"The arguments of {tool.name} are no JSON object: {call.arguments[:200]!r}.")
    parameters = describe(tool).parameters
    takes_others = parameters.get("additionalProperties", False)
    unknown = [] if takes_others else sorted(set(call.arguments) - set(parameters.get("properties", {})))
    problems = []
    try:
        arguments = tool.arguments.model_validate(dict(call.arguments))
    except ValidationError as error:
        problems += [
            f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
    else:
        if not unknown:
            return arguments
    problems += [f"{name[:100]}: it has no such argument" for name in unknown]
    raise ToolError(
        f"Wrong arguments of {tool.name}: {'; '.join(problems)}. It was not called. "
        f"It takes {json.dumps(parameters)}."
    )


def _without_titles(schema: Any) -> Any:
    """A schema without what pydantic adds and small models stumble over."""
    if isinstance(schema, dict):
        return {
            name: _without_titles(value)
            for name, value in schema.items()
            if not (name == "title" and isinstance(value, str))
        }
    if isinstance(schema, list):
        return [_without_titles(value) for value in schema]
    return schema
