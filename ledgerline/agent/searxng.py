"""Asks a SearXNG server for web results. What becomes of them: search_tool.py.

Its API: https://docs.searxng.org/dev/search_api.html.
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

from ledgerline.agent.retrying import ending_within
from ledgerline.agent.tools import ToolError
from ledgerline.settings.extras import require

if TYPE_CHECKING:
    import httpx

Recent = Literal["day", "month", "year"]

MAX_BYTES = 1_000_000  # of an answer
MAX_RESULTS = 100  # of an answer
LONGEST_URL = 500
LONGEST_TEXT = 2_000

FORBIDDEN = (
    'it does not give JSON: add "json" to search.formats in its settings.yml and start it again (if it is '
    "there, its limiter keeps this machine out)"
)
STATUSES = {
    401: "it wants a user and a password in LEDGERLINE_SEARCH_URL",
    403: FORBIDDEN,
    404: "there is nothing at this address: LEDGERLINE_SEARCH_URL is the one before /search",
    429: "there were too many searches: wait a minute, or turn its limiter off for this machine",
}

_SCRIPTS = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<!--.*?(?:-->|\Z)|</?[a-z][^<>]*>", re.IGNORECASE | re.DOTALL)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class SearchError(ToolError):
    """There is no answer to a search; the message says why, and never holds a password."""


@dataclass(frozen=True)
class WebResult:
    """A page that was found.

    Attributes:
        url: Of http or https, without a login.
        title: Plain text in one line.
        snippet: The same.
        date: When it was published, like 2026-01-31; empty if that is not known.
        score: SearXNG's: the sum of one over the place that each engine gave it, roughly.
    """

    url: str
    title: str
    snippet: str
    date: str
    score: float


@dataclass(frozen=True)
class WebAnswer:
    """What a search found.

    Attributes:
        results: The best first.
        unusable: How many more had no usable address, or wrong types.
        silent: Search engines that gave SearXNG no answer.
    """

    results: tuple[WebResult, ...]
    unusable: int
    silent: tuple[str, ...]


class SearXNG:
    """A server of SearXNG. Any number of threads may use it."""

    def __init__(self, url: str, language: str = "all") -> None:
        """Nothing is asked yet.

        Args:
            url: Without /search; a user and a password in it are sent as basic authentication.
            language: SearXNG's code of the results' language.

        Raises:
            ValueError: The address is none of http or https.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = parts = None
        if parts is None or host is None or parts.scheme not in ("http", "https"):
            raise ValueError("The address of SearXNG is no address of http or https: LEDGERLINE_SEARCH_URL.")
        netloc = f"[{host}]" if ":" in host else host
        self.url = urlunsplit(
            (parts.scheme, f"{netloc}:{port}" if port else netloc, parts.path.rstrip("/"), "", "")
        )
        self._login = (
            (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
        )
        self._language = language

    def search(self, query: str, recent: Recent | None, seconds: float) -> WebAnswer:
        """Search once.

        Args:
            query: What for.
            recent: How old pages may be.
            seconds: How long to wait for the whole answer.

        Raises:
            SearchError: There is no usable answer.
        """
        require("agent", "A search of the web")
        import httpx

        try:
            with ending_within(seconds):
                return _parsed(self._get(query, recent))
        except httpx.TimeoutException as error:
            raise self._failed(f"it did not answer within {max(seconds, 0):.1f} seconds") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(f"it cannot be reached, or breaks off ({type(error).__name__})") from error
        except (ValueError, RecursionError) as error:
            raise self._failed("its answer is no JSON of SearXNG's: is LEDGERLINE_SEARCH_URL one?") from error

    def close(self) -> None:
        """End what is open."""
        self._client.close()

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        from ledgerline.agent.transport import client_options

        return httpx.Client(**client_options(connect_seconds=5, login=self._login))

    def _get(self, query: str, recent: Recent | None) -> bytes:
        parameters: dict[str, str | int] = {
            "q": query,
            "format": "json",
            "language": self._language,
            "pageno": 1,
            "safesearch": 1,
        }
        if recent:
            parameters["time_range"] = recent
        # Not compressed: a megabyte of zeros is a kilobyte on the way.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        request = self._client.build_request("GET", f"{self.url}/search", params=parameters, headers=headers)
        with closing(self._client.send(request, stream=True)) as response:
            if response.is_redirect:
                raise self._failed("it sends to another address: LEDGERLINE_SEARCH_URL has to be that one")
            if response.status_code != 200:
                raise self._failed(
                    STATUSES.get(response.status_code, f"its answer is an error: {response.status_code}")
                )
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise self._failed(f"its answer is longer than {MAX_BYTES:,} bytes")
            return bytes(body)

    def _failed(self, why: str) -> SearchError:
        return SearchError(f"SearXNG at {self.url} gave no results: {why}.")


def plain(text: object) -> str:
    """A text without HTML and whatever cannot be seen, in one line; empty if it is none."""
    if not isinstance(text, str):
        return ""
    shown = _TAGS.sub(" ", _SCRIPTS.sub(" ", html.unescape(text[: 4 * LONGEST_TEXT])))
    # Control, format (directions, invisible tags), surrogate and private characters.
    kept = (
        " " if character.isspace() else character
        for character in shown
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return " ".join("".join(kept).split())[:LONGEST_TEXT]


def _parsed(body: bytes) -> WebAnswer:
    content = json.loads(body)
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise ValueError("it has no results")
    found = content["results"][:MAX_RESULTS]
    results = [
        result for place, fields in enumerate(found, 1) if (result := _result(fields, place)) is not None
    ]
    silent = content.get("unresponsive_engines")
    return WebAnswer(
        results=tuple(results),
        unusable=len(content["results"]) - len(results),
        # Each a pair of the engine and the reason.
        silent=tuple(
            plain(pair[0])[:50]
            for pair in (silent if isinstance(silent, list) else ())
            if isinstance(pair, list) and pair and plain(pair[0])
        ),
    )


def _result(fields: object, place: int) -> WebResult | None:
    if not isinstance(fields, Mapping) or not _is_usable(fields.get("url")):
        return None
    title, snippet = plain(fields.get("title")), plain(fields.get("content"))
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
    if not isinstance(url, str) or len(url) > LONGEST_URL or not url.isprintable() or " " in url:
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
