"""Parses the names of Arrow types, in the notation of Arrow: `list<item: double>`."""

import re
from collections.abc import Callable
from functools import cache
from zoneinfo import ZoneInfo

import pyarrow as pa

_PLAIN = re.compile(r"[a-z][a-z0-9_]*(\[(day|s|ms|us|ns)\])?")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
_COLON = re.compile(r": ")
_COMMA = re.compile(r", ")
_SIZE = re.compile(r">\[(\d+)\]")
_NAME_IN_MAP = re.compile(r" \('((?:[^']|'(?!\)))*)'\)")
_END_OF_MAP = re.compile(r"(, keys_sorted)?>")
_INDICES = re.compile(r", indices=")
_ORDERED = re.compile(r", ordered=([01])>")


@cache
def arrow_type(name: str) -> pa.DataType:
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


def _type_at(text: str, start: int) -> tuple[pa.DataType, int]:
    """Return the type that begins at a position, and the position of its end."""
    for pattern, make in _FORMS:
        if match := pattern.match(text, start):
            return make(match), match.end()
    for pattern, read in _NESTED_FORMS:
        if match := pattern.match(text, start):
            return read(text, match)
    match = _expect(_PLAIN, text, start)
    if match[0] == "month_day_nano_interval":
        raise ValueError(match[0])
    return pa.type_for_alias(match[0]), match.end()


def _timestamp(match: re.Match[str]) -> pa.DataType:
    if not _OFFSET.fullmatch(match[2]):
        ZoneInfo(match[2])  # otherwise an unknown zone would fail only at the first row
    return pa.timestamp(match[1], tz=match[2])


def _list(text: str, match: re.Match[str]) -> tuple[pa.DataType, int]:
    item, end = _field_at(text, match.end(), (">",))
    if match[1] == "fixed_size_list":
        size = _expect(_SIZE, text, end)
        return pa.list_(item, int(size[1])), size.end()
    make = pa.list_ if match[1] == "list" else getattr(pa, match[1])
    return make(item), end + 1


def _struct(text: str, match: re.Match[str]) -> tuple[pa.DataType, int]:
    fields, end = [], match.end()
    while True:
        field, end = _field_at(text, end, (", ", ">"))
        fields.append(field)
        if text.startswith(">", end):
            return pa.struct(fields), end + 1
        end += len(", ")


def _map(text: str, match: re.Match[str]) -> tuple[pa.DataType, int]:
    key, end = _part_of_map(text, match.end(), "key", nullable=False)
    item, end = _part_of_map(text, _expect(_COMMA, text, end).end(), "value", nullable=True)
    closing = _expect(_END_OF_MAP, text, end)
    return pa.map_(key, item, keys_sorted=closing[1] is not None), closing.end()


def _part_of_map(text: str, start: int, name: str, *, nullable: bool) -> tuple[pa.Field, int]:
    kind, end = _type_at(text, start)
    if named := _NAME_IN_MAP.match(text, end):
        name, end = named[1], named.end()
    return pa.field(name, kind, nullable=nullable), end


def _dictionary(text: str, match: re.Match[str]) -> tuple[pa.DataType, int]:
    values, end = _type_at(text, match.end())
    indices, end = _type_at(text, _expect(_INDICES, text, end).end())
    ordered = _expect(_ORDERED, text, end)
    return pa.dictionary(indices, values, ordered=ordered[1] == "1"), ordered.end()


def _field_at(text: str, start: int, ends: tuple[str, ...]) -> tuple[pa.Field, int]:
    """Read `name: type` or `name: type not null`, up to one of the ends."""
    for colon in _COLON.finditer(text, start):  # the name itself may contain a colon
        try:
            kind, end = _type_at(text, colon.end())
        except (ValueError, LookupError, OSError):
            continue
        required = text.startswith(" not null", end)
        end += len(" not null") * required
        if text.startswith(ends, end):
            return pa.field(text[start : colon.start()], kind, nullable=not required), end
    raise ValueError(text[start:])


def _expect(pattern: re.Pattern[str], text: str, start: int) -> re.Match[str]:
    match = pattern.match(text, start)
    if match is None:
        raise ValueError(text[start:])
    return match


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], pa.DataType]], ...] = (
    (re.compile(r"timestamp\[(s|ms|us|ns), ?tz=([^\]]+)\]"), _timestamp),
    (
        re.compile(r"(decimal(?:32|64|128|256))\((\d+), ?(-?\d+)\)"),
        lambda match: getattr(pa, match[1])(int(match[2]), int(match[3])),
    ),
    (re.compile(r"fixed_size_binary\[(\d+)\]"), lambda match: pa.binary(int(match[1]))),
    (
        re.compile(r"extension<arrow\.(uuid|json|bool8)>"),
        lambda match: {"uuid": pa.uuid, "json": pa.json_, "bool8": pa.bool8}[match[1]](),
    ),
)

_NESTED_FORMS: tuple[tuple[re.Pattern[str], Callable[[str, re.Match[str]], tuple[pa.DataType, int]]], ...] = (
    (re.compile(r"(list|large_list|list_view|large_list_view|fixed_size_list)<"), _list),
    (re.compile(r"struct<"), _struct),
    (re.compile(r"map<"), _map),
    (re.compile(r"dictionary<values="), _dictionary),
)
