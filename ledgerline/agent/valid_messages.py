"""Replaces invalid Unicode in a language model's messages, so that they can be sent, recorded and stored."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ledgerline.agent.messages import Message
from ledgerline.agent.recording import replace_invalid_unicode


def with_valid_unicode(message: Message) -> Message:
    """Return a message without invalid Unicode in its text and its tool calls."""
    calls = tuple(
        replace(call, name=replace_invalid_unicode(call.name), arguments=_valid_arguments(call.arguments))
        for call in message.tool_calls
    )
    return replace(message, content=replace_invalid_unicode(message.content), tool_calls=calls)


def _valid_arguments(arguments: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    if isinstance(arguments, str):
        return replace_invalid_unicode(arguments)
    try:
        return json.loads(replace_invalid_unicode(json.dumps(arguments, ensure_ascii=False)))
    except (RecursionError, ValueError) as error:
        return f"({type(error).__name__})"
