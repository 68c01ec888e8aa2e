"""Checks responses of servers with OpenAI's protocol, since the client accepts anything with status 200."""

import json
from collections.abc import Mapping
from typing import Any

from ledgerline.agent.failures import ModelServer

QUOTED_BYTES = 2000
EVENTS = "text/event-stream"


def require_events(server: ModelServer, response: Any) -> None:
    """Refuse a response that is not a stream of events, such as a login page or a proxy's error.

    Args:
        server: Server that the errors name.
        response: Response of httpx whose content has not been read.

    Raises:
        LanguageModelError: The response is not a stream of events; the error quotes it.
    """
    kind = response.headers.get("content-type", EVENTS).partition(";")[0].strip().lower()
    if kind == EVENTS:
        return
    received = b""
    for piece in response.iter_bytes():
        received += piece
        if len(received) > QUOTED_BYTES:
            break
    text = received.decode("utf-8", "replace")
    error = _error_in(text)
    if error is not None:
        raise server.error_for(response.status_code, error)
    raise server.malformed(
        f"it is not a stream of events but {kind or 'something else'}: {text or 'nothing'}"
    )


def listed_models(text: str) -> Mapping[str, str | None] | None:
    """Read the names and owners in a list of models; None if the text is not such a list."""
    listing = json.loads(text)
    models = (listing.get("data") or []) if isinstance(listing, dict) and "data" in listing else None
    if not isinstance(models, list) or not all(isinstance(model, dict) and "id" in model for model in models):
        return None
    return {str(model["id"]): model.get("owned_by") for model in models}


def _error_in(text: str) -> str | None:
    """Return the error that a JSON text reports; None if it reports no error."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)
