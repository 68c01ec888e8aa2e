"""Computes digests of tables. Equal rows have equal digests, whatever their chunks, slices or encodings.

Each value is hashed to 64 bits, the values of a row are combined, and SHA-256 covers names, types and rows.
Text, numbers and times are hashed as in pandas (`pandas.util.hash_pandas_object`), so a table of them has the
same digest as its data frame (digests.py). Only steps that store a table import this module.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute

Hashes: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]

_NULL = 2**64 - 1
_NULL_BOOLEAN = 2**61 - 1
_NAN = 2**63 - 25
_NO_TIME = -(2**63)

_NAMES_IN_FRAME = {
    "bool": "boolean",
    "string": "object",
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
}

# Up to this value a float represents every integer exactly; pandas converts integers with nulls to floats.
EXACT_AS_FLOAT = 2**53 - 1


def part_digests(table: pa.Table, lengths: Sequence[int]) -> list[str]:
    """Return the digest of names, types and values of each part of a table, which has these numbers of rows.

    The digest of a part is that of a table with its rows.
    """
    ends = np.cumsum(lengths, dtype="int64")
    bounds = list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))
    headers = [hashlib.sha256() for _ in bounds]
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        types, hashes = _column(column, bounds)
        columns.append(hashes)
        for header, type_name in zip(headers, types, strict=True):
            header.update(f"{name}:{type_name}\n".encode())
    rows = _combined(columns) if columns else np.zeros(table.num_rows, "uint64")
    for header, (start, end) in zip(headers, bounds, strict=True):
        header.update(rows[start:end].tobytes())
    return [header.hexdigest() for header in headers]


def _column(column: pa.ChunkedArray, bounds: Sequence[tuple[int, int]]) -> tuple[list[str], Hashes]:
    """Return the name of the type in each part, and the hash of each value."""
    names = [_name_in_frame(column.type)] * len(bounds)
    if not pa.types.is_integer(column.type) or not column.null_count:
        return names, _of_chunks(column)
    # pandas converts integers with nulls to floats, so they are hashed as floats if these are exact.
    as_floats = _parts_as_floats(column, bounds)
    if all(as_floats):
        return ["float64"] * len(bounds), _of_chunks(column.cast(pa.float64()))
    hashes, floats = _of_chunks(column), _of_chunks(column.cast(pa.float64(), safe=False))
    for number, (start, end) in enumerate(bounds):
        if as_floats[number]:
            names[number] = "float64"
            hashes[start:end] = floats[start:end]
    return names, hashes


def _parts_as_floats(column: pa.ChunkedArray, bounds: Sequence[tuple[int, int]]) -> list[bool]:
    """Return, for each part, whether it has nulls and floats represent all of its integers exactly."""
    gaps = column.is_null().to_numpy()
    exact = np.ones(len(column), "bool")
    if column.type.bit_width == 64:
        exact = gaps | (np.abs(column.cast(pa.float64(), safe=False).to_numpy()) <= EXACT_AS_FLOAT)
    return [bool(gaps[start:end].any() and exact[start:end].all()) for start, end in bounds]


def _of_chunks(column: pa.ChunkedArray) -> Hashes:
    return np.concatenate([np.zeros(0, "uint64"), *map(_hashes, column.chunks)])


def _name_in_frame(kind: pa.DataType) -> str:
    """Return the name of a type in pandas, or in Arrow if pandas does not have the type."""
    name = _name(kind)
    if pa.types.is_timestamp(kind):
        return name.replace("timestamp", "datetime64").replace("tz=", "")
    return _NAMES_IN_FRAME.get(name, name)


def _name(kind: pa.DataType) -> str:
    """Return the name of a type in Arrow, without its encoding."""
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return _name(kind.value_type)
    if pa.types.is_map(kind):
        return f"map<{_name(kind.key_type)}, {_name(kind.item_type)}>"
    if _is_list(kind):
        return f"list<{_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_name(field.type)}' for field in kind)}>"
    if str(kind) in ("string", "large_string", "string_view"):
        return "string"
    return "binary" if _is_bytes(kind) else str(kind)


def _hashes(array: pa.Array) -> Hashes:
    """Return the hash of each value of an array of any type."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    return next((each for is_kind, each in _HASHES if is_kind(array.type)), _of_texts)(array)


def _of_nulls(array: pa.Array) -> Hashes:
    return np.full(len(array), _NULL, "uint64")


