"""Reads addresses, errors, versions and model descriptions of an Ollama server.

The models themselves are in ollama_provider.py and ollama_embedder.py.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import RefusedError
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    from ollama import Client

PORT = 11434
# This is the first of the tested versions that have an option not to drop messages.
MIN_VERSION = (0, 12, 6)
UNVERSIONED = (0, 0, 0)  # a build without a version number


@dataclass(frozen=True)
class ModelDescription:
    """A server's description of a model.

    Attributes:
        capabilities: "completion", "tools", "thinking", "embedding" and others; None if the version of the
            server does not list them.
        context_tokens: Longest context that the model was made for; None if the server does not report it.
    """

    capabilities: tuple[str, ...] | None
    context_tokens: int | None

    def can(self, capability: str) -> bool:
        """Return whether the model has a capability; True if the server does not list capabilities."""
        return not self.capabilities or capability in self.capabilities

    @property
    def abilities(self) -> str:
        """The model's capabilities, as text for a message."""
        return ", ".join(self.capabilities or ()) or "nothing"


def server_of(host: str, model: str, headers: Mapping[str, str]) -> ModelServer:
    """Return the server at an address, which is parsed as Ollama parses OLLAMA_HOST.

    Raises:
        ServerAddressError: The text is not an address.
    """
    return ModelServer(
        kind="Ollama",
        url=_url(host),
        model=model,
        start="Start it with `ollama serve`, or set OLLAMA_HOST to its address.",
        fetch=f"Get it with `ollama pull {model}`, or choose one that `ollama list` prints.",
        secrets=tuple(value.rpartition(" ")[2] for value in headers.values()),
    )


def client_of(server: ModelServer, connect_seconds: float, headers: Mapping[str, str]) -> "Client":
    """Return a client that observes the deadline of the thread that uses it."""
    require("agent", "A language model of Ollama's")
    from ollama import Client

    from ledgerline.agent.transport import client_options

    # The client drops user and password of an address, so they are passed separately.
    return Client(server.address, headers=dict(headers), **client_options(connect_seconds, server.login))


def require_supported_version(server: ModelServer, client: "Client") -> None:
    """Refuse a version that always drops messages of a long conversation.

    Raises:
        LanguageModelError: The version is too old, or the server does not respond.
    """
    from ollama import ResponseError

    with translated_errors(server):
        try:
            version = client._request_raw("GET", "/api/version").json()["version"]  # it has no method for it
        except ResponseError as error:
            if error.status_code == 404:
                return  # another server may have Ollama's interface; the next request checks that
            raise
        numbers = tuple(map(int, re.findall(r"\d+", version.partition("-")[0])[:3]))
    if UNVERSIONED < numbers < MIN_VERSION:
        oldest = ".".join(map(str, MIN_VERSION))
        raise RefusedError(
            f"Ollama {version} at {server.address} silently drops messages of a long conversation.",
            f"Update it to {oldest} or later.",
        )


def describe(server: ModelServer, client: "Client") -> ModelDescription:
    """Request the server's description of the model.

    Raises:
        LanguageModelError: The server does not have the model, or does not respond.
    """
    with translated_errors(server):
        response = client.show(server.model)
        if response.details is None and response.modelinfo is None:
            raise server.malformed(f"it does not describe {server.model}.")
        lengths = [
            value
            for name, value in (response.modelinfo or {}).items()
            if name.endswith(".context_length") and isinstance(value, int) and value > 0
        ]
    capabilities = None if response.capabilities is None else tuple(response.capabilities)
    return ModelDescription(capabilities, min(lengths, default=None))


@contextmanager
def translated_errors(server: ModelServer) -> Iterator[None]:
    """Translate errors of the client and of the server into LanguageModelErrors.

    Raises:
        LanguageModelError: The request failed.
    """
    from ollama import ResponseError

    with server.translated_errors():
        try:
            yield
        except ResponseError as error:
            # Within a stream, errors of the client have no status.
            status = error.status_code if error.status_code > 0 else None
            raise server.error_for(status, str(error.error)) from None


def _url(host: str) -> str:
    """Parse an address as Ollama parses OLLAMA_HOST: without a scheme, the default port is Ollama's."""
    if not host or "://" in host:
        return host
    place, slash, path = host.partition("/")
    login, at, name = place.rpartition("@")
    if not re.search(r":\d+$", name):
        name += f":{PORT}"
    if name.startswith(":"):
        name = f"127.0.0.1{name}"
    return f"http://{login}{at}{name}{slash}{path}"


def described(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool's parameters with lists of types; the templates of models ignore anyOf."""
    properties = {name: _plain(schema) for name, schema in parameters.get("properties", {}).items()}
    return {**parameters, "properties": properties}


def _plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = schema.get("anyOf", ())
    types = [choice.get("type") for choice in choices]
    if not choices or not all(isinstance(kind, str) for kind in types):
        return schema
    merged = {name: value for choice in choices for name, value in choice.items()}
    return {**merged, **{name: value for name, value in schema.items() if name != "anyOf"}, "type": types}
