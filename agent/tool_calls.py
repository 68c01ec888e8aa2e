"""Ids and arguments of tool calls where a provider leaves them out or wrong. What a call is: messages.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from agent.messages import Message


def used_ids(messages: Sequence[Message]) -> set[str]:
    """Those of the calls of a conversation."""
    return {call.id for message in messages for call in message.tool_calls}


def unused_ids(messages: Sequence[Message]) -> Iterator[str]:
    """New ones, each of which no call of the conversation has: call_1, call_2 ..."""
    used = used_ids(messages)
    return (new for number in count(len(used) + 1) if (new := f"call_{number}") not in used)


def parsed_arguments(text: str) -> Mapping[str, Any] | str:
    """Arguments by name, or the text if it is no JSON object; nothing at all is no arguments."""
    if not text.strip():
        return {}
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text
