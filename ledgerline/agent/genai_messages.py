"""What was said, as OpenTelemetry's GenAI conventions write it down.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (gen_ai.input.messages and siblings).
"""

from collections.abc import Sequence
from typing import Any

from ledgerline.agent.messages import Message, Role, ToolDescription


def messages(said: Sequence[Message], finish_reason: str | None = None) -> list[dict[str, Any]]:
    """Messages with their parts.

    Args:
        said: The messages.
        finish_reason: Why the model stopped, for what it said last.
    """
    written = [{"role": message.role.value, "parts": _parts(message)} for message in said]
    if finish_reason is not None:
        written[-1]["finish_reason"] = finish_reason
    return written


def definitions(tools: Sequence[ToolDescription]) -> list[dict[str, Any]]:
    """Tools as the model is offered them."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        }
        for tool in tools
    ]


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        call = message.answers
        return [{"type": "tool_call_response", "id": call.id if call else None, "response": message.content}]
    text = [{"type": "text", "content": message.content}] if message.content else []
    calls = [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    return text + calls
