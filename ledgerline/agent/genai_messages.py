"""Converts messages to the JSON of OpenTelemetry's GenAI conventions.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (gen_ai.input.messages and siblings).
"""

from collections.abc import Sequence
from typing import Any

from ledgerline.agent.messages import Message, Role


def messages(conversation: Sequence[Message], finish_reason: str | None = None) -> list[dict[str, Any]]:
    """Return messages with their parts.

    Args:
        conversation: Messages to convert.
        finish_reason: Finish reason of the last message, if the model generated it.
    """
    written = [{"role": message.role.value, "parts": _parts(message)} for message in conversation]
    if finish_reason is not None:
        written[-1]["finish_reason"] = finish_reason
    return written


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        call = message.responds_to
        return [{"type": "tool_call_response", "id": call.id if call else None, "response": message.content}]
    text = [{"type": "text", "content": message.content}] if message.content else []
    calls = [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    return text + calls
