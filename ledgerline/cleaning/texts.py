"""Cleans every text that Ledgerline sends: removes secrets and invalid characters, and limits the length.

Texts of a run are cleaned where they are read from Dagster's event log, and shortened where a receiver has a
limit. secret_forms.py and secret_pairs.py find secrets in texts; `cleaned` finds them in values with names.
This module imports neither Dagster nor a library that is slow to import.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

from ledgerline.cleaning.secret_forms import REDACTED, without_forms
from ledgerline.cleaning.secret_names import is_secret_name
from ledgerline.cleaning.secret_pairs import without_pairs

MIN_SECRET_LENGTH = 6  # a shorter one would match ordinary words

# A text that matches none of these patterns has no secret that can be recognised.
_HINT = re.compile(
    r"[:=]|</|%3|pass|pwd|kennwort|secret|token|auth|bearer|basic|identified|cookie|dsn|-----begin|--user|-u "
    r"|a(?:kia|sia|bia|cca|iza)|gh[pousr]_|github_|gl[a-z]{2,5}-|hf_|xox|xapp|[srp]k[-_]|eyj|ya29|npm_|pypi-"
    r"|dckr_|shp[a-z]{2}_|sg\.|do[op]_v1|dapi|gsk_|nvapi|r8_|hv[sb]\.|hooks\.|/webhooks|webhook\.",
    re.IGNORECASE,
)
# Lone surrogates cannot be encoded, PostgreSQL does not store NUL, and terminals interpret control
# characters.
_NOT_SENDABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_CACHED_LENGTH = 300  # characters; names and keys recur often, unlike error texts

# The name of an environment variable, which Dagster resolves: {"env": "DB_PASSWORD"}.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")
_NAMING = ("name", "key", "variable", "header", "Name", "Key", "NAME", "KEY")
_VALUES = ("value", "values", "default", "content", "Value", "VALUE")


def clean(text: str) -> str:
    """Return the text without secrets and invalid characters; cleaning it again does not change it.

    Example:
        >>> clean("postgresql://me:hunter2@db/x")
        'postgresql://me:[redacted]@db/x'
    """
    return _cached(text) if len(text) <= _CACHED_LENGTH else _clean(text)


def sendable(text: str) -> str:
    """Return the text with NUL, control characters and lone surrogates as escape sequences."""
    if text.isprintable() and text.isascii():
        return text
    return _NOT_SENDABLE.sub(_written_out, text)


def shortened(text: str, longest: int) -> str:
    """Return the text; if it is longer than `longest`, its beginning with its length and its hash."""
    if len(text) <= longest:
        return text
    sha256 = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    mark = f"… ({len(text):,} characters, sha256 {sha256[:16]})"
    if len(mark) > longest // 2:
        mark = f"…{sha256[:8]}"
    return (text[: max(longest - len(mark), 0)] + mark)[:longest]


def cleaned(value: Any, name: str = "", text: Callable[[str], str] = clean) -> Any:
    """Return a JSON value with clean texts, and with `[redacted]` for each value that has a secret's name.

    Args:
        value: Text, number, list or mapping; any other value is converted to text.
        name: Name of the value, whose parts may be joined by dots; empty if it has no name.
        text: Function that cleans a text, such as a Cleaner for a process with known secrets.

    Example:
        >>> cleaned({"secrets": {"first": "hunter2"}, "max_tokens": 100})
        {'secrets': {'first': '[redacted]'}, 'max_tokens': 100}
    """
    if name and is_secret_name(name):
        return _hidden(value, name, text)
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return _cleaned_mapping(value, text)
    if isinstance(value, list | tuple):
        return _cleaned_list(value, text)
    return text(str(value))


def _cleaned_mapping(value: Mapping[Any, Any], text: Callable[[str], str]) -> dict[str, Any]:
    named = any(isinstance(value.get(key), str) and is_secret_name(value[key]) for key in _NAMING)
    is_secret = value.get("kind") == "Secret"  # a Kubernetes object
    return {
        text(str(key)): _hidden(part, "", text)
        if (named and key in _VALUES) or (is_secret and key in ("data", "stringData"))
        else cleaned(part, str(key), text)
        for key, part in value.items()
    }


def _cleaned_list(value: Sequence[Any], text: Callable[[str], str]) -> list[Any]:
    """Clean a list. The item after an option like `--password`, or after the name in a pair, is redacted."""
    kept: list[Any] = []
    for index, part in enumerate(value):
        before = value[index - 1] if index else None
        if isinstance(before, str) and before.startswith("-") and is_secret_name(before.lstrip("-")):
            kept.append(_hidden(part, "", text))
        elif isinstance(part, list | tuple) and len(part) == 2 and isinstance(part[0], str):
            kept.append([text(part[0]), cleaned(part[1], part[0], text)])
        else:
            kept.append(cleaned(part, "", text))
    return kept


def _hidden(value: Any, name: str, text: Callable[[str], str]) -> Any:
    """Return the structure of a value with `[redacted]` in place of its parts."""
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return value
    if name.lower().endswith("tokens") and isinstance(value, int | float):
        return value  # a count of tokens
    if isinstance(value, Mapping):
        if set(value) == {"env"} and _VARIABLE.fullmatch(str(value["env"])):
            return {"env": text(str(value["env"]))}
        return {text(str(key)): _hidden(part, "", text) for key, part in value.items()}
    return REDACTED


@dataclass(frozen=True)
class Cleaner:
    """Cleans texts of a process with known secrets, such as tokens and passwords in its settings."""

    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, known: Iterable[str | None]) -> "Cleaner":
        """Return a cleaner with these secrets, also in the encodings of JSON and URLs.

        The longest secret comes first, because a secret may contain another one.
        """
        usable = {
            written
            for secret in known
            if secret and len(secret) >= MIN_SECRET_LENGTH
            for written in (
                secret,
                json.dumps(secret)[1:-1],
                json.dumps(secret, ensure_ascii=False)[1:-1],
                quote(secret),
                quote(secret, safe=""),
                quote_plus(secret),
            )
        }
        return cls(tuple(sorted(usable, key=lambda written: (-len(written), written))))

    def __call__(self, text: str) -> str:
        """Return the text without secrets and invalid characters."""
        for secret in self.known:
            text = text.replace(secret, REDACTED)
        return clean(text)


def _clean(text: str) -> str:
    text = sendable(text)
    if not _HINT.search(text):
        return text
    if text.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):  # not JSON
            document = json.loads(text)
            redacted = cleaned(document)
            return text if redacted == document else json.dumps(redacted, ensure_ascii=False)
    return without_pairs(without_forms(text))


_cached = lru_cache(maxsize=8192)(_clean)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
