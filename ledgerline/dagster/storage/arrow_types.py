"""Parses the names of Arrow types, in the notation of Arrow: `list<item: double>`."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN = re.compile(r"[a-z][a-z0-9_]*(\[(day|s|ms|us|ns)\])?")
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns), ?tz=([^\]]+)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), ?(-?\d+)\)")
_BYTES = re.compile(r"fixed_size_binary\[(\d+)\]")
_EXTENSION = re.compile(r"extension<arrow\.(uuid|json|bool8)>")
_LIST = re.compile(r"(list|large_list|list_view|large_list_view|fixed_size_list)<")
_SIZE = re.compile(r"\[(\d+)\]")
_STRUCT = re.compile(r"struct<")
_MAP = re.compile(r"map<")
_NAME_IN_MAP = re.compile(r" \('((?:[^']|'(?!\)))*)'\)")
_DICTIONARY = re.compile(r"dictionary<values=")
_ORDERED = re.compile(r", ordered=([01])>")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


@cache
def arrow_type(name: str) -> "pa.DataType":
    """Return the Arrow type with a name.

    Args:
        name: Result of `str()` of the type ("int16", "decimal128(10, 2)", "list<item: double>",
            "timestamp[us, tz=Europe/Berlin]"), or an alias of pyarrow ("float64").

    Raises:
        ValueError: The name is not that of an Arrow type, or Parquet cannot store the type (unions,
            intervals).
    """
    try:
        kind, end = _type_at(name, 0)
    except (ValueError, LookupError, OSError) as error:  # an unknown time zone raises one of these
        raise ValueError(f"{name!r} is not the name of an Arrow type that Parquet can store") from error
    if end != len(name):
        raise ValueError(f"{name!r} is not the name of an Arrow type: {name[end:]!r} is left over")
    return kind


def _type_at(text: str, start: int) -> "tuple[pa.DataType, int]":
    """Return the type that begins at a position, and the position of its end."""
    for pattern, read in _FORMS:
        if match := pattern.match(text, start):
            return read(text, match)
    raise ValueError(text[start:])


def _plain(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    if match[0] == "month_day_nano_interval":
        raise ValueError(match[0])
    return pa.type_for_alias(match[0]), match.end()


def _timestamp(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    if not _OFFSET.fullmatch(match[2]):
        ZoneInfo(match[2])  # otherwise an unknown zone would fail only at the first row
    return pa.timestamp(match[1], tz=match[2]), match.end()


def _decimal(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    return getattr(pa, f"decimal{match[1]}")(int(match[2]), int(match[3])), match.end()


def _bytes(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    return pa.binary(int(match[1])), match.end()


def _extension(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    return {"uuid": pa.uuid, "json": pa.json_, "bool8": pa.bool8}[match[1]](), match.end()


def _list(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    item, end = _field_at(text, match.end(), (">",))
    if match[1] == "fixed_size_list":
        size = _expect(_SIZE, text, end + 1)
        return pa.list_(item, int(size[1])), size.end()
    make = {
        "list": pa.list_,
        "large_list": pa.large_list,
        "list_view": pa.list_view,
        "large_list_view": pa.large_list_view,
    }
    return make[match[1]](item), end + 1


def _struct(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    fields, end = [], match.end()
    while True:
        field, end = _field_at(text, end, (", ", ">"))
        fields.append(field)
        if text.startswith(">", end):
            return pa.struct(fields), end + 1
        end += len(", ")


def _map(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    key, end = _part_of_map(text, match.end(), "key", nullable=False)
    item, end = _part_of_map(text, _after(", ", text, end), "value", nullable=True)
    keys_sorted = text.startswith(", keys_sorted", end)
    end = _after(">", text, end + len(", keys_sorted") * keys_sorted)
    return pa.map_(key, item, keys_sorted=keys_sorted), end


def _part_of_map(text: str, start: int, name: str, *, nullable: bool) -> "tuple[pa.Field, int]":
    import pyarrow as pa

    kind, end = _type_at(text, start)
    if named := _NAME_IN_MAP.match(text, end):
        name, end = named[1], named.end()
    return pa.field(name, kind, nullable=nullable), end


def _dictionary(text: str, match: re.Match[str]) -> "tuple[pa.DataType, int]":
    import pyarrow as pa

    values, end = _type_at(text, match.end())
    indices, end = _type_at(text, _after(", indices=", text, end))
    ordered = _expect(_ORDERED, text, end)
    return pa.dictionary(indices, values, ordered=ordered[1] == "1"), ordered.end()


def _field_at(text: str, start: int, ends: tuple[str, ...]) -> "tuple[pa.Field, int]":
    """Read `name: type` or `name: type not null`, up to one of the ends."""
    import pyarrow as pa

    for colon in _all(": ", text, start):  # the name itself may contain a colon
        try:
            kind, end = _type_at(text, colon + 2)
        except (ValueError, LookupError, OSError):
            continue
        required = text.startswith(" not null", end)
        end += len(" not null") * required
        if text.startswith(ends, end):
            return pa.field(text[start:colon], kind, nullable=not required), end
    raise ValueError(text[start:])


def _all(part: str, text: str, start: int) -> Iterator[int]:
    while (start := text.find(part, start)) >= 0:
        yield start
        start += 1


def _after(part: str, text: str, start: int) -> int:
    if not text.startswith(part, start):
        raise ValueError(text[start:])
    return start + len(part)


def _expect(pattern: re.Pattern[str], text: str, start: int) -> re.Match[str]:
    match = pattern.match(text, start)
    if match is None:
        raise ValueError(text[start:])
    return match


_FORMS: "tuple[tuple[re.Pattern[str], Callable[[str, re.Match[str]], tuple[pa.DataType, int]]], ...]" = (
    (_TIMESTAMP, _timestamp),
    (_DECIMAL, _decimal),
    (_BYTES, _bytes),
    (_EXTENSION, _extension),
    (_LIST, _list),
    (_STRUCT, _struct),
    (_MAP, _map),
    (_DICTIONARY, _dictionary),
    (_PLAIN, _plain),
)
