"""Computes the minimum number of tokens of a conversation, which shows whether a server has truncated it.

No tokenizer is used, because servers do not offer those of their models.
"""

import json
import re
from collections.abc import Sequence

from ledgerline.agent.messages import Message, ToolDescription

# In every language, tokens have fewer characters than this on average.
CHARACTERS_PER_TOKEN = 6
# Repeated spaces, or a whole line of dashes, may be one token.
_REPEATED = re.compile(r"(?<=\s)\s+|(?<=([^\w\s]))\1{3,}")


def characters(messages: Sequence[Message], tools: Sequence[ToolDescription] = ()) -> int:
    """Count the characters of messages and tools; repeated spaces and signs count once."""
    in_messages = sum(
        _length(message.content) + sum(_length(str(call.arguments)) for call in message.tool_calls)
        for message in messages
    )
    in_tools = sum(
        _length(tool.name) + _length(tool.description) + _length(json.dumps(dict(tool.parameters)))
        for tool in tools
    )
    return in_messages + in_tools


def min_tokens(messages: Sequence[Message], tools: Sequence[ToolDescription] = ()) -> int:
    """Return the minimum number of tokens of messages and tools with any tokenizer."""
    return characters(messages, tools) // CHARACTERS_PER_TOKEN


def _length(text: str) -> int:
    return len(_REPEATED.sub("", text))
