"""Converts tables to and from the bytes of Parquet files, which contain their partition key."""

from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ledgerline.dagster.failures import PermanentFailure

PARTITION_KEY = b"ledgerline.partition_key"

# Files with fewer rows are smaller, and written faster, without dictionaries. The setup of zstd is worth its
# time only for text, and statistics do not let readers skip any rows.
FEW_ROWS = 5_000


def serialise(name: str, table: pa.Table, partition_key: str | None = None) -> bytes:
    """Return compressed Parquet bytes that contain the partition key, with a checksum on each page.

    Raises:
        PermanentFailure: A column has a type that Parquet does not have.
    """
    if partition_key is not None:
        key = {PARTITION_KEY: str(partition_key).encode("utf-8", "surrogatepass")}
        table = table.replace_schema_metadata((table.schema.metadata or {}) | key)
    try:
        content = _written(table)
        if any("fixed_size_list<" in str(kind) for kind in table.schema.types) and not _is_readable(content):
            # https://github.com/apache/arrow/issues/35692: with nulls they can be written, but not read.
            content = _written(
                table.cast(pa.schema(map(_with_list, table.schema), metadata=table.schema.metadata))
            )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PermanentFailure(
            f"{name} cannot be stored as Parquet: {error}.", "Give that column another type."
        ) from error
    return content


def parse(content: bytes, source: str) -> tuple[pa.Table, str | None]:
    """Return the rows of a Parquet file, and the partition key that it contains.

    Raises:
        PermanentFailure: The bytes are not a whole Parquet file.
    """
    try:
        table = _read(content)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PermanentFailure(
            f"{source} is not a whole Parquet file (truncated or damaged): {error}.",
            "Materialise that partition again.",
        ) from error
    metadata = dict(table.schema.metadata or {})
    key = metadata.pop(PARTITION_KEY, None)
    return table.replace_schema_metadata(metadata or None), _text(key)


def partition_key_of(file: BinaryIO) -> str | None:
    """Return the partition key that a file contains, without reading its rows."""
    return _text((pq.read_metadata(file).metadata or {}).get(PARTITION_KEY))


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode("utf-8", "surrogatepass")


def _written(table: pa.Table) -> bytes:
    few = table.num_rows < FEW_ROWS
    # pyarrow also accepts a codec for each column, which its type stubs do not contain.
    compression = cast("str", _compression(table.schema)) if few else "zstd"
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression=compression,
        write_page_checksum=True,
        use_dictionary=not few,
        write_statistics=not few,
    )
    return sink.getvalue().to_pybytes()


def _compression(schema: pa.Schema) -> str | dict[str, str]:
    """Return the codecs for few rows: zstd for text and nested columns, snappy for numbers."""
    if any(field.type.num_fields for field in schema):
        return "zstd"
    fixed = [pa.types.is_primitive(kind) for kind in schema.types]
    return {name: "snappy" if number else "zstd" for name, number in zip(schema.names, fixed, strict=True)}


def _read(content: bytes) -> pa.Table:
    # pq.read_table would import the dataset module of pyarrow for one file.
    return pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read()


def _is_readable(content: bytes) -> bool:
    try:
        _read(content)
    except pa.ArrowException:
        return False
    return True


def _with_list(field: pa.Field) -> pa.Field:
    """Return a field with lists of variable length instead of fixed-size lists."""
    kind = field.type
    if isinstance(kind, pa.FixedSizeListType | pa.ListType):
        return field.with_type(pa.list_(_with_list(kind.value_field)))
    if isinstance(kind, pa.LargeListType):
        return field.with_type(pa.large_list(_with_list(kind.value_field)))
    if isinstance(kind, pa.StructType):
        return field.with_type(pa.struct([_with_list(child) for child in kind]))
    if isinstance(kind, pa.MapType):
        return field.with_type(pa.map_(_with_list(kind.key_field), _with_list(kind.item_field)))
    return field
