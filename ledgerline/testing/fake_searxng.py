"""A fake of SearXNG on loopback: its JSON API with results made up here, and its ways to fail."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ledgerline.testing.fake_http import FakeServer, Handler


def page(url: str, title: str = "", content: str = "", **fields: Any) -> dict[str, Any]:
    """One result, with the fields that SearXNG gives."""
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
    """What is answered to one query.

    Attributes:
        results: As SearXNG lists them.
        silent: Engines that did not answer, with the reason.
        status: Of HTTP.
        body: Instead of the JSON of all this.
        headers: More of them.
        waits: Whether nothing is answered until the end.
    """

    results: list[Any] = field(default_factory=list)
    silent: list[Any] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    waits: bool = False

    def content(self, query: str) -> bytes:
        """Return the body of the answer to a query."""
        if self.body is not None:
            return self.body
        return json.dumps(
            {
                "query": query,
                "number_of_results": 0,  # engines seldom tell
                "results": self.results,
                "answers": [],
                "corrections": [],
                "infoboxes": [],
                "suggestions": ["something else"],
                "unresponsive_engines": self.silent,
            }
        ).encode()


class FakeSearXNG(FakeServer):
    """Answers what it is told to.

    Attributes:
        reply: Gives what is answered to a query.
        formats: Of settings.yml.
        asked: The parameters of each search.
        headers: Of each search.
    """

    def __init__(self) -> None:
        self.handler = _Search
        self.reply: Callable[[str], Reply] = lambda _: Reply()
        self.formats = ["html", "json"]
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        super().__init__()


class _Search(Handler):
    server: Any

    def do_GET(self) -> None:  # noqa: N802 (its name in the library)
        fake: FakeSearXNG = self.server.fake
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        with fake.lock:
            fake.asked.append(asked)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
        if address.path != "/search":
            self.send(b"<!doctype html>not found", 404, {"Content-Type": "text/html"})
        elif asked.get("format") not in fake.formats:
            self.send(b"<!doctype html>Forbidden", 403, {"Content-Type": "text/html"})
        else:
            reply = fake.reply(asked["q"])
            if reply.waits:
                fake.stopping.wait()
            self.send(reply.content(asked["q"]), reply.status, reply.headers)
