"""Tests the description of tools for the model, and the validation of arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from ledgerline.agent.messages import ToolCall
from ledgerline.agent.recording import Recorder
from ledgerline.agent.tools import ToolError, ToolResult, describe, valid_arguments


class Place(BaseModel):
    """A place."""

    title: str = Field(description="Its name.")


class Arguments(BaseModel):
    """The arguments of the tool."""

    place: Place
    days: list[int] = Field(default_factory=list, max_length=3, description="Which days.")
    recent: Literal["day", "year"] | None = None


@dataclass(frozen=True)
class Forecast:
    name: str = "forecast"
    description: str = "Tells the weather."
    arguments: type[BaseModel] = Arguments

    def call(self, arguments: Arguments, recorder: Recorder, seconds: float) -> ToolResult:
        return ToolResult(arguments.place.title)


def valid(arguments: Mapping[str, Any] | str) -> Arguments:
    return valid_arguments(Forecast(), ToolCall("call_1", "forecast", arguments))


def test_a_tool_is_described_by_the_schema_of_its_arguments() -> None:
    described = describe(Forecast())
    assert (described.name, described.description) == ("forecast", "Tells the weather.")
    assert described.parameters["required"] == ["place"]
    assert described.parameters["properties"]["days"] == {
        "type": "array",
        "items": {"type": "integer"},
        "maxItems": 3,
        "description": "Which days.",
    }


def test_titles_are_left_out_and_an_argument_of_that_name_is_not() -> None:
    parameters = describe(Forecast()).parameters
    assert "title" not in parameters
    assert parameters["$defs"]["Place"]["properties"] == {
        "title": {"type": "string", "description": "Its name."}
    }


def test_arguments_are_converted_to_their_types() -> None:
    taken = valid({"place": {"title": "JFK"}, "days": ["1", 2], "recent": "day"})
    assert taken == Arguments(place=Place(title="JFK"), days=[1, 2], recent="day")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "place: Field required"),
        ({"place": "JFK"}, "place: Input should be"),
        ({"place": {}}, "place.title: Field required"),
        ({"place": {"title": "JFK"}, "days": [1, 2, 3, 4]}, "days: List should have at most 3 items"),
        ({"place": {"title": "JFK"}, "days": [1, "x"]}, "days.1: Input should be a valid integer"),
        ({"place": {"title": "JFK"}, "recent": "week"}, "recent: Input should be 'day' or 'year'"),
    ],
)
def test_wrong_arguments_are_reported_with_the_accepted_ones(
    arguments: Mapping[str, Any], problem: str
) -> None:
    with pytest.raises(ToolError) as error:
        valid(arguments)
    assert str(error.value).startswith("forecast was not called, because its arguments are invalid: ")
    assert problem in str(error.value)
    assert 'Its arguments are {"$defs"' in str(error.value)


def test_several_wrong_arguments_are_reported_at_once() -> None:
    with pytest.raises(ToolError, match=r"place: .*; days: "):
        valid({"days": "x"})


@pytest.mark.parametrize("text", ["", "[1]", '{"place": ', "x" * 100_000])
def test_arguments_that_are_not_an_object_are_quoted_in_short(text: str) -> None:
    with pytest.raises(ToolError, match="The arguments of forecast are not a JSON object") as error:
        valid(text)
    assert len(str(error.value)) < 300
