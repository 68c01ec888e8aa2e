"""A client of SearXNG's search API. Its results are merged and ranked in search_tool.py.

The API: https://docs.searxng.org/dev/search_api.html.
"""

import html
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from ledgerline.agent.language_model import ServerAddressError
from ledgerline.agent.retrying import time_limit
from ledgerline.agent.tools import ToolError
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import httpx

Recent = Literal["day", "month", "year"]

MAX_BYTES = 1_000_000  # of a response
MAX_RESULTS = 100  # of a response
MAX_URL_CHARACTERS = 500
MAX_TEXT_CHARACTERS = 2_000

STATUSES = {
    401: "it requires a user and a password in LEDGERLINE_SEARCH_URL",
    403: 'it does not return JSON: add "json" to search.formats in its settings.yml and restart it (if it is '
    "listed there, its limiter blocks this machine)",
    404: "there is no page at this address: set LEDGERLINE_SEARCH_URL to the part before /search",
    429: "there were too many searches: wait a minute, or turn its limiter off for this machine",
}

_SCRIPTS = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<!--.*?(?:-->|\Z)|</?[a-z][^<>]*>", re.IGNORECASE | re.DOTALL)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class SearchError(ToolError):
    """A search failed; the message never contains a password."""


@dataclass(frozen=True)
class WebResult:
    """A page in the results of a search; the title and the snippet are plain text in one line.

    Attributes:
        url: URL of http or https, without credentials.
        date: Date of publication, like 2026-01-31; empty if unknown.
        score: Score of SearXNG, which is roughly the sum of 1/position over the engines.
    """

    url: str
    title: str
    snippet: str
    date: str
    score: float


@dataclass(frozen=True)
class SearchResponse:
    """The response to a search.

    Attributes:
        unusable: Number of results that were dropped for an unusable address or wrong types.
        unresponsive_engines: Search engines that did not respond to SearXNG.
    """

    results: tuple[WebResult, ...]
    unusable: int
    unresponsive_engines: tuple[str, ...]


class SearXNG:
    """A client of a SearXNG server. Safe to use from several threads at once."""

    def __init__(self, url: str, language: str = "all") -> None:
        """Set up the client; no request is sent yet.

        Args:
            url: URL without /search; a user and a password in it are sent as basic authentication.
            language: SearXNG's code of the language of the results.

        Raises:
            ServerAddressError: The URL is not an address of http or https.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = parts = None
        if parts is None or host is None or parts.scheme not in ("http", "https"):
            raise ServerAddressError(
                "The address of SearXNG is not a URL of http or https.", "Set LEDGERLINE_SEARCH_URL to one."
            )
        netloc = f"[{host}]" if ":" in host else host
        self.url = urlunsplit(
            (parts.scheme, f"{netloc}:{port}" if port else netloc, parts.path.rstrip("/"), "", "")
        )
        self._login = (
            (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
        )
        self._language = language

    def search(self, query: str, recent: Recent | None, seconds: float) -> SearchResponse:
        """Send one search request, with a time limit of the whole response.

        Raises:
            SearchError: The request failed, or its response is unusable.
        """
        require("agent", "A search of the web")
        import httpx

        try:
            with time_limit(seconds):
                return _parsed(self._get(query, recent))
        except httpx.TimeoutException as error:
            raise self._failed(f"it did not respond within {max(seconds, 0):.1f} seconds") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(
                f"it cannot be reached, or the connection broke ({type(error).__name__})"
            ) from error
        except (ValueError, RecursionError) as error:
            raise self._failed("its response is not SearXNG's JSON: check LEDGERLINE_SEARCH_URL") from error

    def close(self) -> None:
        """Close the connections to the server."""
        self._client.close()

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        from ledgerline.agent.transport import client_options

        return httpx.Client(**client_options(connect_seconds=5, login=self._login))

    def _get(self, query: str, recent: Recent | None) -> bytes:
        fixed = {"format": "json", "language": self._language, "pageno": 1, "safesearch": 1}
        parameters = {"q": query, **fixed, **({"time_range": recent} if recent else {})}
        # Compression is off, since a compressed response may be a thousand times larger than the bytes that
        # are received.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        request = self._client.build_request("GET", f"{self.url}/search", params=parameters, headers=headers)
        with closing(self._client.send(request, stream=True)) as response:
            if response.is_redirect:
                raise self._failed("it redirects to another address: set LEDGERLINE_SEARCH_URL to that one")
            if response.status_code != 200:
                raise self._failed(
                    STATUSES.get(response.status_code, f"its status is {response.status_code}")
                )
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise self._failed(f"its response is longer than {MAX_BYTES:,} bytes")
            return bytes(body)

    def _failed(self, why: str) -> SearchError:
        return SearchError(f"SearXNG at {self.url} failed: {why}.")


def plain_text(text: object) -> str:
    """Return a text in one line without HTML and invisible characters; empty if the value is not a text."""
    if not isinstance(text, str):
        return ""
    visible = _TAGS.sub(" ", _SCRIPTS.sub(" ", html.unescape(text[: 4 * MAX_TEXT_CHARACTERS])))
    # These categories are control, format (directions, invisible tags), surrogate, private and unassigned
    # characters.
    kept = (
        " " if character.isspace() else character
        for character in visible
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return " ".join("".join(kept).split())[:MAX_TEXT_CHARACTERS]


def _parsed(body: bytes) -> SearchResponse:
    content = json.loads(body)
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise ValueError("it has no results")
    listed = enumerate(content["results"][:MAX_RESULTS], 1)
    results = [result for place, fields in listed if (result := _result(fields, place)) is not None]
    unresponsive = content.get("unresponsive_engines")
    return SearchResponse(
        results=tuple(results),
        unusable=len(content["results"]) - len(results),
        # Each item is a pair of an engine and a reason.
        unresponsive_engines=tuple(
            plain_text(pair[0])[:50]
            for pair in (unresponsive if isinstance(unresponsive, list) else ())
            if isinstance(pair, list) and pair and plain_text(pair[0])
        ),
    )


def _result(fields: object, place: int) -> WebResult | None:
    if not isinstance(fields, Mapping) or not _is_usable(fields.get("url")):
        return None
    title, snippet = plain_text(fields.get("title")), plain_text(fields.get("content"))
    if not title and not snippet:
        return None
    date = fields.get("publishedDate")
    published = _DATE.match(date) if isinstance(date, str) else None
    return WebResult(
        url=fields["url"],
        title=title,
        snippet=snippet,
        date=published[0] if published else "",
        score=_score(fields.get("score"), place),
    )


def _is_usable(url: Any) -> bool:
    if not isinstance(url, str) or len(url) > MAX_URL_CHARACTERS or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _score(score: object, place: int) -> float:
    if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score) and score >= 0:
        return float(score)
    return 1 / place
