"""Limits the key and the value of one attribute to what receivers accept. span_bounds.py limits spans.

Jaeger stores a key and its value in an index key of at most 65,000 bytes, and a list or a map as JSON. It
rejects larger values permanently, which blocks all spans that follow.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ledgerline.cleaning.texts import sendable, shortened

KEY_BYTES = 250  # the width of MLflow's column for the keys of resources
VALUE_BYTES = 50_000  # maximum bytes of a text, or of the JSON of a list or a map
ITEMS = 1_000  # maximum number of values in a list or a map, including nested ones
DEPTH = 8  # maximum depth of nested lists and maps; protobuf's parsers stop at 100
INT_BITS = 4_096  # Python converts only numbers up to about this size to text
HASH_CHARACTERS = 16

# ASCII texts up to this length are within all bounds.
SHORT = 4_000


def is_plain(value: object) -> bool:
    """Return whether a value can be sent unchanged, as nearly all values can. This check is fast."""
    kind = type(value)
    if kind is str:
        return len(value) <= SHORT and value.isascii() and "\0" not in value  # pyright: ignore
    if kind is int:
        return -(2**63) <= value < 2**63  # pyright: ignore
    if kind is float:
        return math.isfinite(value)  # pyright: ignore
    return kind is bool


def bounded_key(key: str) -> str:
    """Return a key of at most KEY_BYTES without NUL. A shortened key ends in its hash, so it stays unique."""
    return bounded_text(key, KEY_BYTES) if len(key) > 50 or not key.isascii() or "\0" in key else key


def bounded_text(text: str, size: int) -> str:
    """Return a text of at most `size` bytes of UTF-8. A shortened text ends in its length and its hash."""
    start = sendable(text[: size + 1])  # The rest of a longer text is not read.
    encoded = start.encode()
    if len(encoded) <= size:
        return start
    fitting = len(encoded[:size].decode(errors="ignore"))
    cut = shortened(text if len(text) > size else start, fitting)
    statement = cut[cut.rindex("…") :]
    return encoded[: size - len(statement.encode())].decode(errors="ignore") + statement


@dataclass
class ValueBounds:
    """Limits values, and records how much of the last one was left out.

    Attributes:
        size: Maximum number of bytes of a value.
        length: Maximum number of characters of a text, if the user set one.
        cut: Numbers of values that were kept, and that were left out of the list or map in which the limit
            was reached; None if all of the last value were kept.
    """

    size: int = VALUE_BYTES
    length: int | None = None
    cut: str | None = field(default=None, init=False)
    _left: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)

    def __call__(self, value: Any) -> Any:
        """Return the value within the limits, which every receiver accepts; None if nothing of it is left."""
        self.cut, self._left, self._kept = None, self.size, 0
        return self._bounded(value, 1)

    def _bounded(self, value: Any, depth: int) -> Any:
        """Limit a value: a list, a map and the values within them by their size in JSON."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value))
        if not isinstance(value, Mapping | Sequence):
            return self._scalar(value)
        if depth > DEPTH:
            return f"({type(value).__name__} nested deeper than {DEPTH})"
        if isinstance(value, Mapping):
            named = ((bounded_key(str(key)), each) for key, each in value.items())
            return dict(self._kept_of(named, len(value), depth))
        return [each for _, each in self._kept_of(((None, each) for each in value), len(value), depth)]

    def _kept_of(
        self, values: Iterable[tuple[str | None, Any]], count: int, depth: int
    ) -> Iterator[tuple[str | None, Any]]:
        """Yield the values of a list, or the keys and values of a map, for which there is space."""
        self._left -= 2
        for number, (name, value) in enumerate(values):
            if name == "":
                continue  # OpenTelemetry does not allow an empty key
            before = self._kept
            if name is not None:
                self._left -= _json_size(name)
            kept = self._bounded(value, depth + 1)
            if not isinstance(kept, list | dict):  # Their values have been counted already.
                self._left -= _json_size(kept)
            if self._left < 0 or before >= ITEMS:
                self.cut = self.cut or f"{self._kept:,} kept, {count - number:,} left out"
                return
            self._kept += 1
            yield name, kept
            if self.cut is not None:
                return

    def _text(self, text: str) -> str:
        if self.length is not None:
            text = sendable(text)[: self.length]
        return bounded_text(text, self.size)

    def _bytes(self, value: bytes) -> str:
        if len(value) <= self.size // 4:  # Each byte may become four characters.
            return self._text(str(value))
        kept = value[: max(0, self.size // 4 - 100)]
        digest = sha256(value).hexdigest()[:HASH_CHARACTERS]
        return self._text(f"{kept!r}… ({len(value):,} bytes, sha256 {digest})")

    def _scalar(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            if -(2**63) <= value < 2**63:
                return int(value)
            bits = value.bit_length()
            return str(int(value)) if bits <= INT_BITS else f"an integer of {bits:,} bits"
        if isinstance(value, float):
            # NaN and infinity become texts, as in Python's JSON, because they make Jaeger's searches fail.
            return float(value) if math.isfinite(value) else json.dumps(float(value))
        return self._text(_as_text(value))


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 (a class of the user may raise any error)
        return f"({type(value).__name__} without text)"


def _json_size(value: Any) -> int:
    # Go's JSON escapes two characters that Python's does not; one byte is for the comma or colon.
    text = json.dumps(value, ensure_ascii=False)
    return len(text.encode()) + 3 * (text.count("\u2028") + text.count("\u2029")) + 1
