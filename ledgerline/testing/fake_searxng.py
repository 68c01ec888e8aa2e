"""A fake of SearXNG on loopback: its JSON API with given results and failures."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ledgerline.testing.fake_http import FakeServer, Handler


def page(url: str, title: str = "", content: str = "", **fields: Any) -> dict[str, Any]:
    """Return one result with the fields of SearXNG."""
    return {
        "url": url,
        "title": title or f"Title of {url}",
        "content": content or f"Content of {url}",
        "thumbnail": None,
        "engine": "duckduckgo",
        "template": "default.html",
        "parsed_url": [*urlsplit(url), ""],
        "img_src": "",
        "priority": "",
        "engines": ["duckduckgo", "brave"],
        "positions": [1, 2],
        "score": 1.0,
        "category": "general",
        "publishedDate": None,
        **fields,
    }


@dataclass
class Reply:
    """The response to one query.

    Attributes:
        results: Results in the form of SearXNG.
        unresponsive_engines: Engines that did not respond, each with the reason.
        body: Body that is sent instead of JSON.
        waits: True to send no response until the end.
    """

    results: list[Any] = field(default_factory=list)
    unresponsive_engines: list[Any] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    waits: bool = False

    def content(self, query: str) -> bytes:
        """Return the body of the response to a query."""
        if self.body is not None:
            return self.body
        return json.dumps(
            {
                "query": query,
                "number_of_results": 0,  # most engines do not report it
                "results": self.results,
                "answers": [],
                "corrections": [],
                "infoboxes": [],
                "suggestions": ["something else"],
                "unresponsive_engines": self.unresponsive_engines,
            }
        ).encode()


class FakeSearXNG(FakeServer):
    """Responds to searches with given results.

    Attributes:
        formats: Formats in settings.yml.
        searches: Parameters of each search.
        headers: Headers of each search.
    """

    def __init__(self) -> None:
        self.handler = _Search
        self.reply: Callable[[str], Reply] = lambda _: Reply()
        self.formats = ["html", "json"]
        self.searches: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        super().__init__()


class _Search(Handler):
    def do_GET(self) -> None:  # noqa: N802 (its name in the library)
        fake: FakeSearXNG = self.server.owner
        address = urlsplit(self.path)
        parameters = {name: values[0] for name, values in parse_qs(address.query).items()}
        with fake.lock:
            fake.searches.append(parameters)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
        if address.path != "/search":
            self.send(b"<!doctype html>not found", 404, {"Content-Type": "text/html"})
        elif parameters.get("format") not in fake.formats:
            self.send(b"<!doctype html>Forbidden", 403, {"Content-Type": "text/html"})
        else:
            reply = fake.reply(parameters["q"])
            if reply.waits:
                fake.stopping.wait()
            self.send(reply.content(parameters["q"]), reply.status, reply.headers)
