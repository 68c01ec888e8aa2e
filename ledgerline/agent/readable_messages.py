"""Messages of a language model in what can be sent back, recorded and stored."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ledgerline.agent.messages import Message
from ledgerline.agent.recording import readable


def unicode_only(said: Message) -> Message:
    """Replace what is not valid Unicode in a message and the calls in it."""
    calls = tuple(
        replace(call, name=readable(call.name), arguments=_readable_arguments(call.arguments))
        for call in said.tool_calls
    )
    return replace(said, content=readable(said.content), tool_calls=calls)


def _readable_arguments(arguments: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    if isinstance(arguments, str):
        return readable(arguments)
    try:
        return json.loads(readable(json.dumps(arguments, ensure_ascii=False)))
    except (RecursionError, ValueError) as error:
        return f"({type(error).__name__})"
