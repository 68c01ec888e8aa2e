"""Checks the project's English: how docstrings and comments begin, and which words are not used.

The glossary in CONTRIBUTING.md has the words to use instead.
Run it as `python -m checks.prose [--list] [PATH ...]`.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_FRAGMENTS = 0.03  # share of all docstrings and comments; httpx, attrs and dagster-ray have 0 to 2 %

# A docstring or comment that begins like this is rarely a whole sentence.
FRAGMENT = re.compile(
    r"(Of|As|What|Whatever|Who|Whose|Whom|Whoever|Where|Its|By|From|Which|That|Whether|Than|Also|Likewise)\b"
)

# Parts of names, in snake case, for which the field has a more precise word.
NAME_PARTS = frozenset(
    [
        "asking",
        "came",
        "company",
        "contradiction",
        "contradictions",
        "crowd",
        "found",
        "judge",
        "judged",
        "judgement",
        "judgements",
        "judges",
        "look",
        "looked",
        "looks",
        "predictor",
        "said",
        "settled",
        "shown",
        "spoken",
        "standing",
        "standings",
        "told",
        "wake",
        "woken",
    ]
)
# The same words with another meaning.
NAMES = re.compile(r"not_found|file_not_found_error|looked_up|look_up|told_apart")
CONSTANT = re.compile(r"_?(MOST|LEAST|LARGEST)_[A-Z]")

# Phrases in docstrings, comments, messages and pages.
PHRASE = re.compile(
    r"\b(somebody|nobody|whoever|who answers?|(?-i:(?:is|are) none)|that (?:is|are) no|contradictions?"
    r"|judg(?:e|es|ed|ing|ements?|ments?)|wake-ups?|woken|take[ns]? over|took over|taking over"
    r"|drawn together|look(?:s|ed|ing)? at|no sooner)\b",
    re.IGNORECASE,
)
# Files in which a listed word is data, or a name of another library, with the reason.
ALLOWED = {
    "checks/prose.py": "lists the words",
    "ledgerline/registry/journal.py": "reads journals that earlier versions wrote",
    "ledgerline/dagster/released_models/polls.py": "reads cursors that earlier versions wrote",
    "CHANGELOG.md": "names what was renamed",
    "CONTRIBUTING.md": "has the glossary",
}

CODE = ("ledgerline", "assets", "pipelines", "resources", "benchmarks", "checks", "docker")
TESTS = ("tests",)


@dataclass(frozen=True, order=True)
class Passage:
    """A docstring, a comment or a text of the code.

    Attributes:
        path: The file.
        line: Its first line, counted from 1.
        text: Its content, without quotes and hash signs.
        is_prose: True for docstrings and comments; False for other texts, such as messages.
    """

    path: Path
    line: int
    text: str
    is_prose: bool

    @property
    def is_fragment(self) -> bool:
        """True if it begins like a part of a sentence."""
        return self.is_prose and FRAGMENT.match(self.text) is not None


def passages(path: Path) -> Iterator[Passage]:
    """Yield the passages of a Python file."""
    source = path.read_text(encoding="utf-8")
    docstrings = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                docstrings.add(child.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Passage(path, node.lineno, node.value.strip(), node in docstrings)
    yield from _comments(path, source)


def _comments(path: Path, source: str) -> Iterator[Passage]:
    """Yield comments. Consecutive lines form one comment."""
    lines: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string.lstrip("#!").strip()
        row, column = token.start
        is_alone = not token.line[:column].strip()
        if lines and is_alone and row == last + 1:
            lines.append(text)
        else:
            if lines:
                yield Passage(path, first, " ".join(lines), is_prose=True)
            lines, first = [text], row
        last = row if is_alone else -1
    if lines:
        yield Passage(path, first, " ".join(lines), is_prose=True)


def listed_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines and names of a Python file that have a listed part."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.NAME:
            continue
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", token.string).lower()
        parts = NAMES.sub("", name).split("_")
        if CONSTANT.match(token.string) or NAME_PARTS.intersection(parts):
            yield token.start[0], token.string


def listed_phrases(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the lines and phrases that are listed."""
    for line, text in texts:
        for match in PHRASE.finditer(text):
            yield line + text[: match.start()].count("\n"), match.group()


def main() -> int:
    """Print the passages to correct; return 1 if there are any, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--list", action="store_true", help="print each fragment, and not only how many there are"
    )
    parser.add_argument("paths", nargs="*", help="files and folders; default: all")
    arguments = parser.parse_args()
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *arguments.paths],
        capture_output=True,
        text=True,
        check=True,
    )
    files = [Path(name) for name in listing.stdout.splitlines() if Path(name).is_file()]
    python = [path for path in files if path.suffix == ".py" and path.parts[0] in CODE + TESTS]
    listed: list[str] = []
    total, fragments = 0, []
    for path in python:
        texts = list(passages(path))
        total += sum(passage.is_prose for passage in texts)
        fragments += [passage for passage in texts if passage.is_fragment]
        if path.parts[0] in CODE and str(path) not in ALLOWED:
            listed += [f"{path}:{line}: {name}" for line, name in listed_names(path)]
            phrases = listed_phrases((passage.line, passage.text) for passage in texts)
            listed += [f"{path}:{line}: {phrase}" for line, phrase in phrases]
    for path in files:
        if path.suffix == ".md" and str(path) not in ALLOWED:
            phrases = listed_phrases([(1, path.read_text(encoding="utf-8"))])
            listed += [f"{path}:{line}: {phrase}" for line, phrase in phrases]
    share = len(fragments) / total if total else 0.0
    if arguments.list or share > MAX_FRAGMENTS:
        for passage in fragments:
            print(f"{passage.path}:{passage.line}: begins like a fragment: {passage.text.splitlines()[0]}")
    for line in listed:
        print(f"{line} is a listed word")
    print(f"{len(fragments)} of {total} docstrings and comments begin like a fragment ({share:.1%}).")
    return int(share > MAX_FRAGMENTS or bool(listed))


if __name__ == "__main__":
    sys.exit(main())
