"""Bounds one attribute: its key and whatever value a step gave it. A whole span: span_bounds.py.

Jaeger keeps a key with its value in the key of an index, which has 65,000 bytes; a list or a map it keeps as
JSON. What is larger it refuses for ever, and what is in line behind it waits.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ledgerline.cleaning.texts import sendable, shortened

KEY_BYTES = 250  # MLflow keeps keys of resources in a column of this width
VALUE_BYTES = 50_000  # of a text, or of the JSON of a list or a map
ITEMS = 1_000  # of a list or a map, with all that is nested in it
DEPTH = 8  # of nested lists and maps; protobuf's parsers stop at 100
INT_BITS = 4_096  # Python writes no longer numbers as text
INT64 = range(-(2**63), 2**63)
HASH_CHARACTERS = 16

# Such as need no second look: short ones, in which every character is one byte.
SHORT = 4_000


@dataclass(frozen=True)
class Cut:
    """The numbers of values of a list or a map that were kept and left out.

    Attributes:
        kept: Values, nested ones included.
        left_out: Values of the list or map in which the space ended.
    """

    kept: int
    left_out: int

    def __str__(self) -> str:
        return f"{self.kept:,} kept, {self.left_out:,} left out"


def is_plain(value: object) -> bool:
    """Return whether a value is sent unchanged; nearly all values are, so this is decided fast."""
    kind = type(value)
    if kind is str:
        return len(value) <= SHORT and value.isascii() and "\0" not in value  # pyright: ignore
    if kind is int:
        return -(2**63) <= value < 2**63  # pyright: ignore
    if kind is float:
        return math.isfinite(value)  # pyright: ignore
    return kind is bool


def bounded_key(key: str) -> str:
    """Return a key of at most KEY_BYTES, without NUL; a longer one ends in its hash, which keeps it apart."""
    return bounded_text(key, KEY_BYTES) if len(key) > 50 or not key.isascii() or "\0" in key else key


def bounded_text(text: str, size: int) -> str:
    """Return a text of at most `size` bytes of UTF-8; one that is cut ends in its length and its hash."""
    start = sendable(text[: size + 1])  # of a longer one, what is behind is not looked at
    encoded = start.encode()
    if len(encoded) <= size:
        return start
    fitting = len(encoded[:size].decode(errors="ignore"))
    cut = shortened(text if len(text) > size else start, fitting)
    statement = cut[cut.rindex("…") :]
    return encoded[: size - len(statement.encode())].decode(errors="ignore") + statement


@dataclass
class ValueBounds:
    """Bounds values; keeps what it had to leave out of the last one.

    Attributes:
        size: Bytes of a value.
        length: Characters of a text, where a person set a limit.
    """

    size: int = VALUE_BYTES
    length: int | None = None
    cut: Cut | None = field(default=None, init=False)
    _left: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)

    def __call__(self, value: Any) -> Any:
        """Return a value that every receiver takes; None if nothing is left."""
        self.cut = None
        if isinstance(value, str):
            return self._text(value, self.size)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value))
        if isinstance(value, Mapping | Sequence):
            self._left, self._kept = self.size, 0
            return self._nested(value, 1)
        return self._scalar(value)

    def _nested(self, value: Any, depth: int) -> Any:
        """Bound a list or a map, or a value inside of one; each costs its size in JSON."""
        if isinstance(value, Mapping) and depth <= DEPTH:
            return self._mapping(value, depth)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray) and depth <= DEPTH:
            return self._sequence(value, depth)
        if isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes | bytearray):
            return f"({type(value).__name__} nested deeper than {DEPTH})"
        if isinstance(value, str):
            return self._text(value, self.size)
        if isinstance(value, bytes | bytearray):
            return self._bytes(bytes(value))
        return self._scalar(value)

    def _sequence(self, values: Sequence[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        self._left -= 2
        for number, value in enumerate(values):
            before = self._kept
            kept = self._nested(value, depth + 1)
            if not self._affords(kept, before):
                self.cut = self.cut or Cut(self._kept, len(values) - number)
                break
            found.append(kept)
            if self.cut is not None:
                break
        return found

    def _mapping(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._left -= 2
        for number, (key, value) in enumerate(values.items()):
            name = bounded_key(str(key))
            if not name:
                continue  # OpenTelemetry allows no empty key
            before = self._kept
            self._left -= _json_size(name)
            kept = self._nested(value, depth + 1)
            if not self._affords(kept, before):
                self.cut = self.cut or Cut(self._kept, len(values) - number)
                break
            found[name] = kept
            if self.cut is not None:
                break
        return found

    def _affords(self, value: Any, before: int) -> bool:
        """Return whether there is space for one more value; a nested one has been counted already."""
        if not isinstance(value, list | dict):
            self._left -= _json_size(value)
        if self._left < 0 or before >= ITEMS:
            return False
        self._kept += 1
        return True

    def _text(self, text: str, size: int) -> str:
        if self.length is not None:
            text = sendable(text)[: self.length]
        return bounded_text(text, size)

    def _bytes(self, value: bytes) -> str:
        if len(value) <= self.size // 4:  # each may become four characters
            return self._text(str(value), self.size)
        kept = value[: max(0, self.size // 4 - 100)]
        digest = sha256(value).hexdigest()[:HASH_CHARACTERS]
        return self._text(f"{kept!r}… ({len(value):,} bytes, sha256 {digest})", self.size)

    def _scalar(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, float):
            # NaN and infinity become texts, as in Python's JSON: Jaeger's searches fail on such numbers.
            return float(value) if math.isfinite(value) else json.dumps(float(value))
        return self._text(_as_text(value), self.size)


def _integer(value: int) -> int | str:
    """OTLP's integers have 64 bits; a larger one is a text."""
    if value in INT64:
        return int(value)
    if value.bit_length() <= INT_BITS:
        return str(int(value))
    return f"an integer of {value.bit_length():,} bits"


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 (a step's own class: whatever it raises)
        return f"({type(value).__name__} without text)"


def _json_size(value: Any) -> int:
    # The two characters that Go's JSON escapes and Python's does not, and the comma or colon behind it.
    text = json.dumps(value, ensure_ascii=False)
    return len(text.encode()) + 3 * (text.count("\u2028") + text.count("\u2029")) + 1
