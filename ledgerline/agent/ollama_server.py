"""An Ollama server as its models are asked there: its address, its errors, what it says of a model.

Models: ollama_provider.py, ollama_embedder.py.
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
# The first that can be told not to drop messages, of those that were tried and read.
OLDEST_VERSION = (0, 12, 6)
UNVERSIONED = (0, 0, 0)  # a build without a version number


@dataclass(frozen=True)
class ShownModel:
    """The description of a model that a server gives.

    Attributes:
        capabilities: "completion", "tools", "thinking", "embedding" ...; None: the version does not say.
        context_tokens: The longest conversation that the model was made for; None: it does not say.
    """

    capabilities: tuple[str, ...] | None
    context_tokens: int | None

    def can(self, capability: str) -> bool:
        """Return whether the model has a capability; True if the server does not list capabilities."""
        return not self.capabilities or capability in self.capabilities

    @property
    def abilities(self) -> str:
        """The model's capabilities, in words."""
        return ", ".join(self.capabilities or ()) or "nothing"


def server_of(host: str, model: str, headers: Mapping[str, str]) -> ModelServer:
    """Return the server at an address as Ollama reads OLLAMA_HOST.

    Raises:
        ValueError: It is not an address.
    """
    return ModelServer(
        kind="Ollama",
        url=_url(host),
        model=model,
        start="Start it with `ollama serve`, or set OLLAMA_HOST to where it runs.",
        fetch=f"Get it with `ollama pull {model}`, or choose one that `ollama list` names.",
        secrets=tuple(value.rpartition(" ")[2] for value in headers.values()),
    )


def client_of(server: ModelServer, connect_seconds: float, headers: Mapping[str, str]) -> "Client":
    """Return a client that keeps its caller's deadline."""
    require("agent", "A language model of Ollama's")
    from ollama import Client

    from ledgerline.agent.transport import client_options

    # The client drops user and password of an address, so they are told apart from it.
    return Client(server.address, headers=dict(headers), **client_options(connect_seconds, server.login))


def require_honest(server: ModelServer, client: "Client") -> None:
    """Refuse a version that drops messages of a long conversation whatever it is told.

    Raises:
        LanguageModelError: It is too old, or does not answer.
    """
    from ollama import ResponseError

    with failures(server):
        try:
            said = client._request_raw("GET", "/api/version").json()["version"]  # it has no method for it
        except ResponseError as error:
            if error.status_code == 404:
                return  # something else with Ollama's interface; whether it is that, the next request tells
            raise
        numbers = tuple(map(int, re.findall(r"\d+", said.partition("-")[0])[:3]))
    if UNVERSIONED < numbers < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise RefusedError(
            f"Ollama {said} at {server.address} drops messages of a long conversation without saying so.",
            f"Update it to {oldest} or later, which can be told not to.",
        )


def show(server: ModelServer, client: "Client") -> ShownModel:
    """Ask what the server says of the model.

    Raises:
        LanguageModelError: It does not have it, or does not answer.
    """
    with failures(server):
        shown = client.show(server.model)
        if shown.details is None and shown.modelinfo is None:
            raise server.unreadable(f"it shows nothing of {server.model}.")
        lengths = [
            value
            for name, value in (shown.modelinfo or {}).items()
            if name.endswith(".context_length") and isinstance(value, int) and value > 0
        ]
    capabilities = None if shown.capabilities is None else tuple(shown.capabilities)
    return ShownModel(capabilities, min(lengths, default=None))


@contextmanager
def failures(server: ModelServer) -> Iterator[None]:
    """Turn what goes wrong with the client, or the server says, into our errors.

    Raises:
        LanguageModelError: Something went wrong.
    """
    from ollama import ResponseError

    with server.failures():
        try:
            yield
        except ResponseError as error:
            # The client has no status for an error within the stream.
            status = error.status_code if error.status_code > 0 else None
            raise server.says(status, str(error.error)) from None


def _url(host: str) -> str:
    """Return an address as Ollama reads OLLAMA_HOST: without a scheme, the port is Ollama's by default."""
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
    """Return a tool's parameters with lists of types in place of anyOf, which templates leave out."""
    properties = {name: _plain(schema) for name, schema in parameters.get("properties", {}).items()}
    return {**parameters, "properties": properties}


def _plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = schema.get("anyOf", ())
    types = [choice.get("type") for choice in choices]
    if not choices or not all(isinstance(kind, str) for kind in types):
        return schema
    merged = {name: value for choice in choices for name, value in choice.items()}
    return {**merged, **{name: value for name, value in schema.items() if name != "anyOf"}, "type": types}
