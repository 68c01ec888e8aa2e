"""Translates errors of HTTP and of model servers into LanguageModelErrors. Retries are in retrying.py."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ledgerline.agent.language_model import (
    ContextTooLongError,
    LanguageModelError,
    MalformedResponseError,
    RefusedError,
    ServerAbsentError,
    ServerAddressError,
    ServerBusyError,
    ServerFailedError,
    StreamBrokenError,
    TooSlowError,
    UnknownModelError,
)
from ledgerline.agent.retrying import deadline
from ledgerline.cleaning.texts import Cleaner

QUOTED_CHARACTERS = 300
CLOCK_SECONDS = 0.005  # a wait for the deadline may end this much too early

SHORTEN = "Ask a shorter question, or set LEDGERLINE_LLM_CONTEXT_TOKENS to a longer context."
READ_LOG = "Ask again; if it fails again, read the server's log."
CHOOSE_WITH_TOOLS = "Choose a model that can call tools."
CHOOSE_WITH_THINKING = "Choose a model that can think, or set LEDGERLINE_LLM_THINK to off or to nothing."


@dataclass(frozen=True)
class _Rule:
    """A rule that translates an error of a server, with templates of the problem and the remedy.

    The status None stands for an error within the stream; an empty set matches any status. The text is a
    regular expression that the server's message must match.
    """

    error: type[LanguageModelError]
    problem: str
    remedy: str
    statuses: frozenset[int | None] = frozenset()
    text: str = ""

    def matches(self, status: int | None, text: str) -> bool:
        has_status = not self.statuses or status in self.statuses
        return has_status and re.search(self.text, text, re.I | re.S) is not None


# The first rule that matches applies. The texts are those of Ollama, llama.cpp, vLLM and OpenAI.
_RULES = (
    _Rule(
        RefusedError,
        "{server} does not accept the credentials (status {status}): {message}",
        "Set a user and a password in its address, or a key, that it accepts.",
        frozenset({401, 403}),
    ),
    _Rule(
        RefusedError,
        "{server} redirects to another address (status {status}), which is not followed.",
        "Set its address to the one that it redirects to.",
        frozenset(range(300, 400)),
    ),
    _Rule(
        RefusedError,
        "The quota of this key at {server} is exhausted: {message}",
        "Raise its limit, or use another key.",
        text=r"insufficient_quota|exceeded your current quota",
    ),
    _Rule(
        ServerBusyError,
        "{server} is overloaded (status {status}): {message}",
        "Try again later, or run fewer executions at once (LEDGERLINE_AGENT_EXECUTIONS).",
        frozenset({429, 502, 503, 504}),
    ),
    _Rule(
        ContextTooLongError,
        "The conversation exceeds the context of {model}: {message}",
        SHORTEN,
        text=r"context_length_exceeded|prompt (is )?too long"
        r"|(exceed|maximum|longer than|larger than)[^.]{0,80}\b(context|model) (length|size|window)",
    ),
    _Rule(
        UnknownModelError,
        "{model} of {server} cannot call tools: {message}",
        CHOOSE_WITH_TOOLS,
        text=r"does not support tools|enable-auto-tool-choice|tools param requires",
    ),
    _Rule(
        UnknownModelError,
        "{model} of {server} does not support this setting for thinking: {message}",
        CHOOSE_WITH_THINKING,
        text=r"does not support thinking|think value|reasoning[_ ](effort|value)",
    ),
    _Rule(
        UnknownModelError,
        "{model} of {server} does not support conversations: {message}",
        "Choose a model that is made for conversations.",
        text=r"does not support chat",
    ),
    _Rule(
        UnknownModelError,
        "{server} does not accept {model} as the name of a model: {message}",
        "{fetch}",
        text=r"unqualified name|invalid model name|model is required",
    ),
    _Rule(
        MalformedResponseError,
        "{server} could not parse a tool call of {model}: {message}",
        "Ask again in other words; if it happens often, choose a model that calls tools more reliably.",
        text=r"pars\w+[^.]{0,30}tool call|failed to parse input",
    ),
    _Rule(
        UnknownModelError, "{server} has no model {model}: {message}", "{fetch}", frozenset({404}), "model"
    ),
    _Rule(
        StreamBrokenError,
        "{server} ended the response before it was complete: {message}",
        READ_LOG,
        frozenset({None}),
    ),
    _Rule(
        ServerFailedError,
        "{server} failed (status {status}): {message}",
        READ_LOG,
        frozenset(range(500, 600)),
    ),
    _Rule(RefusedError, "{server} refuses the request (status {status}): {message}", "Read its log."),
)


@dataclass(frozen=True)
class ModelServer:
    """A server of language models, as error messages describe it.

    Attributes:
        kind: Name of the software, such as "Ollama".
        url: Address, which may contain a user and a password; errors contain neither.
        start: Remedy if the server does not respond.
        fetch: Remedy if the server does not have the model.
        secrets: Texts that are redacted in the server's messages.
    """

    kind: str
    url: str = field(repr=False)
    model: str
    start: str
    fetch: str
    secrets: tuple[str | None, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        try:
            place = urlsplit(self.address)
            is_valid = bool(place.hostname) and place.port != 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ServerAddressError(
                f"{self.address!r} is not the address of a server.", "Use one like http://127.0.0.1:11434."
            )

    @property
    def address(self) -> str:
        """The URL of the server, without credentials."""
        scheme, colon, rest = self.url.partition("://")
        # Everything before the last @ may be part of a password that was not percent-encoded.
        place = (rest if colon else self.url).rpartition("@")[2]
        return f"{scheme if colon else 'http'}://{re.split('[?#]', place)[0].rstrip('/')}"

    @property
    def login(self) -> tuple[str, str] | None:
        """The user and the password of the URL, if it has them."""
        user, colon, password = self.url.rpartition("@")[0].rpartition("://")[2].partition(":")
        return (unquote(user), unquote(password)) if user or colon else None

    def error_for(self, status: int | None, text: str) -> LanguageModelError:
        """Return the LanguageModelError for an error that the server reports.

        Args:
            status: HTTP status of the response; None for an error within the stream.
            text: Message of the server.
        """
        rule = next(rule for rule in _RULES if rule.matches(status, text))
        words = {
            "server": self._named,
            "model": self.model,
            "status": status,
            "message": self._quoted(text),
            "fetch": self.fetch,
        }
        return rule.error(rule.problem.format(**words), rule.remedy.format(**words))

    def unknown_model(self, why: str = "") -> UnknownModelError:
        """Return the error for a model that the server does not have."""
        return UnknownModelError(f"{self._named} has no model {self.model}{why}.", self.fetch)

    def context_too_long(self, why: str) -> ContextTooLongError:
        """Return the error for a conversation that exceeds the context."""
        return ContextTooLongError(f"The conversation exceeds the context of {self.model}: {why}.", SHORTEN)

    def stream_broken(self, why: str) -> StreamBrokenError:
        """Return the error for a response that ended before it was complete."""
        return StreamBrokenError(
            f"{self._named} ended the response before it was complete: {self._quoted(why)}", READ_LOG
        )

    def malformed(self, why: str) -> MalformedResponseError:
        """Return the error for a response that does not follow the protocol."""
        return MalformedResponseError(
            f"The response of {self._named} does not follow the protocol: {self._quoted(why)}",
            f"Make sure that {self.kind} runs at this address, in a recent version.",
        )

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Translate errors of HTTP, and of malformed responses, into LanguageModelErrors.

        The new errors do not keep their causes, because a cause may contain an address with its password.

        Raises:
            LanguageModelError: The request failed.
        """
        import httpx

        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, ConnectionError) as error:
            raise self._transport_error(error) from None
        except json.JSONDecodeError as error:
            if _is_truncated(error):
                raise self.stream_broken("the last line is incomplete.") from None
            raise self.malformed(f"{error.msg}: {error.doc}") from None
        # These are the errors of the clients if a response has the wrong structure.
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise self.malformed(f"{type(error).__name__}: {error}") from None

    def _transport_error(self, error: Exception) -> LanguageModelError:
        import httpx

        limit = deadline()
        if limit.seconds_left <= CLOCK_SECONDS or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            return TooSlowError(
                f"The response of {self._named} was not complete within {limit.seconds:g} seconds.",
                "Raise LEDGERLINE_AGENT_SECONDS, ask a shorter question, or choose a smaller model.",
            )
        if isinstance(error, httpx.LocalProtocolError):
            return RefusedError(
                f"The request to {self._named} cannot be sent.",
                "Remove line breaks from its key and headers.",
            )
        if isinstance(
            error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | ConnectionError
        ):
            why = "no connection in time" if isinstance(error, httpx.ConnectTimeout) else str(error)
            return ServerAbsentError(
                f"No {self.kind} responds at {self.address}: {self._quoted(why)}", self.start
            )
        text = str(error)
        if isinstance(error, httpx.TransportError) and not (
            isinstance(error, httpx.RemoteProtocolError) and not re.search("disconnected|closed", text)
        ):
            return self.stream_broken(text or type(error).__name__)
        return self.malformed(text)

    @property
    def _named(self) -> str:
        return f"{self.kind} at {self.address}"

    def _quoted(self, text: str) -> str:
        quoted = Cleaner.of((*self.secrets, self.login and self.login[1]))(" ".join(text.split()))
        if len(quoted) > QUOTED_CHARACTERS:
            return f"{quoted[:QUOTED_CHARACTERS]}…"
        return quoted if quoted.endswith((".", "!", "?")) else f"{quoted}."


def _is_truncated(error: json.JSONDecodeError) -> bool:
    """Return True if the text is the beginning of a JSON object."""
    text = error.doc.strip()
    return text.startswith("{") and (not text.endswith("}") or error.pos >= len(error.doc.rstrip()))
