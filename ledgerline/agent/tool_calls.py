"""Completes tool calls whose ids or arguments are missing or invalid. A call is declared in messages.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from ledgerline.agent.messages import Message


def unique_ids(given: Sequence[str | None], messages: Sequence[Message]) -> list[str]:
    """Return an id for each new call that is unique in the conversation, the given one if possible.

    Args:
        given: Ids that the provider gives to the calls, if any.
        messages: Conversation so far.
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
    """Return arguments by name, or the text if it is not a JSON object; an empty text means no arguments."""
    if not text.strip():
        return {}
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text


def _numbered(first: int) -> Iterator[str]:
    return (f"call_{number}" for number in count(first))
