"""Declares tools, and validates the arguments of calls. The tools are in query_tool.py and search_tool.py."""

import json
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.util.types import AttributeValue
from pydantic import BaseModel, ValidationError

from ledgerline.agent.messages import ToolCall, ToolDescription
from ledgerline.agent.recording import Recorder
from ledgerline.errors import LedgerlineError

Arguments_contra = TypeVar("Arguments_contra", bound=BaseModel, contravariant=True)


class ToolError(LedgerlineError):
    """A tool call failed; the message is returned to the model, so the remedy is for the model."""


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call.

    Attributes:
        text: Text for the model.
        attributes: Attributes of the tool's span, such as counts; never the content.
    """

    text: str
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


class Tool(Protocol, Generic[Arguments_contra]):
    """A function that the model may call. Safe to use from several threads at once.

    Example:
        >>> from pydantic import Field
        >>> class CityArguments(BaseModel):
        ...     city: str = Field(description="Name of the city.")
        >>> class PopulationTool:
        ...     name = "population"
        ...     description = "Returns the number of inhabitants of a city."
        ...     arguments = CityArguments
        ...
        ...     def call(self, arguments: CityArguments, recorder: Recorder, seconds: float) -> ToolResult:
        ...         if arguments.city != "Bern":
        ...             raise ToolError(f"There is no city {arguments.city!r}.", "Ask for Bern.")
        ...         return ToolResult("134794", {"ledgerline.tool.rows": 1})
        >>> tool = PopulationTool()
        >>> arguments = valid_arguments(tool, ToolCall("call_1", "population", {"city": "Bern"}))
        >>> tool.call(arguments, Recorder(), seconds=10).text
        '134794'
    """

    @property
    def name(self) -> str:
        """The name by which the model calls the tool."""
        ...

    @property
    def description(self) -> str:
        """The description for the model."""
        ...

    @property
    def arguments(self) -> type[Any]:
        """A pydantic model of the arguments; the descriptions of its fields are for the model."""
        ...

    def call(self, arguments: Arguments_contra, recorder: Recorder, seconds: float) -> ToolResult:
        """Run the tool.

        Args:
            arguments: Valid arguments.
            recorder: Recorder of spans for parts of the work, under the tool's span.
            seconds: Remaining time of the execution.

        Raises:
            ToolError: The call failed; the message is returned to the model.
        """
        ...


def describe(tool: Tool[Any]) -> ToolDescription:
    """Return the description of a tool for the model."""
    schema = tool.arguments.model_json_schema()
    return ToolDescription(tool.name, tool.description, _without_titles(schema))


def valid_arguments(tool: Tool[Any], call: ToolCall) -> Any:
    """Return the validated arguments of a call.

    An unknown argument is refused rather than ignored, because the call may have been meant for another tool:
    Ollama calls the tool whose name it finds anywhere in the model's text, with the arguments that it finds
    there.

    Raises:
        ToolError: The arguments are invalid.
    """
    if isinstance(call.arguments, str):
        raise ToolError(f"The arguments of {tool.name} are not a JSON object: {call.arguments[:200]!r}.")
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
    problems += [f"{name[:100]}: there is no such argument" for name in unknown]
    raise ToolError(
        f"{tool.name} was not called, because its arguments are invalid: {'; '.join(problems)}.",
        f"Its arguments are {json.dumps(parameters)}.",
    )


def _without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic adds, which confuse small models."""
    if isinstance(schema, dict):
        return {
            name: _without_titles(value)
            for name, value in schema.items()
            if not (name == "title" and isinstance(value, str))
        }
    if isinstance(schema, list):
        return [_without_titles(value) for value in schema]
    return schema
