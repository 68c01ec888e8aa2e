"""A hook of mkdocs.yml that adds the Markdown files in the root of the repository as pages."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
# Front matter that ranks a page after others in search results.
LAST_IN_SEARCH = {"CHANGELOG.md": "---\nsearch:\n  boost: 0.2\n---\n\n"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        text = with_links_of_the_site((root / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=LAST_IN_SEARCH.get(name, "") + text))
    return files


def with_links_of_the_site(text: str) -> str:
    """Convert links in a file of the root to links to the site's pages, and remove links to other files."""
    text = text.replace("](docs/", "](")
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return re.sub(r"\[([^\]]*)\]\((?:LICENSE|tests/README\.md)\)", r"\1", text)
