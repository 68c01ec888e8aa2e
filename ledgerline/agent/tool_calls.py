"""Ids and arguments of tool calls where a provider leaves them out or wrong. What a call is: messages.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from ledgerline.agent.messages import Message


def own_ids(given: Sequence[str | None], messages: Sequence[Message]) -> list[str]:
    """Return an id for each new call that no other call of the conversation has, the given one if possible.

    Args:
        given: As the provider names the calls, if it does.
        messages: The conversation so far.
    """
    used = {call.id for message in messages for call in message.tool_calls}
    numbered = _numbered(len(used) + 1)
    ids: list[str] = []
    for name in given:
        own = name if name and name not in used else next(new for new in numbered if new not in used)
        used.add(own)
        ids.append(own)
    return ids


def parsed_arguments(text: str) -> Mapping[str, Any] | str:
    """Arguments by name, or the text if it is no JSON object; nothing at all is no arguments."""
    if not text.strip():
        return {}
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text


def _numbered(first: int) -> Iterator[str]:
    return (f"call_{number}" for number in count(first))
