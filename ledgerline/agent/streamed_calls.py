"""Joins the parts of tool calls that are streamed in OpenAI's protocol."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledgerline.agent.messages import Message, ToolCall
from ledgerline.agent.tool_calls import parsed_arguments, with_unique_ids

if TYPE_CHECKING:
    from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall


@dataclass
class _Call:
    """A call, or a part of one."""

    index: int | None
    id: str
    name: str
    arguments: str

    @property
    def is_whole(self) -> bool:
        """True if the arguments are a complete JSON object."""
        return bool(self.arguments.strip()) and not isinstance(parsed_arguments(self.arguments), str)


class StreamedCalls:
    """Joins parts of tool calls.

    In the protocol, each part has the index of its call, and the first part has its id and name. Some
    servers give all calls the index 0 or none, omit the ids, repeat id and name in each part, send a call in
    one part, or send its arguments as an object. Therefore, a part continues the call with its id, else the
    last call with its index, else the last call; another name, or a name after complete arguments, begins a
    new call.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add(self, parts: "Sequence[ChoiceDeltaToolCall]") -> None:
        """Append parts to their calls."""
        for part in map(_read, parts):
            call = self._continued(part)
            if call is None:
                self._calls.append(part)
            else:
                call.id = call.id or part.id
                call.name = call.name or part.name
                call.arguments += part.arguments

    def calls(self, messages: Sequence[Message]) -> tuple[ToolCall, ...]:
        """Return all calls in their order, each with an id that is unique in the conversation."""
        calls = [
            call
            for call, before in zip(self._calls, [None, *self._calls], strict=False)
            if not _repeats(call, before)
        ]
        return with_unique_ids(
            (ToolCall(call.id, call.name, parsed_arguments(call.arguments)) for call in calls), messages
        )

    def _continued(self, part: _Call) -> _Call | None:
        """Return the call that a part continues; None if the part begins one."""
        near = [call for call in self._calls if part.index is None or call.index in (None, part.index)]
        same = [call for call in near if part.id and call.id == part.id]
        last = (same or near or [None])[-1]
        if last is None:
            return None
        has_other_id = bool(part.id and last.id and part.id != last.id)
        has_other_name = bool(part.name and last.name and part.name != last.name)
        if has_other_name or (has_other_id and part.name):
            return None
        return None if (part.name or has_other_id) and last.is_whole else last


def _repeats(call: _Call, before: _Call | None) -> bool:
    """Return True if a call only repeats the name of the previous one, as some servers send at the end."""
    if before is None or call.arguments.strip() or not before.is_whole:
        return False
    return call.name == before.name and call.id in ("", before.id)


def _read(part: "ChoiceDeltaToolCall") -> _Call:
    function = part.function
    arguments: object = function.arguments if function else None
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments)
    return _Call(
        index=part.index,
        id=part.id or "",
        name=(function.name if function else None) or "",
        arguments=str(arguments or ""),
    )