def _of_booleans(array: pa.Array) -> Hashes:
    return _with_nulls(pd.util.hash_array(array.fill_null(False).to_numpy(False)), array, _NULL_BOOLEAN)


def _of_integers(array: pa.Array) -> Hashes:
    return _with_nulls(pd.util.hash_array(array.fill_null(0).to_numpy(False)), array)


def _of_times(array: pa.Array) -> Hashes:
    integers = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).cast(pa.int64())
    return pd.util.hash_array(integers.fill_null(_NO_TIME).to_numpy(False))


def _of_floats(array: pa.Array) -> Hashes:
    values = array.to_numpy(False).copy()  # null becomes NaN
    not_numbers = np.isnan(values)
    values[not_numbers] = np.nan  # one bit pattern for all NaN
    hashes = pd.util.hash_array(values)
    if not_numbers.sum() > array.null_count:
        hashes[not_numbers & array.is_valid().to_numpy(False)] = _NAN
    return hashes


def _of_texts(array: pa.Array) -> Hashes:
    """Return the hashes of text, bytes and decimals; each distinct value is hashed once."""
    if pa.types.is_decimal(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    elif _is_bytes(array.type):
        array = array.cast(pa.large_binary())
    encoded = array.dictionary_encode()
    different = encoded.dictionary.to_numpy(False)
    # The last hash is that of null, which the index -1 selects.
    hashes = np.append(pd.util.hash_array(different, categorize=False), np.uint64(_NULL))
    return hashes[encoded.indices.fill_null(-1).to_numpy(False)]


def _of_structs(array: pa.StructArray) -> Hashes:
    fields = [_hashes(field) for field in array.flatten()]
    return _with_nulls(_combined(fields) if fields else np.zeros(len(array), "uint64"), array)


def _of_lists(array: pa.Array) -> Hashes:
    # pyarrow creates its compute functions at import, so type checkers do not know them.
    lengths = compute.list_value_length(array)  # pyright: ignore[reportAttributeAccessIssue]
    items = compute.list_flatten(array)  # pyright: ignore[reportAttributeAccessIssue]
    ends = np.cumsum(lengths.fill_null(0).to_numpy(False), dtype="int64")
    return _with_nulls(_of_runs(_hashes(items), np.append(0, ends)), array)


def _of_maps(array: pa.MapArray) -> Hashes:
    offsets = array.offsets.to_numpy(False)
    start, length = int(offsets[0]), int(offsets[-1] - offsets[0])
    entries = [_hashes(part.slice(start, length)) for part in (array.keys, array.items)]
    return _with_nulls(_of_runs(_combined(entries), offsets - start), array)


def _of_runs(items: Hashes, bounds: np.ndarray) -> Hashes:
    """Return a hash of the items between each two successive bounds."""
    view = memoryview(items.tobytes())
    places = (bounds * 8).tolist()
    digests = [hashlib.blake2b(view[start:end], digest_size=8).digest() for start, end in pairwise(places)]
    return np.frombuffer(b"".join(digests), "uint64").copy()


def _with_nulls(hashes: Hashes, array: pa.Array, null: int = _NULL) -> Hashes:
    if array.null_count:
        hashes[array.is_null().to_numpy(False)] = null
    return hashes


def _combined(columns: Sequence[Hashes]) -> Hashes:
    """Return one hash for each row, combined as in pandas (and as Python hashes a tuple)."""
    combined = np.full(len(columns[0]), 0x345678, "uint64")
    factor = 1000003
    for remaining, column in zip(range(len(columns), 0, -1), columns, strict=True):
        combined ^= column
        combined *= np.uint64(factor)
        factor = (factor + 82520 + 2 * remaining) % 2**64
    combined += np.uint64(97531)
    return combined


def _is_list(kind: pa.DataType) -> bool:
    return isinstance(
        kind,
        pa.ListType | pa.LargeListType | pa.FixedSizeListType | pa.ListViewType | pa.LargeListViewType,
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return str(kind).startswith(("binary", "large_binary", "fixed_size_binary"))


# The functions that hash the values of a type, with the test for the type. _of_texts hashes all others.
_HASHES: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[Any], Hashes]]] = (
    (pa.types.is_struct, _of_structs),
    (pa.types.is_map, _of_maps),
    (_is_list, _of_lists),
    (pa.types.is_null, _of_nulls),
    (pa.types.is_boolean, _of_booleans),
    (pa.types.is_integer, _of_integers),
    (pa.types.is_floating, _of_floats),
    (pa.types.is_temporal, _of_times),
)
