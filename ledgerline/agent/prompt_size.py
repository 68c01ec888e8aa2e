"""Computes the fewest tokens that a conversation can have, which shows whether a server has cut it.

No tokenizer is used: servers do not offer those of their models.
"""

import json
import re
from collections.abc import Sequence

from ledgerline.agent.messages import Message, ToolDescription

# More than the tokens of any language have on average: what is too long by this is too long.
CHARACTERS_PER_TOKEN = 6
# Many spaces, or a whole line of dashes, may be one token.
_REPEATED = re.compile(r"(?<=\s)\s+|(?<=([^\w\s]))\1{3,}")


def characters(messages: Sequence[Message], tools: Sequence[ToolDescription] = ()) -> int:
    """Count the characters of messages and tools; spaces and signs in a row count once."""
    said = sum(
        _length(message.content) + sum(_length(str(call.arguments)) for call in message.tool_calls)
        for message in messages
    )
    offered = sum(
        _length(tool.name) + _length(tool.description) + _length(json.dumps(dict(tool.parameters)))
        for tool in tools
    )
    return said + offered


def least_tokens(messages: Sequence[Message], tools: Sequence[ToolDescription] = ()) -> int:
    """Tokens that they are, whatever the tokenizer."""
    return characters(messages, tools) // CHARACTERS_PER_TOKEN


def _length(text: str) -> int:
    return len(_REPEATED.sub("", text))
