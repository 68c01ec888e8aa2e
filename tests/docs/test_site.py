"""Tests that the site builds strictly, its links work, and no page loads anything from another host."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")

# A browser loads these with a page.
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """Collects the addresses that a page loads, those that it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        if tag == "a":
            self.links.append(attributes.get("href", ""))
        elif tag in LOADED and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(attributes.get(LOADED[tag], ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; building it takes some seconds, and fails at any warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_no_page_loads_anything_from_another_host(pages: dict[Path, Page]) -> None:
    assert len(pages) > 40
    loaded = {address for page in pages.values() for address in page.loaded}
    assert {address for address in loaded if urlsplit(address).netloc} == set()


def test_styles_load_nothing_from_another_host(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert len(styles) > 1
    imported = re.compile(r"(?:url\(|@import )\s*[\"']?(?:https?:)?//")
    assert [path.name for path in styles if imported.search(path.read_text(encoding="utf-8"))] == []


def test_each_link_within_the_site_goes_to_a_page_and_an_anchor_that_exist(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are absolute, as it is served at any address
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not link:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            has_anchor = target not in pages or not parts.fragment or parts.fragment in pages[target].anchors
            if not target.is_file() or not has_anchor:
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_the_search_index_has_the_pages_and_the_api(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for page in ("tutorial.html", "changelog.html", "contributing.html", "decisions/index.html"):
        assert f'"location":"{page}' in index
    assert "ledgerline.dagster.released_models.declaration.ReleasedModel" in index


def test_links_between_markdown_files_of_the_repository_work() -> None:
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("findings/*.md"),
        *ROOT.glob("tests/*.md"),
    ]
    links = [(path, target) for path in files for target, _ in LINK.findall(path.read_text(encoding="utf-8"))]
    assert len(links) > 60
    broken = [
        f"{path.relative_to(ROOT)}: {target}" for path, target in links if not (path.parent / target).exists()
    ]
    # Pages of the site that are made of files in the root.
    made = {"contributing.md", "security.md", "changelog.md"}
    assert [each for each in broken if each.rpartition("/")[2] not in made] == []
