"""What the errors of a language model's server, and of the way to it, mean. Asking again: retrying.py."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ledgerline.agent.language_model import (
    ContextTooLongError,
    LanguageModelError,
    MalformedAnswerError,
    RefusedError,
    ServerAbsentError,
    ServerBusyError,
    ServerFailedError,
    StreamBrokenError,
    TooSlowError,
    UnknownModelError,
)
from ledgerline.agent.retrying import deadline
from ledgerline.cleaning.texts import Cleaner

QUOTED_CHARACTERS = 300
CLOCK_SECONDS = 0.005  # a wait may end this much before its time

SHORTEN = "Ask for less at once, or give the model a longer context."
TOOLLESS = "Choose a model that can call tools."
UNTHINKING = "Choose a model that can think, or set LEDGERLINE_LLM_THINK to off or to nothing."


@dataclass(frozen=True)
class _Meaning:
    """Which errors of a server are which of ours.

    Attributes:
        statuses: Of the HTTP answer; None is an error within the stream, an empty set means any.
        text: Found in what the server says.
    """

    error: type[LanguageModelError]
    problem: str
    remedy: str
    statuses: frozenset[int | None] = frozenset()
    text: str = ""

    def fits(self, status: int | None, text: str) -> bool:
        return (not self.statuses or status in self.statuses) and bool(
            re.search(self.text, text, re.I | re.S)
        )


# The first that fits. What servers say: Ollama, llama.cpp, vLLM, OpenAI.
_MEANINGS = (
    _Meaning(
        RefusedError,
        "{server} does not accept the credentials (status {status}): {said}",
        "Give it a user and password in its address, or a key, that it knows.",
        frozenset({401, 403}),
    ),
    _Meaning(
        RefusedError,
        "{server} sends to another address (status {status}), which is not followed.",
        "Name the address where it really is.",
        frozenset(range(300, 400)),
    ),
    _Meaning(
        RefusedError,
        "{server} gives no more to this key: {said}",
        "Look at its limits and what it has used.",
        text=r"insufficient_quota|exceeded your current quota",
    ),
    _Meaning(
        ServerBusyError,
        "{server} has too much to do (status {status}): {said}",
        "Try again later, or ask fewer questions at once.",
        frozenset({429, 502, 503, 504}),
    ),
    _Meaning(
        ContextTooLongError,
        "The conversation is longer than {model} takes in: {said}",
        SHORTEN,
        text=r"context_length_exceeded|prompt (is )?too long"
        r"|(exceed|maximum|longer than|larger than)[^.]{0,80}\b(context|model) (length|size|window)",
    ),
    _Meaning(
        UnknownModelError,
        "{model} of {server} cannot call tools: {said}",
        TOOLLESS,
        text=r"does not support tools|enable-auto-tool-choice|tools param requires",
    ),
    _Meaning(
        UnknownModelError,
        "{model} of {server} cannot think like that: {said}",
        UNTHINKING,
        text=r"does not support thinking|think value|reasoning[_ ](effort|value)",
    ),
    _Meaning(
        UnknownModelError,
        "{model} of {server} cannot have a conversation: {said}",
        "Choose a model that is made for conversations.",
        text=r"does not support chat",
    ),
    _Meaning(
        UnknownModelError,
        "{model} is no name of a model to {server}: {said}",
        "{fetch}",
        text=r"unqualified name|invalid model name|model is required",
    ),
    _Meaning(
        MalformedAnswerError,
        "{server} could not read how {model} calls a tool: {said}",
        "Ask again, in other words; if it happens often, choose a model that calls tools more reliably.",
        text=r"pars\w+[^.]{0,30}tool call|failed to parse input",
    ),
    _Meaning(
        UnknownModelError, "{server} has no model {model}: {said}", "{fetch}", frozenset({404}), "model"
    ),
    _Meaning(
        StreamBrokenError,
        "{server} broke off its answer: {said}",
        "Ask again; what happened to it is in its log.",
        frozenset({None}),
    ),
    _Meaning(
        ServerFailedError,
        "{server} failed (status {status}): {said}",
        "Ask again; what happened to it is in its log.",
        frozenset(range(500, 600)),
    ),
    _Meaning(
        RefusedError, "{server} refuses (status {status}): {said}", "What happened to it is in its log."
    ),
)


@dataclass(frozen=True)
class ModelServer:
    """A server of language models, as errors speak of it.

    Attributes:
        kind: What it is: "Ollama".
        url: Its address, which may hold a user and a password; neither is ever shown.
        model: Which of its models is asked for.
        start: What to do if nobody answers there.
        fetch: What to do if it does not have the model.
        secrets: Not to be repeated from what the server says.
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
            is_one = bool(place.hostname) and place.port != 0
        except ValueError:
            is_one = False
        if not is_one:
            raise ValueError(f"{self.address!r} is no address of a server, like http://127.0.0.1:11434.")

    @property
    def address(self) -> str:
        """Its URL, without credentials."""
        scheme, colon, rest = self.url.partition("://")
        # Everything before the last @ may be part of a password that was not quoted.
        place = (rest if colon else self.url).rpartition("@")[2]
        return f"{scheme if colon else 'http'}://{re.split('[?#]', place)[0].rstrip('/')}"

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password, if its URL holds them."""
        user, colon, password = self.url.rpartition("@")[0].rpartition("://")[2].partition(":")
        return (unquote(user), unquote(password)) if user or colon else None

    def says(self, status: int | None, text: str) -> LanguageModelError:
        """What an error that the server answers with means.

        Args:
            status: Of the HTTP answer; None if it came within the stream.
            text: What the server says.
        """
        meaning = next(meaning for meaning in _MEANINGS if meaning.fits(status, text))
        words = {
            "server": self._named,
            "model": self.model,
            "status": status,
            "said": self._quoted(text),
            "fetch": self.fetch,
        }
        return meaning.error(meaning.problem.format(**words), meaning.remedy.format(**words))

    def lacks_model(self, why: str = "") -> UnknownModelError:
        """It does not have the model."""
        return UnknownModelError(f"{self._named} has no model {self.model}{why}.", self.fetch)

    def too_long(self, why: str) -> ContextTooLongError:
        """The conversation does not fit."""
        return ContextTooLongError(f"The conversation is longer than {self.model} takes in: {why}.", SHORTEN)

    def broke_off(self, why: str) -> StreamBrokenError:
        """The answer has no end."""
        return StreamBrokenError(
            f"{self._named} broke off its answer: {self._quoted(why)}",
            "Ask again; what happened to it is in its log.",
        )

    def unreadable(self, why: str) -> MalformedAnswerError:
        """The answer is not what it should look like."""
        return MalformedAnswerError(
            f"What {self._named} answers cannot be read: {self._quoted(why)}",
            f"Make sure that there is {self.kind} at this address, in a version that is not too old.",
        )

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what goes wrong on the way to the server, or with the form of its answers, into our errors.

        The causes are left out of them: they may show an address with its password.

        Raises:
            LanguageModelError: Something went wrong.
        """
        import httpx

        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, ConnectionError) as error:
            raise self._lost(error) from None
        except json.JSONDecodeError as error:
            if _is_half(error):
                raise self.broke_off("the last line is cut off.") from None
            raise self.unreadable(f"{error.msg}: {error.doc}") from None
        # What the clients stumble over when an answer has the wrong shape.
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise self.unreadable(f"{type(error).__name__}: {error}") from None

    def _lost(self, error: Exception) -> LanguageModelError:
        import httpx

        limit = deadline()
        if limit.seconds_left <= CLOCK_SECONDS or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            return TooSlowError(
                f"{self._named} did not answer to the end within {limit.seconds:g} seconds.",
                "Give it more time, ask for less, or choose a smaller model.",
            )
        if isinstance(error, httpx.LocalProtocolError):
            return RefusedError(
                f"The request to {self._named} cannot be sent.", "Look for line breaks in its key or headers."
            )
        if isinstance(
            error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | ConnectionError
        ):
            why = "no connection in time" if isinstance(error, httpx.ConnectTimeout) else str(error)
            return ServerAbsentError(
                f"No {self.kind} answers at {self.address} ({self._quoted(why)}).", self.start
            )
        text = str(error)
        if isinstance(error, httpx.TransportError) and not (
            isinstance(error, httpx.RemoteProtocolError) and not re.search("disconnected|closed", text)
        ):
            return self.broke_off(text or type(error).__name__)
        return self.unreadable(text)

    @property
    def _named(self) -> str:
        return f"{self.kind} at {self.address}"

    def _quoted(self, text: str) -> str:
        quoted = Cleaner.of((*self.secrets, self.login and self.login[1]))(" ".join(text.split()))
        return quoted if len(quoted) <= QUOTED_CHARACTERS else f"{quoted[:QUOTED_CHARACTERS]}…"


def _is_half(error: json.JSONDecodeError) -> bool:
    """Whether the text is the beginning of an object."""
    text = error.doc.strip()
    return text.startswith("{") and (not text.endswith("}") or error.pos >= len(error.doc.rstrip()))
