"""Base class of the models of an Ollama server, which are in ollama_provider.py and ollama_embedder.py."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ledgerline.agent.failures import ModelServer
from ledgerline.agent.language_model import RefusedError, UnknownModelError
from ledgerline.agent.served_model import ServedModel
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


@dataclass(frozen=True, eq=False)
class OllamaServed(ServedModel["Client"]):
    """A model of an Ollama server, whose URL may have any form that OLLAMA_HOST accepts."""

    _known: list[ModelDescription] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def _server(self) -> ModelServer:
        return ModelServer(
            kind="Ollama",
            url=_url(self.url),
            model=self.model,
            start="Start it with `ollama serve`, or set OLLAMA_HOST to its address.",
            fetch=f"Get it with `ollama pull {self.model}`, or choose one that `ollama list` prints.",
            secrets=tuple(value.rpartition(" ")[2] for value in self.headers.values()),
        )

    @cached_property
    def _client(self) -> "Client":
        require("agent", "A language model of Ollama's")
        from ollama import Client

        from ledgerline.agent.transport import client_options

        # The client drops user and password of an address, so they are passed separately.
        options = client_options(self.connect_seconds, self._server.login)
        return Client(self.address, headers=dict(self.headers), **options)

    def _require_supported_version(self) -> None:
        """Refuse a version that always drops messages of a long conversation."""
        from ollama import ResponseError

        with self._translated_errors():
            try:
                # The client has no method for it.
                version = self._client._request_raw("GET", "/api/version").json()["version"]
            except ResponseError as error:
                if error.status_code == 404:
                    return  # another server may have Ollama's interface; the next request checks that
                raise
            numbers = tuple(map(int, re.findall(r"\d+", version.partition("-")[0])[:3]))
        if UNVERSIONED < numbers < MIN_VERSION:
            oldest = ".".join(map(str, MIN_VERSION))
            raise RefusedError(
                f"Ollama {version} at {self.address} silently drops messages of a long conversation.",
                f"Update it to {oldest} or later.",
            )

    def _describe(self) -> ModelDescription:
        """Request the server's description of the model."""
        with self._translated_errors():
            response = self._client.show(self.model)
            if response.details is None and response.modelinfo is None:
                raise self._server.malformed(f"it does not describe {self.model}.")
            lengths = [
                value
                for name, value in (response.modelinfo or {}).items()
                if name.endswith(".context_length") and isinstance(value, int) and value > 0
            ]
        capabilities = None if response.capabilities is None else tuple(response.capabilities)
        return ModelDescription(capabilities, min(lengths, default=None))

    def _require_capability(
        self, description: ModelDescription, capability: str, purpose: str, remedy: str
    ) -> None:
        if not description.can(capability):
            raise UnknownModelError(
                f"{self.model} of Ollama at {self.address} cannot {purpose}; its capabilities are: "
                f"{', '.join(description.capabilities or ())}.",
                remedy,
            )

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate errors of the client and of the server into LanguageModelErrors."""
        from ollama import ResponseError

        with self._server.translated_errors():
            try:
                yield
            except ResponseError as error:
                # Within a stream, errors of the client have no status.
                status = error.status_code if error.status_code > 0 else None
                raise self._server.error_for(status, str(error.error)) from None


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
