"""Repairs and translates tool calls of language models. A call is declared in messages.py."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count
from typing import Any

from ledgerline.agent.messages import Message, ToolCall, ToolDescription
from ledgerline.agent.recording import replace_invalid_unicode

Arguments = Mapping[str, Any]


def with_unique_ids(calls: Iterable[ToolCall], messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Return new calls with ids that are unique in the conversation, the ids of the provider if possible.

    Args:
        calls: New calls; the id is empty if the provider gives none.
        messages: Conversation so far.
    """
    used = {call.id for message in messages for call in message.tool_calls}
    numbered = (f"call_{number}" for number in count(len(used) + 1))
    unique: list[ToolCall] = []
    for call in calls:
        own = call.id if call.id and call.id not in used else next(new for new in numbered if new not in used)
        used.add(own)
        unique.append(replace(call, id=own))
    return tuple(unique)


def parsed_arguments(written: Arguments | str | None) -> Arguments | str:
    """Return arguments by name, or the text if it is not a JSON object; an empty text means no arguments."""
    if not isinstance(written, str):
        return written or {}
    if not written.strip():
        return {}
    try:
        arguments = json.loads(written)
    except (ValueError, RecursionError):
        return written
    return arguments if isinstance(arguments, dict) else written


def with_valid_unicode(message: Message) -> Message:
    """Return a message without invalid Unicode, so that it can be sent, recorded and stored."""
    calls = tuple(
        replace(call, name=replace_invalid_unicode(call.name), arguments=_valid_arguments(call.arguments))
        for call in message.tool_calls
    )
    return replace(message, content=replace_invalid_unicode(message.content), tool_calls=calls)


def sent_message(
    message: Message, sent_arguments: Callable[[Arguments], Arguments | str], **fields: str
) -> dict[str, Any]:
    """Return a message in OpenAI's protocol, which Ollama's resembles.

    Args:
        message: Message to send.
        sent_arguments: Function that returns the arguments of a call in the form of the protocol.
        fields: Further fields of each call.
    """
    sent: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            {
                "id": call.id,
                **fields,
                "function": {
                    "name": call.name,
                    # A text that is not an object cannot be sent as one; the tool's error quotes it.
                    "arguments": sent_arguments({} if isinstance(call.arguments, str) else call.arguments),
                },
            }
            for call in message.tool_calls
        ]
    if message.responds_to:
        sent["tool_call_id"] = message.responds_to.id
    return sent


def sent_tool(tool: ToolDescription) -> dict[str, Any]:
    """Return the description of a tool in the protocol of OpenAI and Ollama."""
    return {"type": "function", "function": asdict(tool)}


def _valid_arguments(arguments: Arguments | str) -> Arguments | str:
    if isinstance(arguments, str):
        return replace_invalid_unicode(arguments)
    try:
        return json.loads(replace_invalid_unicode(json.dumps(arguments, ensure_ascii=False)))
    except (RecursionError, ValueError) as error:
        return f"({type(error).__name__})"
