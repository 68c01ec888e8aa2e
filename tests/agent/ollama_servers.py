"""Helps tests that run against the fake Ollama and, where there is one, against a real one.

A model says what it is told: the request's `format` is a JSON schema with one constant, which real Ollama
makes the model write, and the fake's responder writes as well.
"""

import json
from typing import Any

import httpx

from ledgerline.testing.fake_ollama import ChatRequest, Reply


def constant_of_format(request: ChatRequest) -> Reply:
    """Write the constant of the request's format, as a model does."""
    wanted = request.more.get("format", {}).get("const")
    if isinstance(wanted, dict) and "name" in wanted:
        return Reply(tool_calls=((wanted["name"], wanted["arguments"]),))
    if isinstance(wanted, str):
        return Reply(tool_calls=(("", wanted),))
    return Reply(pieces=("Hello", " there."))


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The parts of a streamed answer."""
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]
